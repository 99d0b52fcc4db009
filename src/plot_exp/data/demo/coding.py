"""Coding: the one-liner that does what is asked, against one that does something else."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle


class Snippet(NamedTuple):
    """What a Python expression should do, one that does it, and one that does not."""

    purpose: str
    expression: str
    other_expression: str


# In each circle the expressions are near enough to be confused; each serves several purposes.
CIRCLES: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "max(x)": ("get the largest item of x", "find the top value in x"),
        "min(x)": ("get the smallest item of x", "find the lowest value in x"),
        "sum(x)": ("add up the items of x", "get the total of x"),
        "len(x)": ("count the items of x", "find how long x is"),
    },
    {
        "x.upper()": ("put x in upper case", "make x all capitals"),
        "x.lower()": ("put x in lower case", "make x all small letters"),
        "x.split()": ("split x into words", "turn the text x into a list"),
        "x.strip()": ("trim the spaces around x", "cut blanks from both ends of x"),
    },
    {
        "abs(x)": ("make x positive", "drop the sign of x"),
        "round(x)": ("take x to the nearest whole number", "round x"),
        "str(x)": ("turn x into text", "make a string of x"),
    },
    {
        "sorted(x)": ("sort x", "put x in order"),
        "set(x)": ("remove duplicates from x", "keep each item of x once"),
        "reversed(x)": ("walk through x backwards", "go over x from end to start"),
        "tuple(x)": ("turn x into a tuple", "freeze the list x"),
    },
)

SNIPPETS = tuple(
    Snippet(purpose, expression, other_expression)
    for circle in CIRCLES
    for expression, other_expression in in_a_circle(tuple(circle))
    for purpose in circle[expression]
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


def write(snippet: Snippet, part: Part, rng: Random) -> Draft:
    """Both answers are valid Python; only the chosen one does what is asked."""
    template = rng.choice(ANSWERS.of(part))  # filled without a capital, since code keeps its case
    return Draft(
        PROMPTS.fill(part, rng, purpose=snippet.purpose),
        template.format(expression=snippet.expression),
        template.format(expression=snippet.other_expression),
    )


CODING = SubPreference(
    "coding",
    SNIPPETS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
