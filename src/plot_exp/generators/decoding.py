"""The decoding loop: rows of a batch that leave when they are done, and others in their place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from plot_exp.generators.base import Sampling
from plot_exp.generators.drawing import choose, top_logprobs
from plot_exp.models.policy import Policy


@dataclass
class Row:
    """One completion in the making.

    Attributes:
        place: which completion of all that were asked for.
        cut: whether the prompt lost its oldest part.
        drawn: its random numbers [max_new_tokens]; None for greedy decoding.
        top: for each token the likeliest ones, as (id, log-probability).
        finish: why it is done; such a row takes no more tokens.
    """

    place: int
    prompt: tuple[int, ...]
    cut: bool
    drawn: Tensor | None
    ids: list[int] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

    def restart(self) -> None:
        """Forgets what was generated."""
        self.ids, self.top = [], []


class Batch:
    """Rows that are decoded together, with their keys and values.

    Rows are padded on the left, so that all of them write into the same column.

    Args:
        policy: of a transformers causal language model.
        pad_id: fills the padding; it is masked out.
    """

    def __init__(self, policy: Policy, pad_id: int, sampling: Sampling) -> None:
        model = policy.model
        self.policy, self.model, self.pad_id, self.sampling = policy, model, pad_id, sampling
        self.device = next(model.parameters()).device
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._accepts = inspect.signature(inner.forward).parameters.keys()
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self.device)

    @torch.no_grad()
    def admit(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new rows, gives each its first token, and adds them.

        Architectures whose cache is not made of plain layers take new rows only when empty.
        """
        width = max(len(row.prompt) for row in rows)
        input_ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros_like(input_ids)
        for place, row in enumerate(rows):
            input_ids[place, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[place, width - len(row.prompt) :] = 1
        cache = DynamicCache(config=self.model.config)
        mask = mask.to(self.device)
        logits = self._forward(input_ids.to(self.device), mask, cache)
        self._extend(rows, logits)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._join(cache, mask)
        self.rows = [*self.rows, *rows]

    @torch.no_grad()
    def step(self) -> None:
        """One more token for every row."""
        last = torch.tensor([[row.ids[-1]] for row in self.rows], device=self.device)
        self._mask = F.pad(self._mask, (0, 1), value=1)
        self._extend(self.rows, self._forward(last, self._mask, self._cache))

    def keep(self, places: Sequence[int]) -> None:
        """Drops the other rows, and columns that are then padding in every row."""
        self.rows = [self.rows[place] for place in places]
        if not self.rows:
            self._cache = None
            return
        chosen = torch.tensor(places, device=self.device)
        self._mask = self._mask[chosen]
        if not self.joinable:
            self._cache.reorder_cache(chosen)
            return
        start = int(self._mask.argmax(-1).min())
        self._mask = self._mask[:, start:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen, :, start:]
            layer.values = layer.values[chosen, :, start:]

    @property
    def joinable(self) -> bool:
        """Whether rows of another length can be joined to these."""
        return self._cache is None or all(
            type(layer) is DynamicLayer and layer.is_initialized for layer in self._cache.layers
        )

    def _forward(self, input_ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """Logits behind the last column: [B, V]."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        offered = {"position_ids": positions, "logits_to_keep": 1}
        found = self.policy.outputs(
            input_ids=input_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **{key: value for key, value in offered.items() if key in self._accepts},
        )
        logits: Tensor = found.logits[:, -1]
        return logits

    def _extend(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Appends the next token of each row that is not done."""
        sampling = self.sampling
        drawn = torch.zeros(len(rows), dtype=torch.float64)
        for place, row in enumerate(rows):
            if row.drawn is not None and row.finish is None:
                drawn[place] = row.drawn[len(row.ids)]
        earlier = None
        if sampling.frequency_penalty or sampling.presence_penalty:
            earlier = self._earlier(rows, logits.shape[-1])
        chosen = choose(logits, sampling, drawn, earlier).tolist()
        top: list[list[tuple[int, float]]] = [[] for _ in rows]
        if sampling.top_logprobs:
            values, ids = (found.tolist() for found in top_logprobs(logits, sampling.top_logprobs))
            top = [list(zip(*found, strict=True)) for found in zip(ids, values, strict=True)]
        for row, token, likeliest in zip(rows, chosen, top, strict=True):
            if row.finish is None:
                row.ids.append(token)
                row.top.append(likeliest)

    def _earlier(self, rows: Sequence[Row], vocab_size: int) -> Tensor:
        width = max(len(row.ids) for row in rows)
        earlier = torch.full((len(rows), width), vocab_size)
        for place, row in enumerate(rows):
            earlier[place, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        return earlier.to(self.device)

    def _join(self, cache: Any, mask: Tensor) -> None:
        """Puts the keys and values of new rows below those of the present ones."""
        width = max(self._mask.shape[1], mask.shape[1])

        def padded(tensor: Tensor, columns: int) -> Tensor:
            return F.pad(tensor, (0, 0, columns, 0))

        ours, theirs = width - self._mask.shape[1], width - mask.shape[1]
        for mine, new in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([padded(mine.keys, ours), padded(new.keys, theirs)])
            mine.values = torch.cat([padded(mine.values, ours), padded(new.values, theirs)])
        self._mask = torch.cat([F.pad(self._mask, (ours, 0)), F.pad(mask, (theirs, 0))])
