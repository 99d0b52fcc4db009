"""Helpfulness: answer what was asked, neither something else nor nothing."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class Chore(NamedTuple):
    """An everyday task, the advice for it, and advice for another task."""

    task: str
    advice: str
    other_advice: str


# Two tasks with their advice; each one's advice is the other one's wrong answer.
PAIRED_ADVICE: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("boil an egg", "leave it in hot water for eight minutes"),
     ("water a cactus", "pour a little on the soil once a month")),
    (("clean a window", "wipe the glass with vinegar and newspaper"),
     ("bake bread", "let the dough rise, then use a hot oven")),
    (("fall asleep faster", "dim the lights and put the phone away"),
     ("learn new words", "use a few cards every morning")),
    (("store onions", "keep them in a dry and dark basket"),
     ("wash wool", "use cold water and a mild soap")),
    (("tie a tie", "cross the wide end over the narrow one"),
     ("cook rice", "use two cups of water for one cup of grain")),
    (("save money", "set aside a small sum on payday"),
     ("train a puppy", "reward every good try with a treat")),
    (("remove a coffee stain", "dab the spot with cold water and salt"),
     ("plant tulips", "put the bulbs in the ground in autumn")),
    (("sharpen a pencil", "turn it gently in the blade"),
     ("calm a crying baby", "hold it close and hum a soft song")),
    (("write a thank-you note", "name the gift and say why you like it"),
     ("pack a suitcase", "roll the shirts and put the shoes at the bottom")),
    (("unclog a sink", "use a plunger and plenty of hot water"),
     ("remember names", "repeat each one aloud when you meet")),
    (("ripen an avocado", "keep it in a paper bag with a banana"),
     ("start running", "alternate a minute of jogging and of walking")),
    (("stop hiccups", "hold your breath and count to ten"),
     ("hang a picture", "mark the spot on the wall and use a level")),
    (("keep a cat off the table", "give it a high shelf of its own"),
     ("make strong tea", "let the leaves steep for five minutes")),
    (("fix a squeaky door", "put a drop of oil on the hinges"),
     ("choose a book", "read the first page and see if it grips you")),
    (("peel garlic", "press each clove with the flat of a knife"),
     ("prepare for a hike", "check the weather and bring good boots")),
    (("clear a foggy mirror", "rub it with a bit of shaving foam"),
     ("speak in public", "practice in front of a friend")),
)  # fmt: skip

CHORES = tuple(
    Chore(task, advice, other)
    for (first, second) in PAIRED_ADVICE
    for (task, advice), other in ((first, second[1]), (second, first[1]))
)

# The share of examples whose worse answer dodges the question instead of missing it.
EVASIVE_SHARE = 0.3

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
    if rng.random() < EVASIVE_SHARE:
        rejected = EVASIONS.fill(part, rng)
    else:
        rejected = ANSWERS.fill(part, rng, advice=chore.other_advice)
    chosen = ANSWERS.fill(part, rng, advice=chore.advice)
    return Draft(PROMPTS.fill(part, rng, task=chore.task), chosen, rejected)


HELPFULNESS = SubPreference(
    "helpfulness",
    CHORES,
    {"prompts": PROMPTS, "answers": ANSWERS, "evasions": EVASIONS},
    write,
)
