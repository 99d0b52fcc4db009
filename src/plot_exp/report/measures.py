"""The final numbers of a run, paired: before training and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Key: what a person reads, and which way is better where there is one.
KNOWN: dict[str, tuple[str, str]] = {
    "val/reward_accuracy": ("Reward accuracy", "higher"),
    "val/logp_accuracy/sum": ("Log-probability accuracy (sum)", "higher"),
    "val/logp_accuracy/mean": ("Log-probability accuracy (mean)", "higher"),
    "val/reward_accuracy/chosen_longer": ("Reward accuracy, chosen longer", "higher"),
    "val/reward_accuracy/rejected_longer": ("Reward accuracy, rejected longer", "higher"),
    "val/reward_margin": ("Reward margin", "higher"),
    "val/reward_margin/chosen_longer": ("Reward margin, chosen longer", "higher"),
    "val/reward_margin/rejected_longer": (
        "Reward margin, rejected longer",
        "higher",
    ),
    "eval/demo/harmful_answer_rate": ("Harmful demo requests answered", "lower"),
    "eval/demo/benign_refusal_rate": ("Benign demo requests refused", "lower"),
    **{
        f"eval/asr/{attack}": (f"Attack success by the chosen judge, {name}", "lower")
        for attack, name in (
            ("zero_shot", "Zero-Shot"),
            ("sfs", "SFS"),
            ("pez", "PEZ"),
            ("gbda", "GBDA"),
            ("uat", "UAT"),
            ("gcg", "GCG"),
        )
    },
    "eval/reward/score": ("Reward on HH-RLHF", "higher"),
    "eval/reward/sigmoid": ("Reward on HH-RLHF, 100 × mean sigmoid", "higher"),
    "eval/reward/win_rate": ("Reward: wins against the reference, %", "higher"),
    "eval/mt_bench/score": ("MT-Bench, 1 to 10", "higher"),
    "eval/alpaca_eval/win_rate": ("AlpacaEval win rate, %", "higher"),
    "eval/alpaca_eval/lc_win_rate": ("AlpacaEval length-controlled win rate, %", "higher"),
    "eval/gsm8k/strict": ("GSM8K, strict", "higher"),
    "eval/gsm8k/flexible": ("GSM8K, flexible", "higher"),
    "eval/math/accuracy": ("MATH", "higher"),
    "eval/exact_match": ("Exact match of final answers", "higher"),
    "val/transport_distance": ("Transport distance to the preference distribution", ""),
    "eval/perplexity_under_reference": ("Perplexity under the reference", ""),
    "eval/distinct_1": ("Distinct unigrams", ""),
    "eval/distinct_2": ("Distinct bigrams", ""),
    "eval/response_length": ("Response length, tokens", ""),
    "eval/finished": ("Answers that came to their own end", ""),
}
_ATTRIBUTES = ("count", "low", "high")
PARTS = (
    "sum",
    "mean",
    "chosen_longer",
    "rejected_longer",
    "own_longer",
    "other_longer",
    "same_length",
    "turn_1",
    "turn_2",
)


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval and how many cases it rests on, where these are known."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None

    def __str__(self) -> str:
        text = number(self.value)
        if self.low is not None and self.high is not None:
            text += f" [{number(self.low)}, {number(self.high)}]"
        return text


@dataclass(frozen=True)
class Measure:
    """One quantity, over all cases or over one category."""

    key: str
    category: str | None
    before: Estimate | None
    after: Estimate | None

    @property
    def label(self) -> str:
        """What a person reads; an unknown key stands for itself."""
        if self.key.endswith("/overlap"):
            return f"Prompts of {self.key.split('/')[1]} in the training data"
        return KNOWN.get(self.key, (self.key, ""))[0]

    @property
    def in_summary(self) -> bool:
        """Over all cases, or a measure that only some sub-preferences have."""
        return self.category is None or self.key == "eval/exact_match"

    @property
    def better(self) -> str:
        """`higher`, `lower`, or empty where neither is."""
        return KNOWN.get(self.key, (self.key, ""))[1]

    @property
    def change(self) -> float | None:
        """After less before, where both were measured."""
        if self.before is None or self.after is None:
            return None
        return self.after.value - self.before.value

    @property
    def count(self) -> str:
        """The cases, once where both sides rest on as many."""
        counts = [side.count for side in (self.before, self.after) if side]
        known = [str(count) for count in counts if count is not None]
        return " / ".join(dict.fromkeys(known))


def measures(metrics: Mapping[str, float]) -> list[Measure]:
    """Every `val/` and `eval/` number with its `base/` counterpart, known ones first.

    `<key>/count`, `<key>/low` and `<key>/high` belong to `<key>`; `val/count` is the count of every
    `val/` number without one of its own.
    """
    before = {key[5:]: value for key, value in metrics.items() if key.startswith("base/")}
    after = {key: value for key, value in metrics.items() if key.startswith(("val/", "eval/"))}
    keys = [key for key in dict.fromkeys([*after, *before]) if _is_measure(key, after, before)]
    found = []
    for key in keys:
        general, category = _split_category(key, {*after, *before})
        sides = (_estimate(side, key, category) for side in (before, after))
        found.append(Measure(general, category, *sides))
    order = {key: rank for rank, key in enumerate(KNOWN)}
    return sorted(found, key=lambda measure: order.get(measure.key, len(order)))


# Differences of equal numbers, from sums in another order.
ROUNDING = 1e-12


def number(value: float, beside: float = 0.0) -> str:
    """Three decimals below ten, fewer above; the files hold all digits.

    Args:
        beside: the largest number in the same cell; one that is small beside it has its decimals.
    """
    if value == int(value) and abs(value) >= 10:
        return f"{int(value)}"
    if ROUNDING < abs(value) < 0.001 and abs(beside) < 0.001:
        return f"{value:.1e}"
    if abs(value) < 0.0005:
        return "0.000"
    decimals = 3 - sum(abs(value) >= bound for bound in (10, 100, 1000))
    return f"{value:.{decimals}f}"


def _is_measure(key: str, *sides: Mapping[str, float]) -> bool:
    if key == "val/count" or key.startswith("val/count/"):
        return False
    parent, _, last = key.rpartition("/")
    return not (last in _ATTRIBUTES and any(parent in side for side in sides))


def _split_category(key: str, keys: set[str]) -> tuple[str, str | None]:
    """The measure that `key` belongs to, and the category, which may hold slashes of its own."""
    if key in KNOWN:
        return key, None
    names = key.split("/")
    for length in range(2, len(names)):
        general = "/".join(names[:length])
        if (general in keys or general in KNOWN) and names[length] not in PARTS:
            return general, "/".join(names[length:])
    return key, None


def _estimate(side: Mapping[str, float], key: str, category: str | None) -> Estimate | None:
    if key not in side:
        return None
    count = side.get(f"{key}/count")
    # A margin by longer side rests on some of the pairs only, so the count of all is not its own.
    if count is None and key.startswith("val/") and not key.endswith("_longer"):
        count = side.get(f"val/count/{category}" if category else "val/count")
    return Estimate(
        side[key],
        side.get(f"{key}/low"),
        side.get(f"{key}/high"),
        None if count is None else int(count),
    )
