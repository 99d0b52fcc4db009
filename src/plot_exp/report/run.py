"""`report.md`: what a person looks at first after a run."""

from __future__ import annotations

from pathlib import Path

from plot_exp.files import write_text
from plot_exp.report import (
    attacks,
    curves,
    outcome,
    sections,
    subpreference_figure,
    subpreferences,
    tokens,
)
from plot_exp.report import contents as run_contents
from plot_exp.report.contents import Contents
from plot_exp.report.markdown import escape
from plot_exp.report.style import Picture


def write(run_dir: Path) -> None:
    """Writes `report.md` and `plots/` from the other files of `run_dir`, and from nothing else.

    A part whose file is missing or damaged is left out, saying why.

    Raises:
        UserError: `run_dir` is no run directory.
        RunError: the disk cannot be written.
    """
    contents = run_contents.read(run_dir)
    plots = run_dir / "plots"
    curve_pictures = curves.draw(contents.history, plots) if contents.history else []
    token_pictures = tokens.draw(contents.distribution, plots) if contents.distribution else []
    attack_pictures = attacks.draw(contents, plots)
    columns = subpreferences.columns_of_run(contents)
    seven = list(subpreference_figure.draw(columns, plots))
    pictures = curve_pictures, token_pictures, attack_pictures, seven
    write_text(run_dir / "report.md", _compose(contents, *pictures))


def _compose(
    contents: Contents,
    curve_pictures: list[Picture],
    token_pictures: list[Picture],
    attack_pictures: list[Picture],
    seven: list[Picture],
) -> str:
    attacked = attacks.section(contents)
    name = escape(str(contents.setting("name") or contents.run_dir.name))
    parts = [
        f"# {name}",
        sections.headline(contents),
        "## What changed",
        outcome.what_changed(contents),
        subpreferences.section(contents),
        _gallery(seven),
        "## By sub-preference",
        outcome.by_category(contents),
        "## Attack success" if attacked else "",
        attacked,
        _gallery(attack_pictures),
        "## Samples side by side",
        outcome.samples(contents),
        "## Training",
        _gallery(curve_pictures) or contents.left_out("metrics.csv"),
        "## Preference distribution",
        outcome.distribution(contents),
        _gallery(token_pictures),
        "## Data",
        sections.data(contents),
        "## Speed and memory",
        sections.cost(contents),
        "## What is a reconstruction",
        sections.reconstruction(contents),
        "## Run it again",
        sections.again(contents),
        "## Environment",
        sections.environment(contents),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _gallery(pictures: list[Picture]) -> str:
    return "\n\n".join(
        f"![{picture.caption}](plots/{picture.file})\n\n*{picture.caption}.*"
        for picture in pictures
    )
