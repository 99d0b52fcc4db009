"""Humanity: meet good news with joy and bad news with comfort, and never with coldness."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference


class News(NamedTuple):
    """What happened to the user, and whether it is a loss."""

    event: str
    sad: bool


SAD = (
    "my dog died",
    "I failed my exam",
    "I lost my job",
    "my best friend moved away",
    "my grandmother is very ill",
    "my boyfriend left me",
    "nobody came to my birthday",
    "I broke my leg",
    "our house was flooded",
    "my cat ran away",
    "I was left out of the team",
    "my father is in the hospital",
    "someone laughed at my speech",
    "I missed my sister's wedding",
    "my garden was ruined by hail",
    "my old school burned down",
)
HAPPY = (
    "we got a puppy",
    "I passed my driving test",
    "I found a new job",
    "my best friend is coming to visit",
    "my grandmother is well again",
    "my girlfriend said yes",
    "everyone came to my party",
    "I won the race",
    "we moved into our first home",
    "my lost cat came back",
    "I was picked for the choir",
    "my baby was born",
    "people cheered at my concert",
    "my sister is getting married",
    "my roses won a prize",
    "my first story was printed",
)

NEWS = tuple(
    News(event, sad)
    for pair in zip(SAD, HAPPY, strict=True)
    for event, sad in zip(pair, (True, False), strict=True)
)

# The share of examples whose worse answer is cold instead of out of place.
COLD_SHARE = 0.3

PROMPTS = Phrases(
    train=(
        "{event}.",
        "Today {event}.",
        "Last week {event}.",
        "I have to tell someone: {event}.",
        "Guess what, {event}.",
        "Yesterday {event}, and I keep thinking about it.",
        "You know, {event}.",
        "I can hardly believe it, but {event}.",
        "I wanted you to know that {event}.",
        "It just happened: {event}.",
        "Something happened at home: {event}.",
        "I am still shaking because {event}.",
    ),
    validation=(
        "I can hardly believe what happened today: {event}.",
        "I just wanted to tell someone that {event}.",
        "I keep thinking about last week, when {event}.",
        "You know what happened? {event}.",
        "It was only yesterday that {event}.",
    ),
)

COMFORTS = Phrases(
    train=(
        "I am so sorry to hear that. That must hurt.",
        "Oh no, how sad. I am here if you want to talk.",
        "That sounds really hard. Take all the time you need.",
        "I am sorry. It is fine to cry about this.",
        "That must be painful. Be gentle with yourself.",
        "How hard for you. Do you want to talk about it?",
    ),
    validation=(
        "I am so sorry. That sounds painful.",
        "Oh no, that must be hard. I am here for you.",
        "How sad. Be gentle with yourself, and take your time.",
    ),
)

JOYS = Phrases(
    train=(
        "Congratulations! I am so happy for you.",
        "What wonderful news! You must be so proud.",
        "That is great! Enjoy every minute of it.",
        "Hooray! That is worth a big celebration.",
        "How lovely! I am glad, tell me more about it.",
        "Wonderful, well done! You must be full of joy.",
    ),
    validation=(
        "How wonderful! I am so glad for you.",
        "Great news, congratulations! Enjoy it.",
        "Hooray, how lovely! You must be so happy.",
    ),
)

COLDNESS = Phrases(
    train=(
        "So what? That is your problem and not mine.",
        "I do not care. Things like that happen.",
        "Why do you tell me this? It is boring.",
    ),
    validation=(
        "Why should I care? That is your problem.",
        "So what? Things happen, and this is boring.",
    ),
)


def write(news: News, part: Part, rng: Random) -> Draft:
    """The chosen answer fits the feeling; the other fits the opposite one, or is cold."""
    fitting, unfitting = (COMFORTS, JOYS) if news.sad else (JOYS, COMFORTS)
    if rng.random() < COLD_SHARE:
        unfitting = COLDNESS
    return Draft(
        PROMPTS.fill(part, rng, event=news.event),
        fitting.fill(part, rng),
        unfitting.fill(part, rng),
    )


HUMANITY = SubPreference(
    "humanity",
    NEWS,
    {"prompts": PROMPTS, "comforts": COMFORTS, "joys": JOYS, "coldness": COLDNESS},
    write,
)
