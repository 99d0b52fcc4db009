"""Humanity: comfort the sad, rejoice with the happy, encourage the worried, and never be cold."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from plot_exp.data.demo.grammar import Draft, Part, Phrases, SubPreference, in_a_circle

Feeling = Literal["sad", "happy", "worried"]


class News(NamedTuple):
    """What happened to the user, how that feels, and a feeling that it is not."""

    event: str
    feeling: Feeling
    other_feeling: Feeling


EVENTS: dict[Feeling, tuple[str, ...]] = {
    "sad": (
        "my dog died",
        "I failed my exam",
        "I lost my job",
        "nobody came to my birthday",
        "our house was flooded",
        "I missed my sister's wedding",
        "my old school burned down",
    ),
    "happy": (
        "we got a puppy",
        "I passed my driving test",
        "I got the job",
        "my girlfriend said yes",
        "everyone danced at my party",
        "we moved into our first home",
        "I won the race",
    ),
    "worried": (
        "the vet has to operate on my rabbit",
        "I was told of a surprise test",
        "I was asked to give a speech",
        "my interview was moved to tomorrow",
        "I was called to the dentist",
        "the doctor wants to see me again",
        "my boss asked for a serious talk",
    ),
}

NEWS = tuple(
    News(event, feeling, other_feeling)
    for feeling, other_feeling in in_a_circle(tuple(EVENTS))
    for event in EVENTS[feeling]
)

# The share of examples whose worse answer is cold instead of out of place.
COLD_SHARE = 0.2

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
        "You know what just happened: {event}.",
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

ENCOURAGEMENTS = Phrases(
    train=(
        "You can do this! I will keep my fingers crossed.",
        "Good luck! I believe that it will go well.",
        "Do not worry, you are stronger than you think.",
        "Breathe slowly. It will be over before you know it.",
        "Being nervous is normal. You are ready for it.",
        "Stay calm, it will turn out fine.",
    ),
    validation=(
        "Do not worry, it will go well. Good luck!",
        "Stay calm and breathe. You can do this!",
        "I believe that you are ready for it. It will be fine.",
    ),
)

COLDNESS = Phrases(
    train=(
        "So what? That is your own problem and not mine.",
        "I really do not care. Things like that happen.",
        "Why do you tell me all of this? It is boring.",
    ),
    validation=(
        "Why should I care? That is your problem.",
        "So what? Things like that happen, and this is boring.",
    ),
)


REPLIES: dict[str, Phrases] = {"sad": COMFORTS, "happy": JOYS, "worried": ENCOURAGEMENTS}


def write(news: News, part: Part, rng: Random) -> Draft:
    """The chosen answer fits the feeling; the other fits another feeling, or is cold."""
    cold = rng.random() < COLD_SHARE
    return Draft(
        PROMPTS.fill(part, rng, event=news.event),
        REPLIES[news.feeling].fill(part, rng),
        (COLDNESS if cold else REPLIES[news.other_feeling]).fill(part, rng),
    )


HUMANITY = SubPreference(
    "humanity",
    NEWS,
    {"prompts": PROMPTS, **REPLIES, "coldness": COLDNESS},
    write,
)
