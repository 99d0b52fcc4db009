"""Coding: the one-liner that does what is asked, against one that does something else."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class Snippet(NamedTuple):
    """What a Python expression should do, one that does it, and one that does not."""

    purpose: str
    expression: str
    other_expression: str


# Two purposes with their expressions; each one's expression is the other one's wrong answer.
PAIRED_EXPRESSIONS: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("get the largest item of x", "max(x)"), ("get the smallest item of x", "min(x)")),
    (("add up the items of x", "sum(x)"), ("count the items of x", "len(x)")),
    (("put x in upper case", "x.upper()"), ("put x in lower case", "x.lower()")),
    (("get the first item of x", "x[0]"), ("get the last item of x", "x[-1]")),
    (("drop the first item of x", "x[1:]"), ("drop the last item of x", "x[:-1]")),
    (("turn x into text", "str(x)"), ("turn x into a whole number", "int(x)")),
    (("see if x is even", "x % 2 == 0"), ("see if x is odd", "x % 2 == 1")),
    (("see if any item of x is true", "any(x)"), ("see if every item of x is true", "all(x)")),
    (("list the keys of x", "list(x.keys())"), ("list the values of x", "list(x.values())")),
    (("double x", "x * 2"), ("halve x", "x / 2")),
    (("square x", "x ** 2"), ("negate x", "-x")),
    (("sort x", "sorted(x)"), ("reverse x", "x[::-1]")),
    (("see if x starts with a", 'x.startswith("a")'), ("see if x ends with a", 'x.endswith("a")')),
    (("split x into words", "x.split()"), ("trim the spaces around x", "x.strip()")),
    (("remove duplicates from x", "set(x)"), ("number the items of x", "enumerate(x)")),
    (("make x positive", "abs(x)"), ("make x a decimal number", "float(x)")),
)

SNIPPETS = tuple(
    Snippet(purpose, expression, other)
    for first, second in PAIRED_EXPRESSIONS
    for (purpose, expression), other in ((first, second[1]), (second, first[1]))
)

PROMPTS = Phrases(
    train=(
        "How do I {purpose} in Python?",
        "Write Python to {purpose}.",
        "Give me a line of Python to {purpose}.",
        "Which Python expression do I use to {purpose}?",
        "In Python, how can I {purpose}?",
        "I need code to {purpose}.",
        "My script has to {purpose}. What do I write?",
        "Show me how to {purpose} in code.",
        "What is the shortest way to {purpose} in Python?",
        "Write a function body to {purpose}.",
        "Help me {purpose} with Python.",
        "I am new to Python and want to {purpose}.",
    ),
    validation=(
        "Write one line of code to {purpose}.",
        "In my Python script I want to {purpose}. How?",
        "Show me the Python expression to {purpose}.",
        "I need to {purpose} in Python. What do I use?",
        "How can my code {purpose}?",
    ),
)

ANSWERS = Phrases(
    train=(
        "{expression}",
        "Use {expression}",
        "return {expression}",
        "Write this: {expression}",
        "y = {expression}",
        "You can use {expression}",
        "print({expression})",
        "f = lambda x: {expression}",
        "def f(x): return {expression}",
        "In Python this is {expression}",
    ),
    validation=(
        "You can write {expression}",
        "Use this: y = {expression}",
        "lambda x: {expression}",
        "def g(x): return {expression}",
    ),
)


def _answer(expression: str, part: Part, rng: Random) -> str:
    # Code keeps its case, so templates are filled without a capital.
    return rng.choice(ANSWERS.of(part)).format(expression=expression)


def write(snippet: Snippet, part: Part, rng: Random) -> Draft:
    """Both answers are valid Python; only the chosen one does what is asked."""
    return Draft(
        PROMPTS.fill(part, rng, purpose=snippet.purpose),
        _answer(snippet.expression, part, rng),
        _answer(snippet.other_expression, part, rng),
    )


CODING = SubPreference(
    "coding",
    SNIPPETS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
