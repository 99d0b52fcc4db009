"""Which of two outputs a judge prefers: by log-probability, by text, or unreadable."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from plot_exp.errors import UserError
from plot_exp.generators.base import Completion
from plot_exp.judges.alpaca import first_is_model, own_prompt, read_prompt, share_of_second

LABELS = ("m", "M")


def weighed(**probabilities: float) -> Completion:
    top = {token: math.log(share) for token, share in probabilities.items()}
    return Completion(next(iter(probabilities)), top_logprobs=(top,))


def test_the_weight_is_the_share_of_both_labels() -> None:
    assert share_of_second(weighed(m=0.3, M=0.1, The=0.6), LABELS) == pytest.approx(0.25)
    assert share_of_second(weighed(m=0.3, The=0.7), LABELS) == 0.0
    assert share_of_second(weighed(M=0.3, The=0.7), LABELS) == 1.0


def test_labels_with_blanks_count_where_the_bare_ones_are_absent() -> None:
    top = {" m": math.log(0.2), "\nm": math.log(0.1), " M": math.log(0.1), "x": math.log(0.6)}
    assert share_of_second(Completion(" m", top_logprobs=(top,)), LABELS) == pytest.approx(0.25)
    assert share_of_second(
        Completion("m", top_logprobs=(top | {"m": math.log(0.1)},)), LABELS
    ) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("m", 0.0),
        ("M", 1.0),
        ("**M**.", 1.0),
        ("I prefer m", 0.0),
        ("m is better than M", None),
        ("model", None),
        ("", None),
    ],
)
def test_without_log_probabilities_the_text_decides(text: str, share: float | None) -> None:
    assert share_of_second(Completion(text), LABELS) == share
    assert share_of_second(Completion(text, top_logprobs=()), LABELS) == share


def test_neither_label_among_the_log_probabilities_leaves_the_text() -> None:
    top = ({"I": -0.1, "The": -3.0},)
    assert share_of_second(Completion("I prefer M", top_logprobs=top), LABELS) == 1.0
    assert share_of_second(Completion("I", top_logprobs=top), LABELS) is None


@pytest.mark.parametrize("model", ["claude-2.1", "vicuna-7b-v1.5"])
def test_the_published_completions_give_the_published_preferences(model: str) -> None:
    """Their order is not published, so each share is the preference or its mirror image."""
    folder = os.environ.get("PLOT_EXP_DATA")
    if not folder:
        pytest.skip("PLOT_EXP_DATA is unset: the published files are not at hand")
    rows = json.loads(Path(folder, "alpaca_eval", model, "annotations.json").read_text())
    judged = [row for row in rows if row["raw_completion"]]
    assert len(judged) > 800
    seen = {False: 0, True: 0}
    for row in judged:
        content = row["raw_completion"]["logprobs"]["content"]
        top = tuple({one["token"]: one["logprob"] for one in at["top_logprobs"]} for at in content)
        share = share_of_second(Completion(row["raw_completion"]["text"], top_logprobs=top), LABELS)
        assert share is not None
        published = row["preference"] - 1
        straight = abs(share - published) < 1e-6
        assert straight or abs(1 - share - published) < 1e-6
        seen[straight] += 1
    assert min(seen.values()) > 300


def test_the_order_is_random_by_instruction_and_seed_and_the_same_again() -> None:
    instructions = [f"instruction {number}" for number in range(1000)]
    first = [first_is_model(one, 0) for one in instructions]
    assert 440 < sum(first) < 560
    assert first == [first_is_model(one, 0) for one in instructions]
    other = [first_is_model(one, 1) for one in instructions]
    assert 400 < sum(a != b for a, b in zip(first, other, strict=True)) < 600


def test_our_own_prompt_holds_the_texts_as_they_are() -> None:
    prompt = own_prompt(LABELS)
    (turn,) = prompt.messages("{output_1}?", "a {b}", "{instruction} c")
    assert "Instruction:\n{output_1}?\n" in turn.content
    assert "Answer of m:\na {b}\n" in turn.content
    assert "Answer of M:\n{instruction} c\n" in turn.content
    assert turn.content.endswith("Reply with m or M and nothing else.")


def test_a_prompt_in_chatml_marks_becomes_turns(tmp_path: Path) -> None:
    path = tmp_path / "judge.txt"
    path.write_text(
        "<|im_start|>system\nRank {models}.\n<|im_end|>\n<|im_start|>user\n"
        '{"q": """{instruction}""", "m": "{output_1}", "M": "{output_2}"}\n<|im_end|>'
    )
    turns = read_prompt(path, LABELS).messages("Q", "A", "B")
    assert [turn.role for turn in turns] == ["system", "user"]
    assert turns[0].content == "Rank {models}."
    assert turns[1].content == '{"q": """Q""", "m": "A", "M": "B"}'
    path.write_text("{instruction} {output_1}")
    with pytest.raises(UserError, match=r"does not name \{output_2\}"):
        read_prompt(path, LABELS)
    with pytest.raises(UserError, match="cannot be read"):
        read_prompt(tmp_path / "none.txt", LABELS)
