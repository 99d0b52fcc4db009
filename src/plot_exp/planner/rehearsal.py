"""One optimizer step of a run on tensors without numbers, with every byte booked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from plot_exp.config.schema import Config
from plot_exp.data.collate import Batch, collate
from plot_exp.data.packing import Layout
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy
from plot_exp.models.reference import PolicyStart, Reference
from plot_exp.ops.memory import supposing
from plot_exp.ops.scores import Request, Scores
from plot_exp.planner.attention import row_attention
from plot_exp.planner.batches import Items
from plot_exp.planner.devices import Devices
from plot_exp.planner.ledger import Gathered, Ledger, rehearsing
from plot_exp.planner.phases import following
from plot_exp.planner.shape import build_policy, layers_of
from plot_exp.planner.states import FOUR_BITS
from plot_exp.planner.step import rehearsed_module
from plot_exp.planner.terms import build_terms
from plot_exp.workflows.device import autocast

FILLING = "filling the reference's cache"


@dataclass(frozen=True)
class Scene:
    """What is rehearsed.

    Attributes:
        shape: transformers' configuration of the model.
        layout: of the batches.
        microbatches: those of the step, two at most: a third needs no more than the second.
        form: of the reference.
        moments: whether the optimizer has its states already, as in every step but the first.
        validation: a batch of the split; empty for none.
        filling: a batch that the reference's cache is filled with; empty for none.
        prompts: rows that are answered, and the tokens of the longest prompt; None for none.
    """

    config: Config
    shape: Any
    devices: Devices
    layout: Layout
    microbatches: tuple[Items, ...]
    form: str
    moments: bool = True
    validation: Items = ()
    filling: Items = ()
    prompts: tuple[int, int] | None = None

    def laid_out(self) -> dict[str, list[Batch]]:
        """The microbatches, and the batches that are scored without gradients, by phase."""
        rows = {"training": self.microbatches, "validation": (self.validation,)}
        rows[FILLING] = (self.filling,)
        return {
            phase: [collate(items, 0, self.layout) for items in parts if items]
            for phase, parts in rows.items()
        }

    def precision(self) -> AbstractContextManager[Any]:
        """The mixed precision of training, as the run has it around a whole step."""
        return autocast(self.config.trainer, torch.device("cpu"))


class KnownScores:
    """A cached reference: scores without a model."""

    device = torch.device("cpu")

    def __call__(self, batch: Batch, request: Request) -> Scores:
        """See `models.reference.Reference`."""
        logps = torch.zeros(len(batch.targets))
        return Scores(logps, batch.response_of_token, batch.responses.length)

    def states(self, scores: Scores | None) -> None:
        """See `models.reference.Reference`."""
        return


def rehearse(scene: Scene) -> Ledger:
    """One step of the run, then a validation and answers, booked by part and phase."""
    ledger = Ledger(shares=scene.devices.shares)

    def free() -> int:
        return max(0, int(scene.devices.memory - ledger.total))

    with rehearsing(ledger), supposing(scene.devices.kind, free):
        policy, reference, composite = _set_up(scene, ledger)
        if scene.devices.sharded:
            ledger.gathered = _gathered(policy, scene)
        module = rehearsed_module(scene.config, scene.devices, policy, reference, composite, ledger)
        if scene.moments:
            module.make_states()
        policy.train()
        if scene.config.trainer.activation_checkpointing:
            policy.checkpoint_activations()
        models = [one.model for one in (policy, reference) if isinstance(one, Policy)]
        batches = scene.laid_out()
        with (
            row_attention(scene.devices.kind, models, batches["training"]) as shown,
            following(policy, ledger),
            scene.precision(),
        ):
            ledger.enter("begin", "activations")
            module.training_step(shown, 0)
        for phase in ("validation", FILLING):
            with row_attention(scene.devices.kind, models, batches[phase]) as shown:
                for batch in shown:
                    ledger.enter(phase, "activations")
                    with scene.precision():
                        _score(policy, reference, composite, batch)
        if scene.prompts is not None:
            with scene.precision():
                _answer(policy, scene, ledger)
        ledger.enter("end")
    return ledger


def _gathered(policy: Policy, scene: Scene) -> Gathered:
    """What of a sharded policy is whole for the moment: a layer and the next, and the rest."""
    layers = layers_of(policy.model)
    every = list(policy.parameters())
    mixed = scene.config.trainer.precision == "bf16-mixed"
    layer = sum(one.numel() for one in layers[0].parameters()) if layers else 0
    rest = sum(one.numel() for one in every) - layer * len(layers)
    size = 2 if mixed else every[0].element_size()
    trained = sum(one.numel() for one in policy.trainable()) / sum(one.numel() for one in every)
    # Gradients of mixed precision are added up in single.
    return Gathered(size * (rest + 2 * layer), trained * (size + 4 * mixed) * (rest + layer))


def _score(policy: Policy, reference: Any, composite: Composite, batch: Batch) -> None:
    """A batch through both models without gradients, as `Measurer.validate` does it."""
    policy.eval()
    with torch.no_grad():
        scores = None if reference is None else reference(batch, composite.request.of_reference())
        states = None if reference is None else reference.states(scores)
        policy(batch, composite.request, None, states)


def _answer(policy: Policy, scene: Scene, ledger: Ledger) -> None:
    """The prompts of a batch read at once, and one more token for each."""
    from transformers import DynamicCache

    assert scene.prompts is not None
    rows, width = scene.prompts
    policy.eval()
    ledger.enter("answers", "activations")
    cache: Any = DynamicCache(config=policy.model.config)
    with torch.no_grad():
        for length, seen in ((width, width), (1, width + 1)):
            with unset_fake_temporarily():
                ids = torch.zeros(rows, length, dtype=torch.long)
                mask = torch.ones(rows, seen, dtype=torch.long)
            policy.model(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            for layer in cache.layers:
                ledger.book(layer.keys, "keys and values")
                ledger.book(layer.values, "keys and values")


def _set_up(scene: Scene, ledger: Ledger) -> tuple[Policy, Reference | None, Composite]:
    """The model, its reference in its form, and the terms."""
    config = scene.config
    with ledger.booking("weights"):
        policy = build_policy(config, scene.shape)
    if config.model.lora.quantised is not None:
        _in_four_bits(policy, ledger)
    reference: Any = KnownScores()
    if scene.form == "adapter_off":
        reference = PolicyStart(policy)
    elif scene.form == "copy":
        with ledger.booking("reference"):
            reference = build_policy(config, scene.shape, adapted=False)
        reference.eval().requires_grad_(False)
    composite = build_terms(config, policy.vocab_size)
    for term in composite.terms.values():
        for one in vars(term).values():
            if isinstance(one, Tensor):
                ledger.book(one, "loss terms")
    return policy, reference, composite


def _in_four_bits(policy: Policy, ledger: Ledger) -> None:
    """Books frozen linear layers of the decoder at the size that NF4 gives them."""
    head = policy.model.get_output_embeddings()
    for layer in policy.model.modules():
        if isinstance(layer, nn.Linear) and layer is not head and not layer.weight.requires_grad:
            ledger.book(layer.weight, "weights in four bits")
            share = FOUR_BITS / layer.weight.element_size() * ledger.shares.get("weights", 1.0)
            ledger.shares["weights in four bits"] = share
