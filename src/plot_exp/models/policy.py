"""A causal language model as the losses see it: batches in, scores out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from plot_exp.data.collate import Batch
from plot_exp.errors import UserError
from plot_exp.models.attention import decoder_for, use_row_attention
from plot_exp.models.dropout import drops_by_token, recompute_contexts, use_token_keys
from plot_exp.models.parts import whole
from plot_exp.models.quantised import is_quantised
from plot_exp.ops.head import Head
from plot_exp.ops.reference_states import ReferenceStates
from plot_exp.ops.scores import Request, Scores
from plot_exp.ops.scoring import score


class Policy(nn.Module):
    """Owns a transformers causal language model and scores batches with it.

    Args:
        model: any decoder with `get_decoder()` and an output embedding.
        head_chunk: positions whose logits are held at once, or `auto`; see `ops.memory`.

    Raises:
        UserError: the model's own logits cannot be repeated from backbone and head.
    """

    def __init__(self, model: Any, head_chunk: int | Literal["auto"] = "auto") -> None:
        super().__init__()
        self.model = model
        self.head = Head(model.get_output_embeddings(), model.config, head_chunk)
        self.compiled = False
        use_row_attention(model)
        self._check_head()

    def forward(
        self,
        batch: Batch,
        request: Request,
        dropout_seed: int | None = None,
        reference: ReferenceStates | None = None,
    ) -> Scores:
        """Scores the batch's responses.

        Args:
            dropout_seed: of the masks by token, where dropout is on; None for torch's own.
            reference: what `states` of the reference gave for this batch, where asked for.
        """
        use_token_keys(None if dropout_seed is None else batch.token_keys, dropout_seed or 0)
        return score(decoder_for(self.model, batch), self.head, batch, request, reference)

    def outputs(self, **inputs: Any) -> Any:
        """What the model itself gives, for decoding."""
        if not self.compiled:
            return self.model(**inputs)
        # Compiled layers would be compiled anew for the shapes of every answer.
        with torch.compiler.set_stance("force_eager"):
            return self.model(**inputs)

    def states(self, scores: Scores | None) -> ReferenceStates | None:
        """What another policy's KL to this one reads, of this one's scores of the same batch.

        None where the scores were not asked for it (`Request.of_reference`).
        """
        if scores is None or "predicting_hidden" not in scores.tokens:
            return None
        return ReferenceStates(scores.tokens["predicting_hidden"], self.head)

    @contextmanager
    def live(self) -> Iterator[Self]:
        """Itself: a frozen policy serves as a reference (see `models.reference`)."""
        yield self

    def checkpoint_activations(self) -> None:
        """Keeps only the layers' inputs for the backward pass, which runs each layer again.

        Raises:
            UserError: the architecture cannot do it.
        """
        if not self.model.supports_gradient_checkpointing:
            raise UserError(
                f"trainer.activation_checkpointing: {type(self.model).__name__} cannot run its "
                "layers again; leave it out"
            )
        # The name that transformers 5 has for it.
        enable = getattr(self.model, "activation_checkpointing_enable", None)
        enable = enable or self.model.gradient_checkpointing_enable
        # torch.compile takes no contexts; without dropout none are needed.
        contexts = {"context_fn": recompute_contexts} if self.drops else {}
        enable({"use_reentrant": False, **contexts})

    def compile_layers(self, backend: str = "inductor") -> None:
        """Runs each layer of the decoder through torch.compile, decoding left out (`outputs`)."""
        decoder = self.model.get_decoder()
        stacks = [one for one in decoder.modules() if isinstance(one, nn.ModuleList) and len(one)]
        for layer in stacks[0] if stacks else [decoder]:
            layer.compile(dynamic=True, backend=backend)
        self.compiled = True

    @property
    def drops(self) -> bool:
        """Whether training draws dropout masks by token, so that a pass needs a seed for them."""
        return drops_by_token(self.model)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that an optimizer moves."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def vocab_size(self) -> int:
        """V: rows of the output embedding, which may exceed the tokenizer's."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some architectures change logits in ways that `Head` does not know."""
        training = self.model.training
        self.model.eval()
        ids = torch.arange(4, device=self.device)[None]
        expected = self.model(input_ids=ids).logits
        # Relative to the logits themselves: those of a fresh or scaled model are small.
        tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 2e-2
        expected = expected.float()
        hidden = self.model.get_decoder()(input_ids=ids).last_hidden_state
        found = self.head(hidden).float()
        self.model.train(training)
        if expected.shape != found.shape or not torch.allclose(
            expected, found, rtol=0, atol=tolerance * float(expected.abs().max())
        ):
            raise UserError(
                f"model {type(self.model).__name__} changes its logits after the output "
                "embedding in a way that the scoring path does not know; add it to ops/head.py"
            )


def frozen_names(model: nn.Module) -> set[str]:
    """The parameters that no training moves, by every name that the state dict has for them.

    Of quantised ones their scales, which stand there beneath their names, are among them.
    """
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    if not any(is_quantised(module) for module in model.modules()):
        return frozen
    return frozen | {
        key for key in model.state_dict() if key.partition(".weight.")[0] + ".weight" in frozen
    }


def load_trained(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Puts what was trained into a policy that holds the rest.

    Raises:
        UserError: a trained weight is missing, or one is not the policy's.
    """
    missing, unknown = policy.load_state_dict(weights, strict=False)
    if lost := sorted({*missing} - frozen_names(policy) | {*unknown}):
        raise UserError(f"the checkpoint is of another model: {lost[0]} differs")


def frozen_copy(policy: Policy) -> Policy:
    """The policy as it is now, in eval mode and without gradients."""
    reference = copy.deepcopy(policy)
    model = reference.model
    reference.head = Head(model.get_output_embeddings(), model.config, policy.head.chunk)
    return freeze(reference)


def freeze(policy: Policy) -> Policy:
    """Eval mode, no gradients: a reference."""
    policy.eval()
    policy.requires_grad_(False)
    return policy


def input_embedding(policy: Policy) -> Tensor:
    """[V, D] rows of the input embedding, padded with zero rows where the output has more."""
    weight = whole(policy.model.get_input_embeddings().weight.detach())
    return _to_rows(weight, policy.vocab_size)


def output_embedding(policy: Policy) -> Tensor:
    """[V, D] rows of the output embedding."""
    return whole(policy.model.get_output_embeddings().weight.detach())


def _to_rows(weight: Tensor, rows: int) -> Tensor:
    if len(weight) >= rows:
        return weight[:rows]
    return torch.cat([weight, weight.new_zeros(rows - len(weight), weight.shape[1])])
