"""A plan as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plot_exp.planner.advice import Advice
from plot_exp.planner.plan import Plan

GB = 1e9
MEANINGS = {
    "weights": "weights",
    "gradients": "gradients",
    "gradients by term": "each term's own gradient, at log steps",
    "optimizer": "optimizer states",
    "activations": "activations kept for the backward pass",
    "logits and head": "logits and the head",
    "backward": "gradients on their way back",
    "reference": "the reference's copy",
    "autocast copies": "weights in bf16, kept by autocast",
    "loss terms": "loss terms",
    "keys and values": "keys and values of answers",
}


def lines_of(plan: Plan, advice: Sequence[Advice]) -> list[str]:
    """Markdown that reads as plain text too."""
    devices, peak = plan.devices, plan.peak
    verdict = "fits" if plan.fits else "does not fit"
    one, several = {"cpu": ("CPU process", "CPU processes"), "cuda": ("GPU", "GPUs")}[devices.kind]
    each = f"{devices.count} {one if devices.count == 1 else several}"
    lines = [
        f"# Plan: {peak.total / GB:.2f} GB on each device, {verdict}",
        "",
        f"{plan.weights / 1e6:,.1f} M weights, {plan.trained / 1e6:,.1f} M of them trained; {each}"
        f"{', weights in shares' if devices.sharded else ''}; {devices.memory / GB:.2f} GB of "
        f"memory each ({devices.source}).",
        "",
        f"The peak is in: {peak.phase}.",
        "",
        "| part | GB |",
        "|---|--:|",
    ]
    for part, size in sorted(peak.parts.items(), key=lambda one: -one[1]):
        if size >= 0.005 * GB:
            lines.append(f"| {MEANINGS.get(part, part)} | {size / GB:.2f} |")
    lines += [f"| together | {peak.total / GB:.2f} |", "", "| moment | GB |", "|---|--:|"]
    lines += [f"| {moment.phase} | {moment.total / GB:.2f} |" for moment in plan.moments]
    lines += ["", _time(plan), "", *[f"- {note}" for note in plan.notes]]
    if not plan.fits:
        lines += ["", *_advice(advice, devices.memory)]
    return lines


def _time(plan: Plan) -> str:
    load, (speed, source) = plan.load, plan.speed
    # A prompt counts once.
    tokens = load.tokens * load.steps / max(plan.seconds, 1e-9)
    if plan.seconds_measured is not None:
        return (
            f"{load.steps:,} steps at the pairs a second of {plan.config.run}: "
            f"{duration(plan.seconds)}, {tokens:,.0f} tokens/s in all."
        )
    return (
        f"{load.steps:,} steps of {plan.flops / 1e12:,.2f} TFLOP on each device, at "
        f"{speed / 1e12:,.3f} TFLOP/s ({source}): {duration(plan.seconds)}, "
        f"{tokens:,.0f} tokens/s in all; validation, answers and writing come on top."
    )


def duration(seconds: float) -> str:
    """As a person says it."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _advice(advice: Sequence[Advice], memory: int) -> list[str]:
    if not advice:
        return ["No change that is known here makes it smaller."]
    lines = [
        "What to change, in this order; each row has those above it:",
        "",
        "| change | GB | |",
        "|---|--:|---|",
    ]
    for one in advice:
        verdict = "fits" if one.peak <= memory else ""
        lines.append(f"| `{one.override}`: {one.costs} | {one.peak / GB:.2f} | {verdict} |")
    if advice[-1].peak > memory:
        lines += ["", "With all of it the run still does not fit: more devices, or larger ones."]
    return lines


def facts_of(plan: Plan, advice: Sequence[Advice]) -> dict[str, Any]:
    """What plan.json holds; bytes."""
    return {
        "fits": plan.fits,
        "peak": {"phase": plan.peak.phase, "bytes": round(plan.peak.total)},
        "parts": {part: round(size) for part, size in plan.peak.parts.items()},
        "moments": {
            moment.phase: {part: round(size) for part, size in moment.parts.items()}
            for moment in plan.moments
        },
        "devices": {
            "kind": plan.devices.kind,
            "count": plan.devices.count,
            "sharded": plan.devices.sharded,
            "memory": plan.devices.memory,
            "source": plan.devices.source,
        },
        "weights": plan.weights,
        "trained": plan.trained,
        "steps": plan.load.steps,
        "flops_a_step": plan.flops,
        "speed": {"flops": plan.speed[0], "source": plan.speed[1]},
        "seconds": plan.seconds,
        "reference_form": plan.form,
        "layout": plan.layout.name,
        "notes": list(plan.notes),
        "advice": [
            {"override": one.override, "costs": one.costs, "peak": round(one.peak)}
            for one in advice
        ],
    }
