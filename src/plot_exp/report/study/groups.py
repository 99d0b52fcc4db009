"""Runs that differ in nothing but their seed are one group."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plot_exp.config.defaults import completed
from plot_exp.config.losses import TERMS
from plot_exp.report.contents import Contents, flat
from plot_exp.report.measures import Measure, measures

# What differs between two runs of one setting.
INCIDENTAL = (
    "name",
    "resume",
    "objective",
    "cache_dir",
    "output_dir",
    "logger",
    "trainer.progress",
    "trainer.heartbeat_seconds",
    "trainer.requeue",
    "trainer.timeout",
    "export",
    "limits",
    "plan",
    "seed",
    "task",
    "run",
    "runs",
)
# What a run starts from and is measured on, and what of it leaves that alone.
STARTS = ("model.", "dataset.", "reference")
SAME_START = ("model.lora.", "dataset.preference_limit")
# The setting of a section that mostly decides the others.
NAMES = ("dataset.name", "model.name")


@dataclass
class Group:
    """The runs of one setting.

    Attributes:
        label: the settings in which groups differ, short.
        settings: every setting that is not incidental, by dotted key; `loss` names the terms.
        runs: by seed.
        repeated: further runs of a seed that is there already; they are not counted.
    """

    settings: dict[str, Any]
    label: str = ""
    runs: dict[int, Contents] = field(default_factory=dict)
    repeated: list[Path] = field(default_factory=list)
    _read: dict[int, dict[tuple[str, str | None], Measure]] = field(
        default_factory=dict, repr=False
    )

    @property
    def loss(self) -> str:
        """The terms, joined by `+`."""
        return str(self.settings["loss"])

    def values(
        self, key: str, category: str | None = None, *, base: bool = False
    ) -> dict[int, float]:
        """A measure by seed, where it was taken; before training for `base`."""
        found = {}
        for seed, run in self.runs.items():
            measure = self.measures_of(seed, run).get((key, category))
            if measure is None:
                continue
            estimate = measure.before if base else measure.after
            if estimate is not None:
                found[seed] = estimate.value
        return found

    def measures_of(self, seed: int, run: Contents) -> dict[tuple[str, str | None], Measure]:
        """The measures of one run, read once: tables ask for each of them many times."""
        if seed not in self._read:
            found = measures(run.metrics or {})
            self._read[seed] = {(one.key, one.category): one for one in found}
        return self._read[seed]

    def number(self, key: str) -> dict[int, float]:
        """A number of `metrics.json` by seed, under its own key."""
        metrics = {seed: run.metrics or {} for seed, run in self.runs.items()}
        return {seed: found[key] for seed, found in metrics.items() if key in found}


def grouped(runs: Sequence[Contents]) -> list[Group]:
    """The groups of the runs that have metrics, by start, then terms, then what differs."""
    found: dict[str, Group] = {}
    for run in runs:
        if run.metrics is None:
            continue
        settings = _settings(run)
        key = json.dumps(settings, sort_keys=True, default=str)
        group = found.setdefault(key, Group(settings))
        seed = int(run.setting("seed", 0))
        if seed in group.runs:
            group.repeated.append(run.run_dir)
        else:
            group.runs[seed] = run
    groups = list(found.values())
    _label(groups)
    return sorted(groups, key=_order)


def by_start(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups that start from one model and are measured on the same data stand together."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(_start(group), []).append(group)
    return list(found.values())


def start_settings(group: Group) -> dict[str, Any]:
    """The settings of what it starts from and is measured on."""
    return {
        key: value
        for key, value in group.settings.items()
        if key.startswith(STARTS) and not key.startswith(SAME_START)
    }


def _start(group: Group) -> str:
    return json.dumps(start_settings(group), sort_keys=True, default=str)


def _order(group: Group) -> tuple[str, str, list[tuple[str, float, str]]]:
    """By start, then terms, then the settings of the label, numbers as numbers."""
    parts = []
    for part in group.label.split(" ")[1:]:
        key, _, value = part.partition("=")
        try:
            parts.append((key, float(value), ""))
        except ValueError:
            parts.append((key, float("inf"), value))
    names = [str(group.settings.get(key)) for key in NAMES]
    return json.dumps([*names, _start(group)]), group.loss, parts


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """The group without the added terms and otherwise as this one; None where there is none.

    Added are auxiliary terms, and any whose weight is set by its share of another one's gradient.
    """
    terms = group.loss.split("+")
    vanilla = "+".join(
        term
        for term in terms
        if term in TERMS
        and not TERMS[term].auxiliary
        and group.settings.get(f"loss.{term}.gradient_share") is None
    )
    if vanilla in ("", group.loss):
        return None
    for other in groups:
        if other.loss == vanilla and outside_loss(other) == outside_loss(group):
            kept = {k: v for k, v in other.settings.items() if k.startswith("loss.")}
            if all(group.settings.get(key) == value for key, value in kept.items()):
                return other
    return None


def all_measures(groups: Sequence[Group]) -> list[Measure]:
    """One of each measure that any run took, in the order that reports use."""
    found: dict[tuple[str, str | None], Measure] = {}
    for group in groups:
        for seed, run in group.runs.items():
            for key, measure in group.measures_of(seed, run).items():
                found.setdefault(key, measure)
    return list(found.values())


def _settings(run: Contents) -> dict[str, Any]:
    leaves: Mapping[str, Any] = flat(completed(run.config or {}))
    terms = list((run.config or {}).get("loss") or {})
    kept = {
        key: value
        for key, value in leaves.items()
        if not any(key == name or key.startswith(f"{name}.") for name in INCIDENTAL)
    }
    if run.setting("task") == "evaluate":
        # A model that was only measured has no loss, whatever the defaults were.
        kept = {key: value for key, value in kept.items() if not key.startswith("loss.")}
        return {"loss": f"{run.setting('model.name')}, only measured", **kept}
    return {"loss": "+".join(terms), **kept}


def outside_loss(group: Group) -> dict[str, Any]:
    """Its settings but those of the terms."""
    return {k: v for k, v in group.settings.items() if k != "loss" and not k.startswith("loss.")}


def _label(groups: Sequence[Group]) -> None:
    """Names each group by its loss and by what groups of the same terms do not agree on.

    The value of a setting that most of them have goes without saying, see `unsaid`.
    """
    usual = unsaid(groups)
    for group in groups:
        keys = [key for key in group.settings if key in usual[group.loss]]
        parts = [
            f"{short(key)}={group.settings[key]}"
            for key in keys
            if str(group.settings[key]) != usual[group.loss][key]
        ]
        group.label = " ".join([group.loss, *parts])


def unsaid(groups: Sequence[Group]) -> dict[str, dict[str, str | None]]:
    """By loss: each setting that tells its groups apart, with the one commonest value, if any.

    That value stands in no label. A single value of each kind is none: `alpha=1` is said beside
    `alpha=10`.
    """
    found: dict[str, dict[str, str | None]] = {}
    for loss in dict.fromkeys(group.loss for group in groups):
        alike = [group for group in groups if group.loss == loss]
        keys = dict.fromkeys(key for group in alike for key in group.settings if key != "loss")
        found[loss] = {}
        for key in keys:
            compared = groups if _shared(key) else alike
            if implied(key, groups):
                continue
            counts = Counter(str(group.settings.get(key)) for group in compared).most_common(2)
            if len(counts) > 1:
                (value, most), (_, next_most) = counts
                found[loss][key] = value if most > next_most else None
    return found


def implied(key: str, groups: Sequence[Group]) -> str | None:
    """The name, of a dataset or a model, that says what this setting of its section is."""
    for name in NAMES:
        if key == name or key.partition(".")[0] != name.partition(".")[0]:
            continue
        values: dict[str, set[str]] = {}
        for group in groups:
            value = str(group.settings.get(key))
            values.setdefault(str(group.settings.get(name)), set()).add(value)
        if len(values) > 1 and all(len(found) == 1 for found in values.values()):
            return name
    return None


def _shared(key: str) -> bool:
    """Settings that every group has, and that therefore tell groups of any loss apart."""
    return not key.startswith("loss.")


def short(key: str) -> str:
    """The last part of a dotted key, with the term before it where it is a loss's."""
    parts = key.split(".")
    if key in NAMES:
        return parts[0]
    return parts[-1] if parts[0] != "loss" else ".".join(parts[-2:])
