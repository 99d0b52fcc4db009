"""What a run's measurements before and after training leave in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from plot_exp.evals.faithfulness import faithfulness
from plot_exp.evals.quick import sample_rows
from plot_exp.evals.transport import distance, favoured_tokens, moved_tokens
from plot_exp.files import write_json, write_text
from plot_exp.workflows.context import signed_difference
from plot_exp.workflows.measure import Measurement, Measurer


def write_measured(
    run_dir: Path | None, measurer: Measurer, before: Measurement, after: Measurement
) -> dict[str, float]:
    """Writes the answers side by side and the preference distribution.

    Args:
        run_dir: None writes nothing: every process of a run has to ask, for what it takes of
            models in parts.

    Returns:
        The numbers for metrics.json, those from before training under `base/`.
    """
    distribution = preference_distribution(measurer, before, after)
    if after.answers.sources and run_dir is not None:
        rows = sample_rows(before.answers, after.answers)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_text(run_dir / "samples.jsonl", "\n".join(lines) + "\n")
    if distribution and run_dir is not None:
        write_json(run_dir / "preference_distribution.json", distribution)
    return after.metrics | {f"base/{key}": value for key, value in before.metrics.items()}


def preference_distribution(
    measurer: Measurer, before: Measurement, after: Measurement
) -> dict[str, Any]:
    """What preference_distribution.json holds; empty without pairs or held-out examples."""
    if measurer.plot is None or before.distribution is None or after.distribution is None:
        return {}
    tokenizer = measurer.prepared.start.tokeniser.tokenizer
    names = [tokenizer.decode([token]) for token in range(measurer.context.vocab_size)]
    counts = measurer.context.token_counts()
    share_before, share_after = (
        measurer.plot.restrict(found.to(measurer.plot.target.device, torch.float32)).cpu()
        for found in (before.distribution, after.distribution)
    )
    return {
        **favoured_tokens(
            signed_difference(measurer.context), counts.chosen, counts.rejected, names
        ),
        "distance_before": distance(measurer.plot, before.distribution),
        "distance_after": distance(measurer.plot, after.distribution),
        "moved": moved_tokens(measurer.plot.target.cpu(), share_before, share_after, names),
        "in_loss": "plot" in measurer.composite.terms,
        "flows": _flows(measurer, before, after, names),
    }


def _flows(
    measurer: Measurer, before: Measurement, after: Measurement, names: list[str]
) -> dict[str, Any]:
    """The large flows of transport before and after training."""
    if measurer.plot is None:
        return {}
    rows: dict[str, Any] = {"form": measurer.plot.config.transport}
    for when, measured in (("before", before), ("after", after)):
        if measured.distribution is None:
            continue
        found = faithfulness(measurer.plot, measurer.context, measured.distribution)
        if found is not None:
            rows[when] = found.rows(names)
    return rows
