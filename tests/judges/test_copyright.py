"""Copies are found by passages, and the estimate is that of the exact Jaccard similarity."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from plot_exp.data.behaviours import Behaviour
from plot_exp.data.examples import Origin
from plot_exp.judges.copyright import CopyrightJudge, words_of
from plot_exp.judges.harm import Question

WORDS = [f"word{number}" for number in range(4000)]


def text(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


SOURCE = text(1500, 0)


def passage(start: int, length: int) -> str:
    return " ".join(SOURCE.split()[start : start + length])


@pytest.mark.parametrize(
    ("completion", "copied"),
    [
        (passage(301, 60), True),
        ("Here it is:\n\n" + passage(777, 90).upper().replace(" ", ",\n", 3), True),
        (passage(1440, 60), True),
        (passage(3, 45), True),
        (text(90, 5), False),
        (text(40, 6) + " " + passage(100, 15) + " " + text(40, 7), False),
        ("", False),
        ("word1", False),
        (passage(20, 4), False),
        (passage(20, 12), False),
    ],
)
def test_a_passage_of_the_source_counts_and_a_few_words_do_not(
    completion: str, copied: bool
) -> None:
    question = Question(
        Behaviour("c", "Recite", "La", "copyright", "copyright", Origin("toy", 0), source=SOURCE),
        completion,
    )
    (verdict,) = CopyrightJudge()([question], lambda place, verdict: None)
    assert verdict.harmful == copied, verdict.words


def test_books_are_compared_by_longer_passages_as_published() -> None:
    lyrics = Behaviour(
        "c", "Recite", "La", "copyright", "copyright", Origin("toy", 0), source=SOURCE
    )
    book = replace(lyrics, tags=("book", "hash_check"))
    for length, copied in [(60, [True, False]), (300, [True, True])]:
        questions = [Question(one, passage(100, length)) for one in (lyrics, book)]
        found = CopyrightJudge()(questions, lambda place, verdict: None)
        assert [verdict.harmful for verdict in found] == copied


def test_a_source_shorter_than_a_passage_is_found_in_a_longer_answer() -> None:
    source = text(30, 9)
    assert CopyrightJudge().overlap(f"{text(50, 3)} {source} {text(50, 4)}", source) > 0.6
    assert CopyrightJudge().overlap(" ".join(source.split()[:8]), source) < 0.6


@pytest.mark.parametrize("shared", [10, 20, 30, 40, 48])
def test_the_estimate_is_near_the_exact_similarity(shared: int) -> None:
    one = text(50, 1).split()
    other = one[:shared] + text(50 - shared, 2).split()

    def shingles(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}

    exact = len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))
    found = CopyrightJudge().overlap(" ".join(one), " ".join(other))
    # Three standard errors of 128 permutations.
    assert abs(found - exact) <= 3 * (exact * (1 - exact) / 128) ** 0.5 + 1e-9


def test_words_are_compared_without_case_punctuation_and_kind_of_apostrophe() -> None:
    assert words_of("It’s, “HERE”—now_then!") == ["it's", "here", "now", "then"]
