"""A table once, written as Markdown, CSV and LaTeX, or shown on a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from plot_exp.report import markdown

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\dots{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ω": r"$\omega$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table; `numbers` go to the CSV, under the column's name."""

    text: str
    bold: bool = False
    numbers: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyTable:
    """One table of a study.

    Attributes:
        name: of its files.
        note: what its intervals are, and what was left out.
        header: the columns; the first names the rows.
    """

    name: str
    title: str
    note: str
    header: list[str]
    rows: list[list[Cell]]

    def only(self, columns: Sequence[str]) -> StudyTable:
        """The same table with the first column and those of the others that are named."""
        places = [0, *(i for i, name in enumerate(self.header) if i and name in columns)]
        rows = [[row[place] for place in places] for row in self.rows]
        return replace(self, header=[self.header[place] for place in places], rows=rows)

    def markdown(self) -> str:
        """Title, table and note."""
        rows = [[_bold(markdown.escape(c.text), c.bold) for c in row] for row in self.rows]
        header = [markdown.escape(name) for name in self.header]
        body = markdown.table(header, rows, len(header) - 1)
        return f"## {self.title}\n\n{body}\n\n{markdown.escape(self.note)}"

    def csv(self) -> str:
        """Every number in full, one column a number."""
        columns: list[str] = []
        for row in self.rows:
            for name, cell in zip(self.header[1:], row[1:], strict=True):
                wanted = [f"{name}/{key}" for key in cell.numbers] or [name]
                columns += [column for column in wanted if column not in columns]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([self.header[0], *columns])
        for row in self.rows:
            found: dict[str, object] = {}
            for name, cell in zip(self.header[1:], row[1:], strict=True):
                if cell.numbers:
                    found |= {f"{name}/{key}": value for key, value in cell.numbers.items()}
                else:
                    found[name] = cell.text
            values = [found.get(column) for column in columns]
            writer.writerow([row[0].text, *("" if value is None else value for value in values)])
        return out.getvalue()

    def latex(self) -> str:
        """A tabular with booktabs' rules."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            r"\toprule",
            " & ".join(_latex(name) for name in self.header) + r" \\",
            r"\midrule",
        ]
        for row in self.rows:
            cells = [rf"\textbf{{{_latex(c.text)}}}" if c.bold else _latex(c.text) for c in row]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def text_cells(texts: Sequence[str]) -> list[Cell]:
    """Cells that are text alone."""
    return [Cell(text) for text in texts]


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
