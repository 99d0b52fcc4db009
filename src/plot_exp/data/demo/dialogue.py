"""The turns around a question: an opener in front of it, or a short exchange before it."""

from __future__ import annotations

from random import Random

from plot_exp.data.demo.grammar import Part, Phrases
from plot_exp.data.examples import Message

OPENER_SHARE = 0.4
MULTI_TURN_SHARE = 0.06

OPENERS = Phrases(
    train=("Hello!", "Hi there.", "Good morning.", "One moment, please.", "Hey."),
    validation=("Good evening.", "Hello there."),
)
GREETINGS = Phrases(
    train=("Hi, do you have a minute?", "Hello, are you there?", "Good morning, can we talk?"),
    validation=("Hello, can we talk?", "Hi there, do you have time?"),
)
REPLIES = Phrases(
    train=("Yes, I am here.", "Of course, go ahead.", "Good morning! Yes, we can."),
    validation=("Yes, go ahead.", "Hello! Of course we can."),
)


def turns(question: str, part: Part, rng: Random) -> tuple[Message, ...]:
    """The prompt as chat messages: mostly one, sometimes with a greeting and its reply before."""
    if rng.random() < MULTI_TURN_SHARE:
        return (
            Message("user", GREETINGS.fill(part, rng)),
            Message("assistant", REPLIES.fill(part, rng)),
            Message("user", question),
        )
    if rng.random() < OPENER_SHARE:
        question = f"{OPENERS.fill(part, rng)} {question}"
    return (Message("user", question),)
