"""The model under attack: losses of target strings, and their gradients in the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plot_exp.attacks.batches import fitting_rows, in_batches
from plot_exp.attacks.prefix import share
from plot_exp.attacks.prompt import AttackedPrompt, Vocabulary, user_turn_ids
from plot_exp.data.behaviours import Behaviour
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import RunError, UserError
from plot_exp.models.policy import Policy

# Rows a forward pass, however much memory there is.
LARGEST_BATCH = 512


class AttackedModel:
    """A policy with what all attacks on it share.

    Attributes:
        table: [V, D] what each token is embedded to, scaled as the model scales it.
        evaluations, gradients: sequences sent forward, and those of them sent backward, so far.
    """

    def __init__(self, policy: Policy, tokeniser: ChatTokeniser) -> None:
        self.policy, self.tokeniser = policy, tokeniser
        embedding = policy.model.get_input_embeddings()
        rows = embedding.weight.shape[0]
        with torch.no_grad():
            self.table = embedding(torch.arange(rows, device=policy.device))
        self.vocabulary = Vocabulary(tokeniser, rows)
        self.evaluations = self.gradients = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.policy.device

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """Eval mode and frozen weights while an attack runs; both as before afterwards."""
        training = self.policy.training
        trainable = self.policy.trainable()
        self.policy.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            self.policy.train(training)

    def prompt(self, behaviour: Behaviour, initial: str) -> AttackedPrompt:
        """The behaviour's prompt for this model, with a slot for adversarial tokens.

        Raises:
            UserError: it leaves no slot, or is too long for the model.
        """
        prompt = AttackedPrompt(self.tokeniser, self.vocabulary, behaviour, initial)
        context = getattr(self.policy.model.config, "max_position_embeddings", None)
        needed = len(prompt.full(prompt.slot)) + len(prompt.target)
        if context is not None and needed > context:
            raise UserError(
                f"behaviour {behaviour.id} and its target take {needed} tokens, and the model has "
                f"a context of {context}; leave long ones out, such as contextual ones with "
                "eval.asr.functional=[standard]"
            )
        return prompt

    def losses_of_texts(
        self, texts: Sequence[str], target: Sequence[int], batch_size: int = 16
    ) -> list[float]:
        """The target's mean cross-entropy behind each user turn, as the model would be asked it."""
        prompts = [user_turn_ids(self.tokeniser, text) for text in texts]
        order = torch.tensor(sorted(range(len(texts)), key=lambda place: len(prompts[place])))

        def batch(places: Tensor) -> Tensor:
            return self._padded_losses([prompts[place] for place in places.tolist()], target)

        found = torch.empty(len(texts))
        found[order] = in_batches(batch, order, batch_size)[0]
        return found.tolist()

    @torch.no_grad()
    def _padded_losses(self, prompts: Sequence[Sequence[int]], target: Sequence[int]) -> Tensor:
        """[rows] losses; what pads on the right cannot be seen from the left of it."""
        width = max(map(len, prompts)) + len(target)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) + len(target)] = torch.tensor([*prompt, *target])
        hidden = self._decode(inputs=ids.to(self.device))
        starts = torch.tensor([len(prompt) for prompt in prompts], device=self.device) - 1
        places = starts[:, None] + torch.arange(len(target), device=self.device)
        rows = torch.arange(len(prompts), device=self.device)[:, None]
        self.evaluations += len(prompts)
        return _comparable(self._cross_entropy(hidden[rows, places], target)).cpu()

    def _decode(self, *, inputs: Tensor, cache: Any = None) -> Tensor:
        """[rows, L, D] last hidden states of ids [rows, L] or embeddings [rows, L, D]."""
        name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
        options: dict[str, Any] = {name: inputs, "use_cache": cache is not None}
        if cache is not None:
            options["past_key_values"] = cache
        hidden: Tensor = self.policy.model.get_decoder()(**options).last_hidden_state
        return hidden

    def _cross_entropy(self, hidden: Tensor, target: Sequence[int]) -> Tensor:
        """[rows] mean over the target of states [rows, T, D], at least in fp32."""
        rows, length, size = hidden.shape
        logits = self.policy.head(hidden.reshape(rows * length, size))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = torch.tensor(target, device=hidden.device).repeat(rows)
        return F.cross_entropy(logits, labels, reduction="none").view(rows, length).mean(dim=1)


