"""The sections of a run's report about its outcome: numbers and answers, before and after."""

from __future__ import annotations

from typing import Any

from plot_exp.report import flows
from plot_exp.report.contents import Contents
from plot_exp.report.markdown import details, escape, folded, table
from plot_exp.report.measures import KNOWN, ROUNDING, Measure, measures, number

SAMPLES_PER_CATEGORY = 2


def what_changed(contents: Contents) -> str:
    """Every measure over all cases, before and after, with intervals and counts."""
    if contents.metrics is None:
        return contents.left_out("metrics.json")
    found = [measure for measure in measures(contents.metrics) if measure.category is None]
    if not found:
        return "*Left out. `metrics.json` holds no `val/` or `eval/` number.*"
    shown = [measure for measure in found if measure.key in KNOWN]
    further = [measure for measure in found if measure.key not in KNOWN]
    blocks = [_measure_table(shown)] if shown else []
    if further:
        blocks.append(details("Further measures", _measure_table(further)))
    blocks.append(_how_to_read(contents, found))
    return "\n\n".join(blocks)


def by_category(contents: Contents) -> str:
    """The measures that are known by sub-preference, one table each."""
    if contents.metrics is None:
        return contents.left_out("metrics.json")
    grouped: dict[str, list[Measure]] = {}
    for measure in measures(contents.metrics):
        # Attacks have categories of their own, and a section with them.
        if measure.category is not None and not measure.key.startswith("eval/asr/"):
            grouped.setdefault(measure.key, []).append(measure)
    if not grouped:
        return "*Left out. `metrics.json` holds no number by sub-preference.*"
    named = {measure.category for rows in grouped.values() for measure in rows}
    if len(named) == 1:
        return f"There is only one, {escape(str(named.pop()))}: the table above is its own."
    shown, further = [], []
    for key, rows in grouped.items():
        body = _category_table(rows)
        if key in KNOWN and not key.endswith("_longer"):
            shown.append(f"**{escape(rows[0].label)}**\n\n{body}")
        else:
            further.append(f"**{escape(rows[0].label)}**\n\n{body}")
    if further:
        shown.append(details("Further measures by sub-preference", "\n\n".join(further)))
    return "\n\n".join(shown)


def samples(contents: Contents) -> str:
    """The first answers of each category as they came, before and after."""
    if contents.samples is None:
        return contents.left_out("samples.jsonl")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in contents.samples:
        grouped.setdefault(str(row.get("category") or "without a category"), []).append(row)
    blocks = [
        f"The first {SAMPLES_PER_CATEGORY} of each sub-preference in the order they were drawn, "
        f"not chosen by hand; all {len(contents.samples)} stand in `samples.jsonl`."
    ]
    for category, rows in grouped.items():
        blocks.append(f"### {escape(category)}")
        blocks += [_sample(row) for row in rows[:SAMPLES_PER_CATEGORY]]
    return "\n\n".join(blocks)


def distribution(contents: Contents) -> str:
    """How far the model moved towards the preference distribution, in one line."""
    if contents.distribution is None:
        return contents.left_out("preference_distribution.json")
    before = contents.distribution.get("distance_before")
    after = contents.distribution.get("distance_after")
    if before is None or after is None:
        return "*How far the model moved is left out: its distance was not measured.*"
    text = f"The model's distance to the target went from {number(before)} to {number(after)}"
    if before:
        text += f" ({(after - before) / before:+.1%})"
    sentence = text.replace("%", " %") + "."
    if contents.distribution.get("in_loss") is False:
        sentence += " No term of this loss uses it; it is shown so that runs can be compared."
    return "\n\n".join(part for part in (sentence, flows.tables(contents.distribution)) if part)


def _measure_table(rows: list[Measure]) -> str:
    return table(
        ["Measure", "Better", "Cases", "Before", "After", "Change"],
        [[escape(row.label), row.better, row.count, *_sides(row)] for row in rows],
        3,
    )


def _category_table(rows: list[Measure]) -> str:
    return table(
        ["Sub-preference", "Cases", "Before", "After", "Change"],
        [[escape(row.category or ""), row.count, *_sides(row)] for row in rows],
        3,
    )


def _sides(row: Measure) -> list[str]:
    change = "" if row.change is None else signed(row.change)
    return [
        "not measured" if row.before is None else escape(str(row.before)),
        "not measured" if row.after is None else escape(str(row.after)),
        change,
    ]


def signed(value: float, beside: float = 0.0) -> str:
    """A difference with its sign; none where only rounding makes it one. See `number`."""
    text = number(abs(value), beside)
    if abs(value) <= ROUNDING:
        return text
    return ("+" if value > 0 else "−") + text


def _how_to_read(contents: Contents, found: list[Measure]) -> str:
    sentences = []
    estimates = [side for row in found for side in (row.before, row.after) if side]
    if any(side.low is not None for side in estimates):
        sentences.append("Brackets are 95 % intervals over the cases of this one run and seed.")
    if contents.setting("reference") == "policy" and any(
        row.key == "val/reward_accuracy" and row.before for row in found
    ):
        sentences.append(
            "Before training the policy is its own reference: every reward is zero, and ties count "
            "half, so reward accuracy begins at 0.5 by definition; the log-probability accuracies "
            "show what the model itself preferred."
        )
    sentences.append("`metrics.json` holds all digits.")
    return " ".join(sentences)


def _sample(row: dict[str, Any]) -> str:
    answers = table(
        [
            f"Before{_verdict(row.get('verdict_before'))}",
            f"After{_verdict(row.get('verdict_after'))}",
        ],
        [[_text(row.get("before")), _text(row.get("after"))]],
    )
    data = [
        f"**{side.capitalize()}.** {_text(row[side])}"
        for side in ("chosen", "rejected")
        if row.get(side) is not None
    ]
    blocks = [f"**Prompt.** {_prompt(row.get('prompt'))}", answers]
    if data:
        blocks.append(details("What the data hold", "\n\n".join(data)))
    return "\n\n".join(blocks)


def _prompt(prompt: object) -> str:
    if not isinstance(prompt, list):
        return _text(prompt)
    if len(prompt) == 1:
        return _text(prompt[0].get("content"))
    turns = [f"*{escape(str(turn.get('role')))}:* {_text(turn.get('content'))}" for turn in prompt]
    return "<br>".join(turns)


def _verdict(verdict: object) -> str:
    return f" ({escape(str(verdict))})" if verdict else ""


def _text(value: object) -> str:
    if value is None:
        return "*not generated*"
    return folded(str(value)) if str(value).strip() else "*empty*"
