"""Plain arithmetic in solutions: GSM8K's calculator notes `<<48/2=24>>`, and LaTeX."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

_NOTE = re.compile(r"<<[^<>\n]*>>")

_MAX_LENGTH = 200
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_PLAIN_FORMS = (
    (re.compile(r"\\(?:left|right|[,!;])|[$&\\]\\?|(?<=[0-9]),(?=[0-9]{3})"), ""),
    (re.compile("[–−]"), "-"),
    (re.compile("÷"), "/"),
    (re.compile("[×x]"), "*"),
    (re.compile(r"([0-9.)])\s*%"), r"\1*(1/100)"),
    (re.compile(r"(?<=[0-9)])\s*\((?!1/100)"), "*("),
    (re.compile(r"\)\s*(?=[0-9])"), ")*"),
    (re.compile(r"(?<![0-9.])0+(?=[0-9])"), ""),
)


def without_notes(text: str) -> str:
    """The text as a person reads it, without calculator notes."""
    return _NOTE.sub("", text)


def evaluate(expression: str) -> Fraction | None:
    r"""The exact value of `+ - * / ( )` on numbers, `%` for hundredths, `\frac`, `\times`, `\cdot`.

    Returns:
        None for anything else, and for a division by zero.
    """
    if len(expression) > _MAX_LENGTH:
        return None
    text = expression
    while (simpler := _FRACTION.sub(_as_quotient, text)) != text:
        text = simpler
    text = re.sub(r"\\(?:times|cdot)(?![a-z])", "*", re.sub(r"\\div(?![a-z])", "/", text))
    text = text.replace("{", "(").replace("}", ")")
    for pattern, plain in _PLAIN_FORMS:
        text = pattern.sub(plain, text)
    text = " ".join(text.split())
    try:
        return _value(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _as_quotient(match: re.Match[str]) -> str:
    return f"(({match[1] or match[2]})/({match[3] or match[4]}))"


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        # Taken from the text: 0.1 means a tenth, not the nearest binary fraction.
        return Fraction(ast.get_source_segment(text, node) or "")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _value(node.operand, text)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, text), _value(node.right, text))
    raise ValueError(f"not plain arithmetic: {text}")
