"""The scoring path gives what a plain transformers forward pass gives."""

from __future__ import annotations

import pytest
import torch

from plot_exp.models.policy import Policy
from plot_exp.ops.scores import Request, Scores

from scoring_models import ARCHITECTURES, tiny_model, toy_batch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_logps_are_those_of_a_plain_forward_pass(architecture: str) -> None:
    model = tiny_model(architecture).double().eval()
    batch, rows = toy_batch()

    scores = Policy(model)(batch, Request())

    expected = []
    for prompt, response in rows:
        ids = torch.tensor([[*prompt, *response]])
        logps = torch.log_softmax(model(input_ids=ids).logits[0], dim=-1)
        expected += [logps[len(prompt) - 1 + t, token] for t, token in enumerate(response)]
    torch.testing.assert_close(scores.token_logps, torch.stack(expected), rtol=1e-10, atol=1e-10)
    lengths = torch.tensor([len(response) for _, response in rows])
    assert scores.length.tolist() == lengths.tolist()
    cut = torch.stack(expected).split(lengths.tolist())
    torch.testing.assert_close(scores.sums(), torch.stack([part.sum() for part in cut]))
    torch.testing.assert_close(scores.means(), torch.stack([part.mean() for part in cut]))


def test_distributions_are_sums_of_softmax_over_the_positions_of_one_side() -> None:
    model = tiny_model("qwen2").double().eval()
    batch, rows = toy_batch()
    chosen = batch.responses.chosen.tolist()
    request = Request(
        frozenset({("chosen", "batch"), ("rejected", "response"), ("chosen", "position")})
    )

    scores = Policy(model)(batch, request)

    by_row = []
    for prompt, response in rows:
        ids = torch.tensor([[*prompt, *response]])
        softmax = torch.softmax(model(input_ids=ids).logits[0], dim=-1)
        by_row.append(softmax[len(prompt) - 1 : len(prompt) + len(response) - 1])
    of_chosen = torch.cat([row for row, kept in zip(by_row, chosen, strict=True) if kept])
    of_rejected = [row.sum(0) for row, kept in zip(by_row, chosen, strict=True) if not kept]
    distributions = scores.distributions
    torch.testing.assert_close(distributions[("chosen", "position")], of_chosen)
    torch.testing.assert_close(distributions[("chosen", "batch")], of_chosen.sum(0))
    torch.testing.assert_close(distributions[("rejected", "response")], torch.stack(of_rejected))


def test_half_precision_models_give_fp32_logps() -> None:
    model = tiny_model("qwen2").to(torch.bfloat16).eval()
    batch, _ = toy_batch()

    scores = Policy(model)(batch, Request(frozenset({("chosen", "batch")})))

    assert scores.token_logps.dtype == torch.float32
    assert scores.distributions[("chosen", "batch")].dtype == torch.float32


def test_nothing_is_computed_that_was_not_asked_for() -> None:
    batch, _ = toy_batch()

    scores = Policy(tiny_model("qwen2"))(batch, Request())

    assert scores.distributions == {}


def test_scores_of_parts_add_up_and_gradients_split_back() -> None:
    def part(tokens: list[float], rows: list[int], length: list[int], mass: float) -> Scores:
        return Scores(
            torch.tensor(tokens),
            torch.tensor(rows),
            torch.tensor(length),
            {
                ("chosen", "batch"): torch.full((3,), mass),
                ("chosen", "response"): torch.full((1, 3), mass),
            },
        )

    parts = [part([-1.0, -2.0, -3.0], [0, 0, 1], [2, 1], 0.5), part([-4.0], [0], [1], 2.0)]

    whole = Scores.concatenate(parts)

    assert whole.sums().tolist() == [-3.0, -3.0, -4.0]
    assert whole.distributions[("chosen", "batch")].tolist() == [2.5, 2.5, 2.5]
    assert whole.distributions[("chosen", "response")].shape == (2, 3)
    gradients = [torch.arange(4.0), torch.ones(3), torch.tensor([[1.0] * 3, [2.0] * 3])]
    first, second = whole.split_gradients(gradients, parts)
    assert first[0].tolist() == [0, 1, 2]
    assert second[0].tolist() == [3]
    assert first[1].tolist() == second[1].tolist() == [1, 1, 1]
    assert second[2].tolist() == [[2.0, 2.0, 2.0]]


def test_scores_survive_a_checkpoint() -> None:
    batch, _ = toy_batch()
    request = Request(frozenset({("chosen", "batch")}))
    scores = Policy(tiny_model("qwen2"))(batch, request).detach()

    again = Scores.from_tensors(scores.as_tensors())

    for one, other in zip(scores.tensors(), again.tensors(), strict=True):
        assert torch.equal(one, other)
