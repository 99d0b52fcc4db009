"""Text in a report reads as it was written, judged by a Markdown parser that is not ours."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from plot_exp.report.markdown import code_block, escape, folded, table

PARSER = MarkdownIt("gfm-like", {"linkify": False}).enable("table")


def cells(markdown: str) -> list[str]:
    """The cells of the page's one table as a browser shows them."""
    page = PARSER.render(markdown)
    assert page.count("<table>") == 1
    found = re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", page, flags=re.DOTALL)
    return [html.unescape(re.sub(r"<br ?/?>", "\n", cell)) for cell in found]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1))
def test_a_cell_shows_the_text_itself(text: str) -> None:
    shown = cells(table(["x" + escape(text) + "x", "b"], [["y", "x" + escape(text) + "x"]]))
    for cell in (shown[0], shown[3]):
        assert cell.replace("\xa0", " ") == "x" + text.replace("\xa0", " ") + "x"


@pytest.mark.parametrize(
    "text",
    [
        "a | b\n| c |",
        "`code` ``",
        "**bold** __x__ ~~gone~~",
        "<script>alert(1)</script> </details>",
        "![i](http://a.b/c.png) [l](x)",
        "&amp; &#124;",
        "# no heading",
        "    indented\n  code",
        "$x^2$ and \\$ \\\\ \\|",
        "1. one\n2. two",
        "```\nfence\n```",
        "---",
    ],
)
def test_markup_is_shown_and_not_obeyed(text: str) -> None:
    (_, _, _, cell) = cells(table(["a", "b"], [["y", "x" + escape(text)]]))
    assert cell.replace("\xa0", " ") == "x" + text


def test_no_link_is_made_of_an_address() -> None:
    assert "http://" not in escape("see http://evil.example/x")
    assert "www." not in escape("www.evil.example")
    assert html.unescape(escape("http://www.a")) == "http://www.a"


def test_control_characters_are_made_visible() -> None:
    assert escape("a\x07b\x1b[31mc\u2028d\r\ne") == "a\ufffdb\ufffd\\[31mc\ufffdd<br>e"


def test_long_text_is_folded_and_whole() -> None:
    words = " ".join(f"w{i}|" for i in range(400))
    (_, cell) = cells(table(["a"], [[folded(words)]]))
    shown, _, hidden = cell.partition("<details><summary>")
    _, _, hidden = hidden.partition("</summary>")
    assert len(shown) < 400
    assert (shown.rstrip() + hidden.replace("</details>", "")).replace("\xa0", " ") == words


def test_a_fence_outlasts_the_fences_within() -> None:
    page = PARSER.render(code_block("a\n```\n````\nb", "yaml"))
    assert page.count("<pre>") == 1
    assert "````\nb" in page