class SlotLosses:
    """Losses of what stands in one prompt's slot, with the prompt's beginning computed once.

    Args:
        batch_size: rows a forward pass; None begins from the memory there is.
        cached: share the keys and values of what stands before the slot, where the model can.

    Attributes:
        cache: the shared keys and values, or None where each row computes its own.
        batch_size: what did so far; None until the first batch.
    """

    def __init__(
        self,
        model: AttackedModel,
        prompt: AttackedPrompt,
        *,
        batch_size: int | None = None,
        cached: bool = True,
    ) -> None:
        self.model, self.prompt, self.batch_size = model, prompt, batch_size
        self.behind = torch.tensor([*prompt.after, *prompt.target], device=model.device)
        self.front = torch.tensor(prompt.before, device=model.device)
        self.cache: Any = None
        if cached and len(prompt.before):
            self.cache = self._shared_cache()

    def of_ids(self, rows: Tensor) -> Tensor:
        """[N] on the CPU: the loss of each row of slot ids [N, S], in batches that fit."""
        if self.batch_size is None:
            needed = self._bytes_a_row(rows.shape[1])
            self.batch_size = fitting_rows(needed, LARGEST_BATCH, self.model.device)
        losses, self.batch_size = in_batches(self._batch, rows, self.batch_size)
        self.model.evaluations += len(rows)
        return losses

    def of_embeddings(self, embeddings: Tensor) -> Tensor:
        """[C] losses of slot embeddings [C, S, D], with their graph.

        Raises:
            RunError: one of them is not a number, and has no gradient.
        """
        self.model.evaluations += len(embeddings)
        self.model.gradients += len(embeddings)
        losses = self._losses(embeddings)
        if not bool(losses.detach().isfinite().all()):
            raise RunError(
                "the attacked model's loss is not a number; if it is loaded in float16, load it "
                "in bfloat16 or float32 (model.dtype)"
            )
        return losses

    def gradient(self, ids: Sequence[int]) -> tuple[Tensor, float]:
        """The loss's gradient in the one-hot rows of the slot's ids, [S, V], and the loss."""
        slot = torch.tensor(ids, device=self.model.device)
        embeddings = self.model.table[slot][None].clone().requires_grad_(True)
        with torch.enable_grad():
            loss = self.of_embeddings(embeddings)[0]
            (gradient,) = torch.autograd.grad(loss, embeddings)
        return gradient[0] @ self.model.table.T, float(loss.detach())

    @torch.no_grad()
    def _batch(self, rows: Tensor) -> Tensor:
        return _comparable(self._losses(self.model.table[rows.to(self.model.device)])).cpu()

    def _losses(self, slot: Tensor) -> Tensor:
        rows = len(slot)
        parts = [slot, self.model.table[self.behind].expand(rows, -1, -1)]
        if self.cache is None:
            parts.insert(0, self.model.table[self.front].expand(rows, -1, -1))
        inputs = torch.cat([part.to(self.model.table.dtype) for part in parts], dim=1)
        # The last target token is read by no position that counts.
        hidden = self.model._decode(inputs=inputs[:, :-1], cache=self.cache)
        target = self.prompt.target
        return self.model._cross_entropy(hidden[:, -len(target) :], target)

    @torch.no_grad()
    def _shared_cache(self) -> Any:
        """The shared cache, if the model takes one and gives the same losses with it."""
        try:
            decoder = self.model.policy.model.get_decoder()
            found = decoder(input_ids=self.front[None], use_cache=True)
            cache = share(getattr(found, "past_key_values", None))
            if cache is None:
                return None
            rows = torch.tensor([self.prompt.slot] * 2)
            rows[1, 0] = rows[1, -1]
            slot = self.model.table[rows.to(self.model.device)]
            plain = self._losses(slot)
            self.cache = cache
            shared = self._losses(slot)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError):
            return None
        finally:
            self.cache = None
        narrow = self.model.table.dtype in (torch.bfloat16, torch.float16)
        narrow |= torch.is_autocast_enabled(self.model.device.type)
        tolerance = 5e-2 if narrow else 1e-3
        return cache if torch.allclose(plain, shared, rtol=tolerance, atol=tolerance) else None

    def _bytes_a_row(self, positions: int) -> float:
        """What a row needs at its peak, roughly: logits, activations, attention, joined keys."""
        config = self.model.policy.model.config
        length = positions + len(self.behind)
        whole = length + len(self.front)
        width = int(self.model.table.shape[1])
        wide = int(getattr(config, "intermediate_size", None) or 4 * width)
        heads = int(getattr(config, "num_attention_heads", None) or 1)
        size = self.model.table.element_size()
        logits = len(self.prompt.target) * self.model.policy.vocab_size * (8 + size)
        activations = (whole if self.cache is None else length) * (8 * width + 3 * wide) * size
        attention = heads * length * whole * 4
        return logits + activations + attention + 4 * whole * width * size


def _comparable(losses: Tensor) -> Tensor:
    """Losses at least in fp32, with what is not a number behind all others."""
    return losses.float().nan_to_num(nan=float("inf"), posinf=float("inf"))
