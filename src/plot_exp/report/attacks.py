"""Attack success in a report: before and after, by category, over cases and steps; runs compared.

Read from `evaluations.json`, where `eval=asr` leaves its tables and curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plot_exp.report.contents import Contents
from plot_exp.report.markdown import details, escape, table
from plot_exp.report.measures import number
from plot_exp.report.outcome import signed
from plot_exp.report.style import Picture, finish, line, panels, save

NAMES = {
    "zero_shot": "Zero-Shot",
    "sfs": "SFS",
    "pez": "PEZ",
    "gbda": "GBDA",
    "uat": "UAT",
    "gcg": "GCG",
}
LOOSE = (
    "**The judge is a list of refusal phrases.** It says only that an answer does not refuse, not "
    "that it does harm: these numbers are looser than published attack success rates and do not "
    "compare with them (`eval.asr.judge.name=classifier` or `endpoint` for those)."
)
CURVES = {
    "over_cases": ("Success of at least one of the first cases", "cases a behaviour"),
    "over_steps": ("Success of the best candidate so far", "steps of the attack"),
    "losses": ("Lowest loss of the target so far", "steps of the attack"),
}
SHOWN_BEHAVIOURS = 50
Side = Mapping[str, Any]


def section(contents: Contents) -> str:
    """The tables of one run; empty where no attack was measured."""
    after, before = side_of(contents, "after"), side_of(contents, "before")
    if not after:
        return _not_run(contents)
    blocks = [_judge(after), _table(after, before)]
    if cost := _cost(after, "Means over cases, after training." if before else "Means over cases."):
        blocks.append(details("What the attacks did", cost))
    if by_category := _by_category(after, before):
        blocks.append(details("By category", by_category))
    if by_behaviour := _by_behaviour(after):
        blocks.append(details("By behaviour", by_behaviour))
    notes = (contents.evaluations or {}).get("asr", {}).get("after", {}).get("notes") or []
    # The first one names the judge, which stands above; so does the caution.
    blocks += [f"- {escape(note)}" for note in notes[1:] if "Refusal substrings" not in note]
    blocks.append("Brackets are 95 % intervals over behaviours.")
    return "\n\n".join(blocks)


def _not_run(contents: Contents) -> str:
    why = (contents.evaluations or {}).get("asr", {}).get("after", {}).get("not_run")
    return f"*Left out. {escape(why)}.*" if why else ""


def side_of(contents: Contents, side: str) -> Side:
    """What was found `before` or `after` training; empty where no attack was measured."""
    found = (contents.evaluations or {}).get("asr", {}).get(side, {})
    facts = found.get("facts") if isinstance(found, dict) else None
    return facts if isinstance(facts, dict) and facts.get("attacks") else {}


def _judge(facts: Side) -> str:
    sentence = f"Behaviours of **{escape(str(facts.get('behaviours')))}**, judged by "
    sentence += f"**{escape(str(facts.get('judge')))}**."
    return f"{LOOSE}\n\n{sentence}" if facts.get("judged_by") == "refusal" else sentence


def _table(after: Side, before: Side) -> str:
    """An attack a row; without a side before training, the rate alone."""
    if not before:
        rows = [
            [NAMES.get(attack, escape(attack)), *_counts(found), _rate(_overall(found))]
            for attack, found in after["attacks"].items()
        ]
        return table(["Attack", "Behaviours", "Cases", "Success"], rows, 3)
    rows = []
    for attack, found in after["attacks"].items():
        now, then = _overall(found), _overall(before.get("attacks", {}).get(attack))
        change = signed(now["value"] - then["value"]) if now and then else ""
        rows.append(
            [NAMES.get(attack, escape(attack)), *_counts(found), _rate(then), _rate(now), change]
        )
    header = ["Attack", "Behaviours", "Cases", "Before", "After", "Change"]
    return table(header, rows, 5)


def _counts(found: Side) -> tuple[str, str]:
    overall = _overall(found)
    return (f"{overall['count']:.0f}" if overall else "0", str(found.get("cases", "")))


def _overall(found: Side | None) -> Side | None:
    return next((row for row in (found or {}).get("table", []) if row["category"] == "all"), None)


def _rate(row: Side | None) -> str:
    if row is None:
        return "not measured"
    return escape(f"{number(row['value'])} [{number(row['low'])}, {number(row['high'])}]")


def _by_category(after: Side, before: Side) -> str:
    blocks = []
    for attack, found in after["attacks"].items():
        then = {
            row["category"]: row
            for row in before.get("attacks", {}).get(attack, {}).get("table", [])
        }
        rows = [
            [
                escape(row["category"]),
                f"{row['count']:.0f}",
                *([_rate(then.get(row["category"]))] if before else []),
                _rate(row),
            ]
            for row in found["table"]
            if row["category"] != "all"
        ]
        if rows:
            sides = ["Before", "After"] if before else ["Success"]
            made = table(["Category", "Behaviours", *sides], rows, 1 + len(sides))
            blocks.append(f"**{NAMES.get(attack, escape(attack))}**\n\n{made}")
    return "\n\n".join(blocks)


def _by_behaviour(after: Side) -> str:
    """The share of each behaviour's cases that worked, as measured last."""
    found = after.get("tables", {}).get("behaviours")
    if not found:
        return ""
    attacks = found["columns"][3:]
    rows = [
        [
            *(escape(str(name)) for name in row[:3]),
            *("no case" if value is None else number(value) for value in row[3:]),
        ]
        for row in found["rows"][:SHOWN_BEHAVIOURS]
    ]
    header = ["Behaviour", "Functional", "Semantic", *(NAMES.get(one, one) for one in attacks)]
    made = table(header, rows, len(attacks))
    if len(found["rows"]) > len(rows):
        made += f"\n\nThe first {len(rows)} of {len(found['rows'])}; all in `evaluations.json`."
    return f"Shares of each one's cases that worked.\n\n{made}"


