"""One optimizer step of a run on tensors without numbers, with every byte booked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from plot_exp.config.schema import Config, OptimizerConfig
from plot_exp.data.collate import Batch, collate
from plot_exp.data.packing import Layout
from plot_exp.losses.composite import Composite
from plot_exp.models.policy import Policy
from plot_exp.models.reference import PolicyStart, Reference
from plot_exp.module import PreferenceModule
from plot_exp.ops.memory import supposing
from plot_exp.ops.scores import Request, Scores
from plot_exp.planner.attention import row_attention
from plot_exp.planner.batches import Items
from plot_exp.planner.devices import Devices
from plot_exp.planner.ledger import Gathered, Ledger, rehearsing
from plot_exp.planner.shape import build_policy, layers_of
from plot_exp.planner.states import FOUR_BITS, make_states
from plot_exp.planner.terms import build_terms
from plot_exp.training.gradients import TermGradientMeter
from plot_exp.training.world import BUCKET, World
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


class _Module(PreferenceModule):
    """The run's own training step, without a trainer around it and without reading a number."""

    ledger: Ledger

    def attach(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._own = torch.optim.AdamW(self.policy.trainable())

    def optimizers(self, *_: Any, **__: Any) -> Any:
        return _Optimizer(self._own, self.ledger, self.optimizer_settings)

    def lr_schedulers(self) -> Any:
        return _Nothing()

    def _read_faults(self) -> bool:
        return False

    def _meter(self, step: int, logging: bool) -> TermGradientMeter | None:
        """A step that logs, which every run begins with and comes back to."""
        meter = super()._meter(step, logging)
        return None if meter is None else _Meter(meter, self.ledger)

    def _step_metrics(self, outcome: Any, meter: Any, norm: Tensor) -> dict[str, Any]:
        if meter is not None:
            with self.ledger.booking("gradients by term"):
                meter.metrics(self.composite.vanilla)
        return {}

    def _share_gradients(self, meter: Any, step: int) -> None:
        if meter is not None:
            meter.norms()

    def _finish_step(self, metrics: Any, step: int) -> None:
        """Nothing is logged."""


class _Meter(TermGradientMeter):
    """The run's own, telling the ledger when it goes back and what it keeps."""

    def __init__(self, meter: TermGradientMeter, ledger: Ledger) -> None:
        super().__init__(meter.parameters, list(meter.collected))
        self.ledger = ledger

    def add(self, outputs: Any, gradients: Any) -> None:
        with self.ledger.within("gradients by term"):
            super().add(outputs, gradients)
        for kept in self.collected.values():
            for gradient in kept:
                if gradient is not None:
                    self.ledger.book(gradient, "gradients by term")


class _Nothing:
    def step(self) -> None:
        """No schedule moves."""


class _Optimizer:
    """What the module asks of Lightning's optimizer; its step makes the states and no more."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, ledger: Ledger, settings: OptimizerConfig
    ) -> None:
        self.optimizer, self.ledger, self.settings = optimizer, ledger, settings
        self.param_groups = optimizer.param_groups

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.ledger.enter("optimizer", "optimizer")
        make_states(self.optimizer, self.settings)
        self.ledger.enter("after the optimizer", "activations")


def rehearse(scene: Scene) -> Ledger:
    """One step of the run, then a validation and answers, booked by part and phase."""
    ledger = Ledger(shares=scene.devices.shares)

    def free() -> int:
        return max(0, int(scene.devices.memory - ledger.total))

    with rehearsing(ledger), supposing(scene.devices.kind, free):
        policy, reference, composite = _set_up(scene, ledger)
        if scene.devices.sharded:
            ledger.gathered = _gathered(policy, scene)
        module = _module(scene, policy, reference, composite, ledger)
        if scene.moments:
            with ledger.booking("optimizer"):
                make_states(module._own, scene.config.optimizer)
        policy.train()
        if scene.config.trainer.activation_checkpointing:
            policy.checkpoint_activations()
        models = [one.model for one in (policy, reference) if isinstance(one, Policy)]
        batches = scene.laid_out()
        with (
            row_attention(scene.devices.kind, models, batches["training"]) as shown,
            _followed(policy, ledger),
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


def _module(
    scene: Scene,
    policy: Policy,
    reference: Reference | None,
    composite: Composite,
    ledger: Ledger,
) -> _Module:
    module = _Module(
        policy,
        reference if composite.needs_reference else None,
        composite,
        trainer_config=scene.config.trainer,
        optimizer_config=scene.config.optimizer,
        steps=1_000_000,
        seed=0,
        log=lambda *_: None,
        world=_Several() if scene.devices.count > 1 and not scene.devices.sharded else World(),
    )
    module.attach(ledger)
    return module


class _Several(World):
    """Processes that have the whole policy each: gradients travel in stretches."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        waiting: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                continue
            waiting.append(parameter.grad)
            if sum(one.numel() for one in waiting) >= BUCKET:
                torch.cat([one.flatten() for one in waiting])
                waiting = []


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


@contextmanager
def _followed(policy: Policy, ledger: Ledger) -> Iterator[None]:
    """Tells the ledger which phase the step is in, from hooks on the model."""
    layers = layers_of(policy.model)
    hooks = [
        policy.register_forward_pre_hook(lambda *_: _begin(ledger)),
        policy.register_forward_hook(lambda _, __, scores: _scored(ledger, scores)),
        policy.model.get_decoder().register_forward_hook(
            lambda _, __, out: _decoded(ledger, out.last_hidden_state)
        ),
    ]
    for place, layer in enumerate(layers):
        hooks.append(layer.register_forward_hook(_at_layer(ledger, place, len(layers))))
    for parameter in policy.trainable():
        hooks.append(
            parameter.register_post_accumulate_grad_hook(
                lambda one: ledger.book(one.grad, "gradients")
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _begin(ledger: Ledger) -> None:
    graph = "forward" if torch.is_grad_enabled() else "forward without gradients"
    ledger.enter(graph, "activations")


def _scored(ledger: Ledger, scores: Scores) -> None:
    ledger.enter("losses", "loss terms")
    for output in scores.tensors():
        if output.requires_grad:
            output.register_hook(lambda _: ledger.enter("backward, head", "logits and head"))


def _decoded(ledger: Ledger, hidden: Tensor) -> None:
    ledger.enter("head", "logits and head")
    if hidden.requires_grad:
        hidden.register_hook(lambda _: ledger.enter("backward, last layer", "backward"))


def _at_layer(ledger: Ledger, place: int, count: int) -> Callable[..., None]:
    """On a layer's output: when its gradient is there, the layer's backward pass begins."""
    name = {0: "backward, first layer", count - 1: "backward, last layer"}.get(
        place, "backward, between"
    )

    def follow(_: nn.Module, __: Any, found: Any) -> None:
        hidden = found[0] if isinstance(found, tuple) else found
        if hidden.requires_grad:
            hidden.register_hook(lambda _: ledger.enter(name, "backward"))

    return follow
