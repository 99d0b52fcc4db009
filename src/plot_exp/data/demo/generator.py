"""The demo set: drafts of every sub-preference, in turn, until both parts are full."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

from plot_exp.data.demo.coding import CODING
from plot_exp.data.demo.dialogue import turns
from plot_exp.data.demo.grammar import Fact, Part, SubPreference
from plot_exp.data.demo.harmlessness import HARMLESSNESS
from plot_exp.data.demo.helpfulness import HELPFULNESS
from plot_exp.data.demo.humanity import HUMANITY
from plot_exp.data.demo.mathematics import MATHEMATICS
from plot_exp.data.demo.reasoning import REASONING
from plot_exp.data.demo.stem import STEM
from plot_exp.data.examples import Message, Origin, PreferenceExample, Split
from plot_exp.errors import UserError

NAME = "demo"
VALIDATION_SHARE = 0.15
SUB_PREFERENCES: tuple[SubPreference, ...] = (
    HARMLESSNESS,
    HELPFULNESS,
    HUMANITY,
    MATHEMATICS,
    REASONING,
    CODING,
    STEM,
)
CATEGORIES = tuple(sub_preference.name for sub_preference in SUB_PREFERENCES)

# Draws on one fact before a prompt may return with another pair, and before none is left.
DRAWS_FOR_NEW_PROMPT = 20
DRAWS_FOR_NEW_PAIR = 1000


def generate(size: int, seed: int) -> Split:
    """Writes `size` examples, 15 % of them for validation, balanced over `CATEGORIES`.

    Rows count through both parts, training first. A shorter list of the same seed and part is
    the beginning of a longer one, and each beginning is balanced too.

    Raises:
        UserError: the grammar has not so many different examples.
    """
    validation_size = round(size * VALIDATION_SHARE)
    sizes: dict[Part, int] = {"train": size - validation_size, "validation": validation_size}
    train = list(islice(_examples("train", seed), sizes["train"]))
    validation = list(islice(_examples("validation", seed, len(train)), sizes["validation"]))
    return Split(train, validation)


def _examples(part: Part, seed: int, first_row: int = 0) -> Iterator[PreferenceExample]:
    rng = Random(f"{NAME} {part} {seed}")
    writers = [_written(each, part, Random(f"{rng.random()}")) for each in SUB_PREFERENCES]
    row = first_row
    while True:
        rng.shuffle(writers)
        for writer in writers:
            prompt, chosen, rejected, answer, category = next(writer)
            yield PreferenceExample(
                prompt=prompt,
                responses=(chosen, rejected),
                category=category,
                dataset=NAME,
                origin=Origin(NAME, row),
                answer=answer,
            )
            row += 1


Written = tuple[tuple[Message, ...], str, str, str | None, str]


def _written(sub_preference: SubPreference[Fact], part: Part, rng: Random) -> Iterator[Written]:
    """Every fact once in each round, so that no answer is chosen more often than rejected."""
    seen_prompts: set[str] = set()
    seen_pairs: set[tuple[str, str, str]] = set()
    facts = list(sub_preference.facts)
    while True:
        rng.shuffle(facts)
        for fact in facts:
            for draw in range(DRAWS_FOR_NEW_PAIR):
                draft = sub_preference.write(fact, part, rng)
                messages = turns(draft.prompt, part, rng)
                text = "\n".join(message.content for message in messages)
                pair = (text, draft.chosen, draft.rejected)
                if pair not in seen_pairs and (
                    text not in seen_prompts or draw >= DRAWS_FOR_NEW_PROMPT
                ):
                    break
            else:
                raise UserError(
                    f"dataset.size asks for more {part} examples on {sub_preference.name} than the "
                    "demo set can tell apart; choose a smaller dataset.size."
                )
            seen_prompts.add(text)
            seen_pairs.add(pair)
            yield messages, draft.chosen, draft.rejected, draft.answer, sub_preference.name
