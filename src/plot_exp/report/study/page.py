"""One HTML page of a study that opens without a network: no script, no font, no link it needs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from plot_exp.report.study.tables import Cell, StudyTable
from plot_exp.report.style import Picture

LONGEST_LINE = 40
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #111; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; border-bottom: 2px solid #111; }
th:first-child, td:first-child { text-align: left; }
td.words { white-space: normal; text-align: left; min-width: 14rem; }
img { max-width: 100%; height: auto; }
.note { color: #444; font-size: 13px; max-width: 50rem; }
@media print { body { margin: 0; max-width: none; } .scroll { overflow: visible; } }
"""


def compose(
    title: str,
    lead: Sequence[str],
    tables: Sequence[StudyTable],
    pictures: Sequence[Picture],
    folder: Path,
) -> str:
    """The page, its pictures embedded.

    Args:
        lead: paragraphs of plain text before the tables.
        folder: where the pictures lie.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(text)}</p>" for text in lead)]
    parts += [_picture(picture, folder) for picture in pictures]
    parts += [_table(table) for table in tables]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _picture(picture: Picture, folder: Path) -> str:
    data = base64.b64encode((folder / picture.file).read_bytes()).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f'<figcaption class="note">{caption}.</figcaption></figure>'
    )


def _table(table: StudyTable) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = []
    for row in table.rows:
        rows.append(f"<tr>{''.join(map(_cell, row))}</tr>")
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
        f'<p class="note">{escape(table.note)}</p>'
    )


def _cell(cell: Cell) -> str:
    """Numbers stay on one line, sentences do not."""
    start = '<td class="words">' if len(cell.text) > LONGEST_LINE and not cell.numbers else "<td>"
    text = escape(cell.text)
    return f"{start}<b>{text}</b></td>" if cell.bold else f"{start}{text}</td>"
