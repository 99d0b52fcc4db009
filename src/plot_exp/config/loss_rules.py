"""What loss terms ask of the data, of each other and of the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from plot_exp.config.dataset import WITHOUT_REJECTED, has_no_rejected, sources_of
from plot_exp.config.losses import TERMS, PLOTConfig
from plot_exp.config.schema import Config

# Forms of transport whose cost is a distance along lines.
LINES = ("line", "path", "sliced")


def terms_find_what_they_need(config: Config) -> Iterator[str]:
    if config.task != "train":
        return
    for key, dataset in sources_of(config.dataset):
        for term in config.loss:
            if not has_no_rejected(dataset):
                continue
            if TERMS[term].needs_pairs or TERMS[term].needs_rejected:
                none = dataset.name in WITHOUT_REJECTED
                yield (
                    f"loss={'+'.join(config.loss)} with {key}.rejected={dataset.rejected}: "
                    f"{term!r} compares chosen with rejected responses, and "
                    + (f"{dataset.name} has none" if none else "this leaves them out")
                    + f"; write {key}.rejected={'corrupt (or sampled)' if none else 'given'}, "
                    "or loss=sft"
                )


def gradient_share_has_two_sides(config: Config) -> Iterator[str]:
    others = [term for term in config.loss if not TERMS[term].auxiliary]
    for term, section in config.loss.items():
        share = getattr(section, "gradient_share", None)
        if share is None:
            continue
        key = f"loss.{term}.gradient_share={share:g}"
        if not others or others[0] == term:
            yield (
                f"{key}: a share of another term's gradient, and loss={'+'.join(config.loss)} has "
                "none before it that is trained for itself; "
                f"write loss=dpo+{term}, say, or leave it out"
            )
        elif getattr(section, "weight", None) == 0:
            factor = "alpha" if term == "plot" else "weight"
            yield (
                f"{key} with loss.{term}.{factor}=0: the first step is taken with that factor, "
                "and a gradient of zero has no share; give it a positive one"
            )


def a_cost_is_read_by_the_transport(config: Config) -> Iterator[str]:
    section = config.loss.get("plot")
    if not isinstance(section, PLOTConfig):
        return
    if section.cost_distance != "straight" and section.transport in ("sinkhorn", "exact"):
        yield (
            f"loss.plot.cost_distance={section.cost_distance} with loss.plot.transport="
            f"{section.transport}: light tokens are summed up at one point there, and a graph "
            "has none between tokens; write loss.plot.transport=dual"
        )
    if section.transport not in LINES:
        return
    for key, field in PLOTConfig.model_fields.items():
        value = getattr(section, key)
        if key.startswith("cost_") and value != field.get_default(call_default_factory=True):
            yield (
                f"loss.plot.{key}={value} with loss.plot.transport={section.transport}: this form "
                "has a line for a cost and does not read it; write loss.plot.transport=dual, or "
                "leave it out"
            )


def carried_potentials_have_one_batch(config: Config) -> Iterator[str]:
    section = config.loss.get("plot")
    if not isinstance(section, PLOTConfig) or section.transport != "dual":
        return
    if section.distribution != "batch":
        yield (
            f"loss.plot.transport=dual with loss.plot.distribution={section.distribution}: one set "
            "of potentials follows one distribution; write loss.plot.distribution=batch, or "
            "another transport"
        )
    if (coupling := config.trainer.coupling) != "exact":
        yield (
            f"loss.plot.transport=dual with trainer.coupling={coupling}: the potentials follow the "
            "whole batch from step to step, not its parts; write trainer.coupling=exact"
        )


def a_cached_reference_has_what_terms_ask(config: Config) -> Iterator[str]:
    if config.reference_form != "cached":
        return
    for term in config.loss:
        if asked := TERMS[term].asks_of_reference:
            yield (
                f"reference_form=cached with loss={'+'.join(config.loss)}: {term!r} reads the "
                f"reference's {asked}, which no file keeps; leave reference_form out"
            )


def kto_has_a_second_prompt(config: Config) -> Iterator[str]:
    if "kto" in config.loss and config.trainer.batch_size == 1:
        yield (
            "loss=kto with trainer.batch_size=1: its reference point is estimated on prompts with "
            "responses to other prompts of the batch; write trainer.batch_size=2 or more"
        )


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    terms_find_what_they_need,
    gradient_share_has_two_sides,
    a_cost_is_read_by_the_transport,
    carried_potentials_have_one_batch,
    a_cached_reference_has_what_terms_ask,
    kto_has_a_second_prompt,
)
