"""GSM8K's calculator notes: `<<48/2=24>>` behind an expression, before its result is repeated."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

NOTE = re.compile(r"<<([^<>\n]*)>>")

_MAX_LENGTH = 200
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def without_notes(text: str) -> str:
    """The text as a person reads it."""
    return NOTE.sub("", text)


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, `+ - * / ( )` and `%` for hundredths.

    Returns:
        None for anything else, and for a division by zero.
    """
    if len(expression) > _MAX_LENGTH:
        return None
    text = re.sub(r"([0-9.)])\s*%", r"\1*(1/100)", expression)
    text = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text).strip()
    try:
        return _value(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


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