def _cost(after: Side, caption: str) -> str:
    columns = {
        "loss": "Loss",
        "encoded_loss": "Loss on the text as encoded",
        "same_ids": "Same ids after decode and encode",
        "stopped_early": "Stopped early",
        "evaluations": "Sequences forward",
        "seconds": "Seconds",
        "unreadable": "Unreadable verdicts",
    }
    rows = [
        [
            NAMES.get(attack, escape(attack)),
            *("–" if found.get(key) is None else number(found[key]) for key in columns),
        ]
        for attack, found in after["attacks"].items()
    ]
    made = table(["Attack", *columns.values()], rows, len(columns))
    return f"{caption}\n\n{made}"


def draw(contents: Contents, folder: Path) -> list[Picture]:
    """Success over cases and over steps, and losses, before and after.

    Raises:
        RunError: the disk cannot be written.
    """
    sides = {"before": side_of(contents, "before"), "after": side_of(contents, "after")}
    if not sides["after"]:
        return []
    return list(_pictures({name: facts for name, facts in sides.items() if facts}, folder))


def _pictures(sides: Mapping[str, Side], folder: Path) -> Iterator[Picture]:
    """One picture a kind of curve, one panel an attack, one line a side."""
    for kind, (title, x_label) in CURVES.items():
        attacks = [
            attack
            for attack in NAMES
            if any(len(points_of(facts, attack, kind)) > 1 for facts in sides.values())
        ]
        if not attacks:
            continue
        columns = min(len(attacks), 3)
        figure, axes = panels(-(-len(attacks) // columns), columns, width=9 if columns > 1 else 5)
        for axis in axes[len(attacks) :]:
            axis.set_visible(False)
        for axis, attack in zip(axes, attacks, strict=False):
            for index, (name, facts) in enumerate(sides.items()):
                _draw_line(axis, points_of(facts, attack, kind), name, index)
            if kind != "losses":
                axis.set_ylim(-0.03, 1.03)
            label = "nats a token" if kind == "losses" else "success rate"
            axis.xaxis.get_major_locator().set_params(integer=True)
            finish(axis, NAMES[attack], label, x_label)
        save(figure, folder, f"attacks_{kind}.png")
        yield Picture(f"attacks_{kind}.png", f"{title}, {', '.join(NAMES[one] for one in attacks)}")


def points_of(facts: Side, attack: str, kind: str) -> list[Side]:
    """The points of a curve of `CURVES`: `at`, `value`, and an interval where there is one."""
    found: list[Side] = facts["attacks"].get(attack, {}).get(kind) or []
    return found


def _draw_line(axis: Any, points: Sequence[Side], name: str, index: int) -> None:
    if not points:
        return
    places = [point["at"] for point in points]
    line(axis, (places, [point["value"] for point in points]), name, index)
    if "low" in points[0]:
        low, high = ([point[end] for point in points] for end in ("low", "high"))
        color = axis.get_lines()[-1].get_color()
        axis.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)


def compare(runs: Sequence[Contents], names: Sequence[str]) -> str:
    """Base and runs side by side, an attack a row; empty where no run was attacked.

    Runs from different starts each bring a base of their own. Runs that were not measured alike
    are told apart: their numbers do not compare.
    """
    attacked = [(name, run) for name, run in zip(names, runs, strict=True) if side_of(run, "after")]
    if not attacked:
        return ""
    columns = _bases(attacked) | {name: side_of(run, "after") for name, run in attacked}
    attacks = [one for one in NAMES if any(one in facts["attacks"] for facts in columns.values())]
    rows = [
        [
            NAMES[attack],
            *(_rate(_overall(facts["attacks"].get(attack))) for facts in columns.values()),
        ]
        for attack in attacks
    ]
    judges = {facts.get("judge"): facts for facts in columns.values()}
    blocks = ["## Attack success", *(_judge(facts) for facts in judges.values())]
    if different := _different(attacked):
        blocks.append(
            f"**These runs were not attacked alike** ({escape(', '.join(different))}): their "
            "numbers do not compare."
        )
    blocks.append(table(["Attack", *columns], rows, len(columns)))
    blocks.append("Lower is better. Brackets are 95 % intervals over behaviours, of one run each.")
    return "\n\n".join(blocks)


def _bases(attacked: Sequence[tuple[str, Contents]]) -> dict[str, Side]:
    """The start's numbers: once where all runs share them, else one a run."""
    found = {name: facts for name, run in attacked if (facts := side_of(run, "before"))}
    tables = {repr([one["table"] for one in facts["attacks"].values()]) for facts in found.values()}
    if len(tables) == 1:
        return {"base": next(iter(found.values()))}
    return {f"base of {name}": facts for name, facts in found.items()}


def _different(attacked: Sequence[tuple[str, Contents]]) -> list[str]:
    """The settings in which the attacks on these runs differ."""
    settings = [(run.evaluations or {})["asr"]["after"].get("settings", {}) for _, run in attacked]
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({repr(one.get(key)) for one in settings}) > 1]
