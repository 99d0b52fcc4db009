"""Markdown in which no model, token or file name can break the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SPECIAL = re.compile(r"[\\`*_\[\]~$#&<>|@]|://|(?<=www)\.")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# A pipe would end its cell; an address or an @name would become a link without any markup.
_ENTITIES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "@": "&#64;",
    "://": "&#58;//",
    ".": "&#46;",
}

SHOWN_CHARACTERS = 320


def escape(text: str) -> str:
    """`text` as itself inside a paragraph or a table cell: no markup, no HTML, one line.

    Line ends become `<br>`, runs of blanks are kept, control characters become `\ufffd`.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)
    text = _CONTROL.sub("\ufffd", text)
    text = _SPECIAL.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), text)
    text = re.sub(r"(?m)^ +| {2,}", lambda blanks: "&nbsp;" * len(blanks[0]), text.strip("\n"))
    return text.replace("\n", "<br>")


def folded(text: str, shown: int = SHOWN_CHARACTERS) -> str:
    """`text` escaped, with all but its beginning behind a fold where it is long."""
    if len(text) <= shown + 80:
        return escape(text)
    cut = text.rfind(" ", shown // 2, shown)
    cut = cut if cut > 0 else shown
    rest = f"{len(text) - cut} more characters"
    return f"{escape(text[:cut])} <details><summary>{rest}</summary>{escape(text[cut:])}</details>"


def settings(values: Mapping[str, object]) -> str:
    """`key=value` of each, escaped, with the values as they are typed."""
    return escape(", ".join(f"{key}={_typed(value)}" for key, value in values.items()))


def _typed(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    return str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A table of cells that are escaped already; the last `numbers` columns are right-aligned."""
    align = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


def code_block(text: str, language: str = "") -> str:
    """A fenced block whose fence is longer than any in `text`."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def details(summary: str, body: str) -> str:
    """A block behind a fold."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
