"""What to change where a run does not fit: what costs nothing first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from plot_exp.config.schema import Config, TrainerConfig
from plot_exp.planner.plan import Plan

# A change that saves less is not worth a line.
LEAST_SAVING = 0.01
LORA_RANK = 16
CHUNK = 1_024
DEVICES = 8
# `trainer=fsdp` alone would be planned for the CPU where there is no GPU.
SEVERAL = f"trainer=fsdp trainer.accelerator=gpu trainer.devices={DEVICES}"

Replan = Callable[[Config], Plan]
Change = tuple[str, str, Config]


@dataclass(frozen=True)
class Advice:
    """One change, on top of those before it.

    Attributes:
        override: as it is typed.
        costs: what it costs.
        peak: bytes on a device with it.
    """

    override: str
    costs: str
    peak: float


def advise(plan: Plan, replan: Replan) -> list[Advice]:
    """Changes in their order, until the run fits; none that saves less than a hundredth."""
    found: list[Advice] = []
    config, peak = plan.config, plan.peak.total
    tried: set[str] = set()
    while peak > plan.devices.memory:
        change = next((one for one in _changes(config, plan) if one[0] not in tried), None)
        if change is None:
            break
        override, costs, changed = change
        tried.add(override)
        after = replan(changed).peak.total
        if after < (1 - LEAST_SAVING) * peak:
            if changed.model.lora.rank != config.model.lora.rank and plan.devices.kind == "cuda":
                found.append(_every_weight(config, replan))
            found.append(Advice(override, costs, after))
            config, peak = changed, after
    return found


def _every_weight(config: Config, replan: Replan) -> Advice:
    """What stands beside an adapter where every weight is to be trained: more devices."""
    update: dict[str, Any] = {"trainer": _several(config)}
    named = SEVERAL
    if config.optimizer.eight_bit:  # sharded weights keep whole moments
        update["optimizer"] = config.optimizer.model_copy(update={"eight_bit": False})
        named += " optimizer.eight_bit=false"
    peak = replan(config.model_copy(update=update)).peak.total
    return Advice(named, "in place of the rows below: every weight is trained", peak)


def _several(config: Config) -> TrainerConfig:
    update = {"strategy": "fsdp", "accelerator": "gpu", "devices": DEVICES}
    return config.trainer.model_copy(update=update)


def _changes(config: Config, plan: Plan) -> Iterator[Change]:
    """What may still be changed, in the order of what it costs."""
    trainer, lora = config.trainer, config.model.lora
    if trainer.log_term_gradients:
        yield _set(config, "trainer", "log_term_gradients", False, "no gradient norms by term")
    if plan.form == "copy" and config.reference_form != "cached" and _can_cache(config):
        changed = config.model_copy(update={"reference_form": "cached"})
        yield "reference_form=cached", "one pass over the data before training", changed
    if not trainer.activation_checkpointing:
        why = "about a third more time"
        yield _set(config, "trainer", "activation_checkpointing", True, why)
    size = trainer.microbatch_size or trainer.batch_size
    if size > 1:
        why = "smaller products of matrices"
        for smaller in dict.fromkeys((max(1, size // 4), 1)):
            yield _set(config, "trainer", "microbatch_size", smaller, why)
    if trainer.head_chunk == "auto":
        why = "the head's product once more in the backward pass"
        yield _set(config, "trainer", "head_chunk", CHUNK, why)
    if trainer.validation_batch_size > 4:
        yield _set(config, "trainer", "validation_batch_size", 4, "slower validation")
    if config.eval.batch_size > 4 and plan.peak.phase == "answers":
        yield _set(config, "eval", "batch_size", 4, "slower answers")
    yield from _smaller_states(config)
    if lora.rank is None:
        adapter = lora.model_copy(update={"rank": LORA_RANK})
        update: dict[str, Any] = {"lora": adapter}
        if config.model.shape.architecture is not None:
            update["dtype"] = "bfloat16"  # as the presets then have it
        model = config.model.model_copy(update=update)
        changed = config.model_copy(update={"model": model})
        yield f"model.lora.rank={LORA_RANK}", "adapters are trained, not every weight", changed
    if trainer.precision in ("bf16-mixed", "32-true", "auto"):
        why = "weights in bf16: small steps round away unless adapters are trained"
        yield _set(config, "trainer", "precision", "bf16-true", why)
    if trainer.strategy != "fsdp" and plan.devices.kind == "cuda":
        changed = config.model_copy(update={"trainer": _several(config)})
        yield SEVERAL, f"{DEVICES} devices", changed


def _smaller_states(config: Config) -> Iterator[Change]:
    """Moments in eight bits."""
    if not config.optimizer.eight_bit:
        why = "moments rounded to eight bits, through bitsandbytes"
        yield _set(config, "optimizer", "eight_bit", True, why)


def _can_cache(config: Config) -> bool:
    return not {"tdpo", "kto"} & set(config.loss)


def _set(config: Config, section: str, key: str, value: Any, costs: str) -> Change:
    own = getattr(config, section).model_copy(update={key: value})
    said = str(value).lower() if isinstance(value, bool) else value
    return f"{section}.{key}={said}", costs, config.model_copy(update={section: own})
