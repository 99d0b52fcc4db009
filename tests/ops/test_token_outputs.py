"""What a term may ask of every response token, against a plain transformers forward pass."""

from __future__ import annotations

import pytest
import torch

from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.ops.embedding import FrozenEmbedding
from plot_exp.ops.scores import Request, Scores, TokenOutput

from scoring_models import VOCABULARY, tiny_model, toy_batch

NAMES: tuple[TokenOutput, ...] = (
    "entropy", "hidden", "label_cost", "predicting_hidden", "reference_kl",
)  # fmt: skip


def unequal_pair() -> tuple[Policy, Policy]:
    policy = Policy(tiny_model("qwen2").double().eval())
    reference = frozen_copy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.Generator().manual_seed(parameter.numel())
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise).double()
    return policy, reference


def everything() -> Request:
    vectors = torch.randn(VOCABULARY, 5, generator=torch.Generator().manual_seed(1)).double()
    vectors[3] = 0
    return Request(tokens=frozenset(NAMES), embedding=FrozenEmbedding(vectors))


def scored(policy: Policy, reference: Policy, request: Request) -> Scores:
    batch, _ = toy_batch()
    states = reference.states(reference(batch, request.of_reference()))
    return policy(batch, request, reference=states)


def test_token_outputs_are_those_of_a_plain_forward_pass() -> None:
    policy, reference = unequal_pair()
    request = everything()
    assert request.embedding is not None
    unit = request.embedding.beside(torch.zeros((), dtype=torch.float64))
    _, rows = toy_batch()

    tokens = scored(policy, reference, request).tokens

    place = 0
    for prompt, response in rows:
        ids = torch.tensor([[*prompt, *response]])
        out = policy.model(input_ids=ids, output_hidden_states=True)
        p = out.logits[0].softmax(-1)
        p_ref = reference.model(input_ids=ids).logits[0].softmax(-1)
        for step, label in enumerate(response):
            at = len(prompt) - 1 + step
            kl = (p_ref[at] * (p_ref[at] / p[at]).log()).sum()
            torch.testing.assert_close(tokens["reference_kl"][place], kl)
            torch.testing.assert_close(tokens["entropy"][place], -(p[at] * p[at].log()).sum())
            cosine = torch.nn.functional.cosine_similarity(unit, unit[label][None])
            torch.testing.assert_close(tokens["label_cost"][place], (p[at] * (1 - cosine)).sum())
            last = out.hidden_states[-1][0]
            torch.testing.assert_close(tokens["predicting_hidden"][place], last[at])
            torch.testing.assert_close(tokens["hidden"][place], last[at + 1])
            place += 1
    assert place == len(tokens["entropy"])


def test_the_divergence_from_a_reference_sends_no_gradient_to_it() -> None:
    policy, reference = unequal_pair()
    reference.requires_grad_(True)

    scored(policy, reference, everything()).tokens["reference_kl"].sum().backward()

    assert all(parameter.grad is None for parameter in reference.parameters())
    assert any(parameter.grad is not None for parameter in policy.parameters())


def test_a_policy_diverges_from_itself_by_nothing() -> None:
    policy, _ = unequal_pair()
    kl = scored(policy, frozen_copy(policy), everything()).tokens["reference_kl"]
    assert kl.abs().max() < 1e-12


def test_requests_join_and_refuse_what_cannot_be_answered() -> None:
    entropy = Request(tokens=frozenset({"entropy"}))
    joined = entropy | everything() | Request(frozenset({("chosen", "batch")}))
    assert joined.tokens == set(NAMES)
    assert joined.distributions == {("chosen", "batch")}
    assert joined.of_reference().tokens == {"predicting_hidden"}
    assert not entropy.of_reference().tokens
    with pytest.raises(ValueError, match="different embeddings"):
        everything() | everything()
    with pytest.raises(ValueError, match="embedding"):
        Request(tokens=frozenset({"label_cost"}))
    policy, _ = unequal_pair()
    with pytest.raises(ValueError, match="reference"):
        policy(toy_batch()[0], joined)


def test_token_outputs_are_carried_with_the_scores() -> None:
    policy, reference = unequal_pair()
    request = everything() | Request(frozenset({("chosen", "batch"), ("chosen", "response")}))
    scores = scored(policy, reference, request).detach()

    again = Scores.from_tensors(scores.to("cpu").as_tensors())
    whole = Scores.concatenate([scores, again])

    assert again.tokens.keys() == scores.tokens.keys() == set(NAMES)
    for one, other in zip(scores.tensors(), again.tensors(), strict=True):
        assert torch.equal(one, other)
    count = len(scores.token_logps)
    assert torch.equal(whole.tokens["hidden"][count:], scores.tokens["hidden"])
    parts = whole.split_gradients(whole.tensors(), [scores, again])
    for part in parts:
        for gradient, tensor, name in zip(
            part, scores.tensors(), ["logps", *sorted(NAMES), "batch", "response"], strict=True
        ):
            torch.testing.assert_close(gradient, 2 * tensor if name == "batch" else tensor)
    assert all(tensor.requires_grad for tensor in scores.leaves().tensors())
