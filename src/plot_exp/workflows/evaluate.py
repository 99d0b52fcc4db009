"""Measure a finished run's exported model again, or with other evaluation settings."""

from __future__ import annotations

import json
from pathlib import Path

from plot_exp.config.schema import Config, load
from plot_exp.errors import UserError
from plot_exp.files import write_json
from plot_exp.losses.composite import build
from plot_exp.progress import choose
from plot_exp.report import run as report
from plot_exp.report.terminal import closing_table
from plot_exp.workflows.context import build_context
from plot_exp.workflows.measure import Measurer, write_measured
from plot_exp.workflows.models import open_saved
from plot_exp.workflows.prepare import prepare
from plot_exp.workflows.reference import open_reference


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """`task=evaluate run=RUN_DIR`: data, reference and loss are the run's, `eval` is this call's.

    The policy's start is measured beside the trained one, so that both answer the same prompts.
    The numbers are written into the run's metrics.json, and its report is made again.

    Raises:
        UserError: the run has not been exported.
    """
    assert config.run is not None
    source = Path(config.run)
    if not (source / "model" / "config.json").is_file():
        raise UserError(
            f"run={source}: it has no model/ folder; finish it with resume={source}, or write the "
            f"model of its last checkpoint with task=export run={source}"
        )
    earlier = _earlier(source / "metrics.json")
    trained = load(source / "config.yaml").model_copy(update={"eval": config.eval})
    bar = choose(config.trainer.progress)
    prepared = prepare(trained, bar)
    reference = open_reference(trained, prepared.start)
    context = build_context(trained, reference, prepared.start.tokeniser, prepared.train)
    composite = build(trained.loss, context)
    measurer = Measurer(trained, prepared, reference, composite, context, bar)
    before = measurer.measure(prepared.start.policy)
    after = measurer.measure(open_saved(trained, source / "model").policy)
    found = write_measured(source, measurer, before, after)
    metrics = earlier | found
    write_json(source / "metrics.json", metrics)
    report.write(source)
    closing_table(source)
    return found


def _earlier(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    try:
        metrics: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it, and it is written anew"
        ) from error
    return metrics
