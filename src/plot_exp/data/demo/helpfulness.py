"""Helpfulness: answer what was asked, neither something else nor nothing."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle


class Chore(NamedTuple):
    """An everyday task, the advice for it, and advice for another task."""

    task: str
    advice: str
    other_advice: str


ADVICE: tuple[tuple[str, str], ...] = (
    ("boil an egg", "leave it in hot water for eight minutes"),
    ("water a cactus", "pour a little on the soil once a month"),
    ("clean a window", "wipe the glass with vinegar and newspaper"),
    ("bake bread", "let the dough rise, then use a hot oven"),
    ("fall asleep faster", "dim the lights and put the phone away"),
    ("learn new words", "use a few cards every morning"),
    ("store onions", "keep them in a dry and dark basket"),
    ("wash wool", "choose cold water and a mild soap"),
    ("tie a tie", "cross the wide end over the narrow one"),
    ("cook rice", "take two cups of water for one cup of grain"),
    ("save money", "set aside a small sum on payday"),
    ("train a puppy", "reward every good try with a treat"),
    ("plant tulips", "bury the bulbs in autumn"),
    ("calm a baby", "hold it close and hum a soft song"),
    ("pack a suitcase", "roll the shirts and start with the shoes"),
    ("remember names", "repeat each one aloud when you meet"),
    ("unclog a sink", "fetch a plunger and plenty of hot water"),
    ("stop hiccups", "breathe in and count to ten"),
    ("hang a picture", "mark the spot on the wall with a pencil"),
    ("make strong tea", "steep the leaves for five minutes"),
    ("fix a squeaky door", "oil the hinges"),
    ("peel garlic", "press each clove with the flat of a knife"),
    ("prepare for a hike", "check the weather and bring good boots"),
    ("speak in public", "practice in front of a friend"),
)

CHORES = tuple(
    Chore(task, advice, other_advice) for (task, advice), (_, other_advice) in in_a_circle(ADVICE)
)

# The share of examples whose worse answer dodges the question instead of missing it.
EVASIVE_SHARE = 0.2

PROMPTS = Phrases(
    train=(
        "How do I {task}?",
        "What is a good way to {task}?",
        "Tell me how to {task}.",
        "I would like to {task}. Any tips?",
        "Can you help me {task}?",
        "What should I do to {task}?",
        "I have never tried to {task}. What helps?",
        "Give me one tip to {task}.",
        "How do people {task} at home?",
        "My sister asked me how to {task}. What do I say?",
        "Today I have to {task}. How does it work?",
        "What is the trick to {task}?",
    ),
    validation=(
        "Can you tell me how to {task}?",
        "Today I would like to {task}. What should I do?",
        "Give me a good tip: how do I {task}?",
        "What do people do to {task}?",
        "My friend asked me to {task}. What helps?",
    ),
)

ANSWERS = Phrases(
    train=(
        "{advice}.",
        "It is easy: {advice}.",
        "Try this: {advice}.",
        "The best tip is simple: {advice}.",
        "Just {advice}, and that should do.",
        "I would {advice}.",
        "You can {advice}, which works well.",
        "Most people {advice}.",
    ),
    validation=(
        "Just try this: {advice}.",
        "You should {advice}, that works.",
        "A simple tip: {advice}.",
    ),
)

EVASIONS = Phrases(
    train=(
        "That depends on many things, and everyone sees it differently.",
        "There are many ways, so it is hard to say.",
        "Hard to say. You may find something about it somewhere.",
        "Many people wonder about this. It is a big topic.",
    ),
    validation=(
        "It is hard to say, as it depends on many things.",
        "Everyone sees this differently, and there are many ways.",
    ),
)


def write(chore: Chore, part: Part, rng: Random) -> Draft:
    """The chosen answer is about the task; the other is about another one, or evades."""
    prompt = PROMPTS.fill(part, rng, task=chore.task)
    advice = (chore.advice, chore.other_advice)
    chosen, rejected = ANSWERS.fill_twice(part, rng, "advice", advice)
    if rng.random() < EVASIVE_SHARE:
        rejected = EVASIONS.fill(part, rng)
    return Draft(prompt, chosen, rejected)


HELPFULNESS = SubPreference(
    "helpfulness",
    CHORES,
    {"prompts": PROMPTS, "answers": ANSWERS, "evasions": EVASIONS},
    write,
)
