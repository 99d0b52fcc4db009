"""Which reference a run has, in which form, and its scores from the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import transformers

from plot_exp.config.model import ModelConfig
from plot_exp.config.schema import Config
from plot_exp.data.collate import Batch
from plot_exp.data.loader import total_steps
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.errors import UserError
from plot_exp.losses.composite import Composite
from plot_exp.models.adapters import POLICY, has_adapter
from plot_exp.models.identity import weights_fingerprint
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy, freeze
from plot_exp.models.reference import CachedReference, PolicyStart, Reference
from plot_exp.models.reference_cache import ReferenceCache
from plot_exp.ops.scores import Request, Scores
from plot_exp.progress import Bar
from plot_exp.workflows.device import autocast, weights_dtype
from plot_exp.workflows.devices import opened_on
from plot_exp.workflows.models import Start, reopened
from plot_exp.workflows.prepare import Prepared

Form = Literal["copy", "adapter_off", "cached"]
OF_POLICY = "policy"


def open_reference(config: Config, start: Start) -> Reference:
    """The reference before training: the policy itself, or the model that `reference` names.

    Raises:
        UserError: the named model has another vocabulary.
    """
    if config.reference == OF_POLICY:
        return PolicyStart(start.policy)
    return _named(config, start)


def _named(config: Config, start: Start) -> Policy:
    named = ModelConfig(name=config.reference, dtype=config.model.dtype)
    try:
        tokenizer = load_tokenizer(named)
        model = load_model(named, dtype=weights_dtype(config.trainer))
    except UserError as error:
        raise UserError(str(error).replace("model.name=", "reference=", 1)) from error
    ours = start.tokeniser.tokenizer.get_vocab()
    if tokenizer.get_vocab() != ours:
        raise UserError(
            f"reference={config.reference}: its tokenizer differs from that of the policy "
            f"({start.origin}); log-probabilities of the same tokens are needed from both"
        )
    return freeze(Policy(model).to(opened_on(config.trainer)))


def settle_reference(
    config: Config,
    opened: Reference,
    prepared: Prepared,
    composite: Composite,
    bar: Bar,
    earlier: Form | None = None,
) -> Reference:
    """The reference in the form that it has while the policy is trained.

    Args:
        earlier: what the run chose before it was resumed; another form would round otherwise.

    Raises:
        UserError: the form that was asked for cannot be had.
    """
    if earlier is not None:
        config = config.model_copy(update={"reference_form": earlier})
    cache = Caches(config, opened, prepared, composite)
    form, why = choose_form(config, prepared, composite, cache)
    prepared.facts["reference_form"] = form
    print(f"reference: {why}", flush=True)
    if form == "cached":
        return cache.reference(bar)
    if form == "copy" and isinstance(opened, PolicyStart):
        return prepared.start.devices.frozen_copy(opened.policy)
    return opened


def choose_form(
    config: Config, prepared: Prepared, composite: Composite, cache: Caches
) -> tuple[Form, str]:
    """The form, and the sentence that says so and why."""
    asked = config.reference_form
    live: Form = "copy"
    if config.reference == OF_POLICY and has_adapter(prepared.start.policy.model):
        live = "adapter_off"
    words = {
        "copy": "a frozen copy",
        "adapter_off": "the policy with its adapter off",
        "cached": f"scores kept in {cache.folder}",
    }
    more = needs_live(composite)
    if asked == "cached" and more:
        raise UserError(
            f"reference_form=cached with loss={'+'.join(config.loss)}: a term {more}, which no "
            f"file keeps; write reference_form={live}, or leave it out"
        )
    if asked != "auto":
        return asked, words[asked]
    if more:
        return live, f"{words[live]}, since a term {more}"
    if not cache.complete() and not cache.pays():
        return live, f"{words[live]}, since the run is shorter than a pass to fill a cache"
    if not cache.usable():
        return live, f"{words[live]}, since {cache.folder} cannot be written"
    return "cached", words["cached"]


def needs_live(composite: Composite) -> str:
    """What a term asks of the reference beyond log-probabilities of the data; empty for nothing."""
    if composite.request.of_reference() != Request():
        return "reads the reference's whole distributions"
    if composite.needs_mismatched:
        return "scores prompts with responses to other prompts"
    return ""


class Caches:
    """The reference's scores of a run's examples: of the training split where a term reads them.

    Args:
        opened: the reference, live and on its device.
    """

    def __init__(
        self, config: Config, opened: Reference, prepared: Prepared, composite: Composite
    ) -> None:
        self.config, self.opened, self.prepared = config, opened, prepared
        self.trained_on = composite.needs_reference
        self.folder = Path(config.cache_dir).expanduser() / "reference"
        self._found: list[ReferenceCache] | None = None

    def pays(self) -> bool:
        """Whether training asks for as many scores as a filling computes."""
        if not self.trained_on:
            return True
        settings, count = self.config.trainer, len(self.prepared.train)
        steps = total_steps(count, settings.batch_size, settings.epochs, settings.max_steps)
        return steps * settings.batch_size >= count

    def usable(self) -> bool:
        """Whether the files are there or can be written."""
        nearest = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        return self.complete() or os.access(nearest, os.W_OK)

    def complete(self) -> bool:
        """Whether an earlier run computed everything."""
        if not (self.folder.is_dir() and any(self.folder.glob("*.safetensors"))):
            return False
        return all(cache.open() is not None for cache in self.caches())

    def caches(self) -> list[ReferenceCache]:
        """One file for each split."""
        if self._found is None:
            splits = [self.prepared.train] if self.trained_on else []
            splits.append(self.prepared.validation)
            identity = self._identity()
            self._found = [
                ReferenceCache(self.folder, identity, items) for items in splits if items
            ]
        return self._found

    def _identity(self) -> str:
        """The weights, and everything else that the numbers depend on."""
        with self.opened.live() as policy:
            shared = isinstance(self.opened, PolicyStart)
            weights = weights_fingerprint(policy.model, leave_out=POLICY if shared else None)
            facts = [
                weights,
                self.config.trainer.precision,
                policy.device.type,
                torch.__version__,
                transformers.__version__,
            ]
        return "\x1f".join(facts)

    def reference(self, bar: Bar) -> CachedReference:
        """Fills what is missing, and lets the model go once training begins."""
        opened, config, start = self.opened, self.config, self.prepared.start
        device = start.policy.device

        def laid_out(items: Sequence[TokenisedExample]) -> Iterator[Batch]:
            return self.prepared.batches(items, config.trainer.validation_batch_size)

        @torch.no_grad()
        def score(batch: Batch) -> Scores:
            with autocast(config.trainer, device):
                return opened(batch.to(device), Request())

        stored = [
            start.devices.first(cache.key, partial(cache.fill, laid_out, score, bar))
            for cache in self.caches()
        ]
        return CachedReference(stored, Source(config, opened, start), device)


class Source:
    """Opens a cached reference's model: as it stands before training, from its files after that."""

    def __init__(self, config: Config, opened: Reference, start: Start) -> None:
        self.config, self.opened, self.start = config, opened, start

    def __call__(self) -> AbstractContextManager[Policy]:
        """See `CachedReference`."""
        if isinstance(self.opened, PolicyStart) and self.opened.holds:
            return self.opened.live()
        return self._from_files()

    @contextmanager
    def _from_files(self) -> Iterator[Policy]:
        config, start = self.config, self.start
        if config.reference == OF_POLICY:
            yield reopened(config, start)
        else:
            yield start.devices.place(_named(config, start))
