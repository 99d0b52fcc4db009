"""Mathematics: the right number, and a wrong one that is right for another question."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class Sum(NamedTuple):
    """An addition, its result, and the wrong result that stands against it."""

    left: int
    right: int
    total: int
    wrong: int


# Two additions with different results: each one's result is the other one's wrong answer.
PAIRED_ADDENDS: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    ((2, 3), (4, 2)),
    ((3, 3), (5, 2)),
    ((4, 3), (6, 2)),
    ((4, 4), (7, 2)),
    ((5, 4), (8, 2)),
    ((5, 5), (6, 3)),
    ((6, 4), (8, 3)),
    ((6, 5), (7, 3)),
    ((6, 6), (9, 2)),
    ((7, 5), (9, 4)),
    ((7, 6), (8, 4)),
    ((7, 7), (9, 6)),
    ((8, 6), (7, 8)),
    ((8, 8), (9, 5)),
)

SUMS = tuple(
    Sum(left, right, left + right, sum(other))
    for first, second in PAIRED_ADDENDS
    for (left, right), other in ((first, second), (second, first))
)

NAMES = ("Tom", "Anna", "Ben", "Mia", "Leo", "Ida")
THINGS = ("apples", "books", "coins", "stamps", "shells", "pens")

PROMPTS = Phrases(
    train=(
        "What is {left} + {right}?",
        "How much is {left} + {right}?",
        "Add {left} + {right}.",
        "Work out {left} plus {right}.",
        "{name} has {left} {things} and gets {right} more. How many {things} now?",
        "There are {left} {things} in a box and {right} in a bag. How many in all?",
        "{name} finds {left} {things}, then {right} more. How many is that?",
        "I had {left} {things} and bought {right}. How many do I have?",
        "{name} sold {left} {things} today and {right} yesterday. How many in all?",
        "What do {left} and {right} make?",
        "Tell me the sum of {left} and {right}.",
        "If you put {left} {things} and {right} {things} together, how many is that?",
    ),
    validation=(
        "Tell me what {left} + {right} is.",
        "{name} had {left} {things} and finds {right} more. How many in all?",
        "How much do {left} plus {right} make?",
        "{name} put {left} {things} in a bag, then {right} more. How many now?",
        "There are {left} {things} and {right} more. How many {things} is that?",
    ),
)

ANSWERS = Phrases(
    train=(
        "The answer is {number}.",
        "That makes {number}.",
        "{left} + {right} = {number}.",
        "It is {number}.",
        "{left} plus {right} is {number}.",
        "Together that is {number}.",
        "Add {right} to {left}, and you get {number}.",
        "I count {left} and {right} more, so the answer is {number}.",
    ),
    validation=(
        "{left} and {right} make {number}.",
        "Together it is {number}.",
        "You get {left} + {right} = {number}.",
        "So that is {number}.",
    ),
)


def write(fact: Sum, part: Part, rng: Random) -> Draft:
    """Both answers end with a number; only the chosen one is the sum."""
    left, right = str(fact.left), str(fact.right)
    slots = {"name": rng.choice(NAMES), "things": rng.choice(THINGS)}
    return Draft(
        PROMPTS.fill(part, rng, left=left, right=right, **slots),
        ANSWERS.fill(part, rng, left=left, right=right, number=str(fact.total)),
        ANSWERS.fill(part, rng, left=left, right=right, number=str(fact.wrong)),
        answer=str(fact.total),
    )


MATHEMATICS = SubPreference(
    "mathematics",
    SUMS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
