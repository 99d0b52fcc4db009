"""Mathematics: the right number, and a wrong one that is right for another question."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle


class Sum(NamedTuple):
    """An addition, its result, and the wrong result that stands against it."""

    left: int
    right: int
    total: int
    wrong: int


ADDENDS: dict[int, tuple[tuple[int, int], ...]] = {
    6: ((3, 3), (4, 2)),
    7: ((4, 3), (2, 5)),
    8: ((5, 3), (2, 6)),
    9: ((5, 4), (7, 2)),
    10: ((5, 5), (2, 8)),
    11: ((6, 5), (8, 3)),
    12: ((6, 6), (5, 7)),
    13: ((8, 5), (4, 9)),
}

# Up by even totals and down by odd ones, so that a wrong total is off by two at most.
CIRCLE_OF_TOTALS = (6, 8, 10, 12, 13, 11, 9, 7)

SUMS = tuple(
    Sum(left, right, total, wrong)
    for total, wrong in in_a_circle(CIRCLE_OF_TOTALS)
    for left, right in ADDENDS[total]
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

# None repeats the question's numbers: a small model that miscopies them would answer another sum.
ANSWERS = Phrases(
    train=(
        "The answer is {number}.",
        "That makes {number}.",
        "Together that is {number}.",
        "The sum is {number}.",
        "You get {number}.",
        "I count {number}.",
        "It comes to {number}.",
        "If you add them up, you get {number}.",
    ),
    validation=(
        "Together it comes to {number}.",
        "So the sum is {number}.",
        "If I add them up, that makes {number}.",
    ),
)


def write(fact: Sum, part: Part, rng: Random) -> Draft:
    """Both answers say the same but for their last number; only the chosen one is the sum."""
    left, right = str(fact.left), str(fact.right)
    slots = {"name": rng.choice(NAMES), "things": rng.choice(THINGS)}
    prompt = PROMPTS.fill(part, rng, left=left, right=right, **slots)
    numbers = (str(fact.total), str(fact.wrong))
    chosen, rejected = ANSWERS.fill_twice(part, rng, "number", numbers)
    return Draft(prompt, chosen, rejected, answer=str(fact.total))


MATHEMATICS = SubPreference(
    "mathematics",
    SUMS,
    {"prompts": PROMPTS, "answers": ANSWERS},
    write,
)
