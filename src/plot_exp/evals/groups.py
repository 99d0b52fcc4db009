"""How metrics are split: by category, and by dataset where there are several."""

from __future__ import annotations

from collections.abc import Sequence

from plot_exp.data.examples import PreferenceExample


def group_names(examples: Sequence[PreferenceExample]) -> list[tuple[str, ...]]:
    """For each example the names of the groups that it counts in, beside the total.

    One dataset: its categories. Several: each dataset, and `dataset/category`.
    """
    several = len({example.dataset for example in examples}) > 1
    names: list[tuple[str, ...]] = []
    for example in examples:
        if not several:
            names.append((example.category,))
        elif example.category == example.dataset:
            names.append((example.dataset,))
        else:
            names.append((example.dataset, f"{example.dataset}/{example.category}"))
    return names
