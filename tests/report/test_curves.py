"""The curves show what their titles say."""

from __future__ import annotations

from plot_exp.report.curves import category_columns


def test_parts_by_length_are_no_sub_preferences() -> None:
    series = ([1, 2], [0.5, 0.6])
    columns = ["coding", "coding/count", "chosen_longer", "same_length/coding", "gsm8k/mathematics"]
    history = {f"val/reward_accuracy/{name}": series for name in columns}

    assert category_columns({**history, "val/reward_margin/stem": series}) == [
        "val/reward_accuracy/coding",
        "val/reward_accuracy/gsm8k/mathematics",
    ]
