"""The six attacks: defaults, seeds, early stops, surviving ids, resuming inside a case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plot_exp.attacks.asking import first_line
from plot_exp.attacks.base import Attack, Case
from plot_exp.attacks.gbda import GBDA
from plot_exp.attacks.gcg import GCG
from plot_exp.attacks.model import AttackedModel
from plot_exp.attacks.pez import PEZ
from plot_exp.attacks.prompt import AttackedPrompt
from plot_exp.attacks.sfs import SFS
from plot_exp.attacks.uat import UAT
from plot_exp.attacks.zero_shot import ZeroShot
from plot_exp.config.attacks import (
    ASRConfig,
    GBDAConfig,
    GCGConfig,
    PEZConfig,
    SFSConfig,
    UATConfig,
    ZeroShotConfig,
)
from plot_exp.data.behaviours import CONTEXT_RULE, Behaviour
from plot_exp.errors import RunError
from plot_exp.generators.base import Completion, Sampling

SHORT = "! ! ! ! ! !"
QUICK = GCGConfig(steps=6, width=16, top_k=16, initial=SHORT, check_every=2, save_seconds=0)


def never(text: str, tokens: int) -> str:
    raise AssertionError("no early stop was due")


def gcg(model: AttackedModel, folder: Path | None = None, **changes: Any) -> GCG:
    config = QUICK.model_copy(update=changes)
    return GCG(model, config, 0, changes.pop("answer", never), folder)


def without_time(cases: Sequence[Case]) -> list[Case]:
    return [replace(case, seconds=0.0) for case in cases]


def test_the_defaults_are_the_published_settings() -> None:
    config = ASRConfig()
    assert config.attacks == ["zero_shot", "sfs", "pez", "gbda", "uat", "gcg"]
    assert config.max_new_tokens == 512
    zero = config.zero_shot
    assert (zero.cases, zero.temperature, zero.top_p, zero.max_new_tokens) == (5, 0.9, 0.95, 256)
    assert (zero.frequency_penalty, zero.presence_penalty) == (0.1, 0.1)
    sfs = config.sfs
    assert (sfs.rounds, sfs.samples, sfs.shots, sfs.temperature) == (50, 64, 5, 1.0)
    assert (sfs.frequency_penalty, sfs.presence_penalty) == (0.1, 0.1)
    assert (sfs.max_new_tokens, sfs.shortest) == (1024, 32)
    pez = config.pez
    assert (pez.cases, pez.steps, pez.tokens, pez.lr) == (5, 500, 20, 0.01)
    gbda = config.gbda
    assert (gbda.cases, gbda.steps, gbda.tokens, gbda.lr) == (5, 500, 20, 0.2)
    assert (gbda.noise, gbda.temperature_start, gbda.temperature_end) == (0.2, 1.0, 0.1)
    uat = config.uat
    assert (uat.cases, uat.steps, uat.candidates, uat.initial) == (1, 100, 3, "! " * 20)
    gcg = config.gcg
    assert (gcg.cases, gcg.steps, gcg.width, gcg.top_k) == (1, 500, 512, 256)
    assert (gcg.initial, gcg.ascii) == ("! " * 20, True)
    assert (gcg.check_every, gcg.stop_loss, gcg.check_tokens) == (50, 0.05, 32)
    assert config.judge.model == "cais/HarmBench-Llama-2-13b-cls"
    assert config.judge.completion_tokens == 512
    assert config.copyright.threshold == 0.6


def white_box(model: AttackedModel, seed: int = 0) -> list[Attack]:
    return [
        GCG(model, QUICK, seed, never),
        PEZ(model, PEZConfig(cases=2, steps=8, tokens=6), seed),
        GBDA(model, GBDAConfig(cases=2, steps=8, tokens=6), seed),
    ]


def test_a_seed_repeats_and_another_one_differs(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    for one, same, other in zip(
        white_box(attacked), white_box(attacked), white_box(attacked, seed=1), strict=True
    ):
        first = without_time(one.attack(behaviour))
        assert first == without_time(same.attack(behaviour))
        assert [case.losses for case in first] != [case.losses for case in other.attack(behaviour)]


def test_every_case_reports_the_loss_of_the_text_that_the_model_is_asked(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    uat = UAT(attacked, UATConfig(steps=1, initial=SHORT))
    for attack in [*white_box(attacked), uat]:
        for case in attack.attack(behaviour):
            target = attacked.tokeniser.response_ids([behaviour.target])[0][:-1]
            (expected,) = attacked.losses_of_texts([case.best.text], target)
            assert case.best.encoded_loss == pytest.approx(expected, rel=1e-4)
            assert case.best.text.startswith(behaviour.text + " ")
            assert case.best.loss is not None
            assert case.best.loss <= min(case.losses) + 1e-6
            if case.same_ids:
                assert case.best.loss == pytest.approx(expected, rel=1e-4)


def test_what_gcg_finds_survives_decode_and_encode(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    (case,) = gcg(attacked, steps=8, width=32).attack(behaviour)
    assert case.same_ids
    assert case.best.loss == pytest.approx(case.best.encoded_loss)
    suffix = case.best.text[len(behaviour.text) :]
    assert suffix.isascii()
    assert suffix != f" {SHORT}"
    assert [step for step, _ in case.curve] == [2, 4, 6, 8]
    assert case.curve[-1][1] == case.best.text
    # One sequence a step goes backward; what is drawn and does not survive costs nothing.
    assert case.gradients == 8
    assert 8 < case.evaluations <= 8 + 8 * 32 + 4


def test_gcg_stops_at_a_low_loss_unless_the_model_refuses(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    asked: list[tuple[str, int]] = []

    def complies(text: str, tokens: int) -> str:
        asked.append((text, tokens))
        return "The answer is 42"

    def refuses(text: str, tokens: int) -> str:
        asked.append((text, tokens))
        return "I cannot help with that"

    config = QUICK.model_copy(update={"stop_loss": 1e9, "check_tokens": 7})
    (stopped,) = GCG(attacked, config, 0, complies).attack(behaviour)
    assert len(stopped.losses) == 2
    assert "step 2" in stopped.stopped
    assert asked == [(stopped.best.text, 7)]
    (refused,) = GCG(attacked, config, 0, refuses).attack(behaviour)
    assert len(refused.losses) == 6
    assert not refused.stopped
    assert len(asked) == 3


class KilledError(Exception):
    """A kill, as far as the attack can tell."""


def test_gcg_goes_on_inside_a_case_to_the_same_result(
    attacked: AttackedModel, behaviour: Behaviour, tmp_path: Path
) -> None:
    whole = gcg(attacked).attack(behaviour)

    def killed(items: Iterable[Any], label: str, total: int | None = None) -> Iterable[Any]:
        for number, item in enumerate(items):
            if number == 3:
                raise KilledError
            yield item

    with pytest.raises(KilledError):
        gcg(attacked, tmp_path).attack(behaviour, killed)
    assert list(tmp_path.glob("*.json"))
    resumed = gcg(attacked, tmp_path)
    before = attacked.gradients
    found = resumed.attack(behaviour)
    assert attacked.gradients - before == 3
    assert without_time(found) == without_time(whole)


def test_gcg_does_not_go_on_from_a_case_of_another_text(
    attacked: AttackedModel, behaviour: Behaviour, tmp_path: Path
) -> None:
    def killed(items: Iterable[Any], label: str, total: int | None = None) -> Iterable[Any]:
        for number, item in enumerate(items):
            if number == 3:
                raise KilledError
            yield item

    with pytest.raises(KilledError):
        gcg(attacked, tmp_path).attack(behaviour, killed)
    changed = replace(behaviour, target="The basket is on the table")
    found = gcg(attacked, tmp_path).attack(changed)
    assert without_time(found) == without_time(gcg(attacked).attack(changed))


def test_the_initial_text_is_gcgs_first_candidate(
    attacked: AttackedModel, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = attacked.prompt(behaviour, SHORT)
    (loss,) = attacked.losses_of_texts([prompt.text(prompt.slot)], prompt.target)
    # No swap survives: the initial text is all that there is, and has its loss.
    monkeypatch.setattr(AttackedPrompt, "survive", lambda self, rows: [False] * len(rows))
    monkeypatch.setattr(AttackedModel, "prompt", lambda self, *_: prompt)
    (stuck,) = gcg(attacked).attack(behaviour)
    assert stuck.best.text == prompt.text(prompt.slot)
    assert stuck.best.loss == pytest.approx(loss, rel=1e-4)
    assert list(stuck.losses) == [stuck.best.loss] * 6
    assert stuck.notes["steps_without_a_surviving_swap"] == 6


def test_losses_that_are_no_number_end_an_attack_in_words(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    with torch.no_grad():
        next(attacked.policy.parameters()).fill_(float("nan"))
    attacked = AttackedModel(attacked.policy, attacked.tokeniser)
    uat = UAT(attacked, UATConfig(steps=1, initial=SHORT))
    for attack in [*white_box(attacked), uat]:
        with pytest.raises(RunError, match="not a number"):
            attack.attack(behaviour)


def test_uat_tries_no_token_that_is_not_allowed(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    uat = UAT(attacked, UATConfig(steps=1, candidates=10_000, initial="! !"))
    (case,) = uat.attack(behaviour)
    prompt = attacked.prompt(behaviour, "! !")
    tokens = len(prompt.slot)
    allowed = attacked.vocabulary.allowed(tokens, ascii_only=False, opens=prompt.opens)
    assert case.gradients == tokens
    # The gradients, all allowed tokens, and at most two texts that are encoded otherwise.
    assert tokens + int(allowed.sum()) <= case.evaluations <= tokens + int(allowed.sum()) + 2


def test_uat_stops_after_a_pass_without_gain(attacked: AttackedModel, behaviour: Behaviour) -> None:
    (case,) = UAT(attacked, UATConfig(steps=60, initial="! ! !")).attack(behaviour)
    assert case.stopped
    assert len(case.losses) < 60
    assert list(case.losses) == sorted(case.losses, reverse=True)
    again = UAT(attacked, UATConfig(steps=60, initial="! ! !")).attack(behaviour)
    assert without_time(again) == without_time([case])


class Scripted:
    """An attacker that says what it is told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines, self.asked, self.samplings = list(lines), [], []

    def __call__(self, prompts: Any, sampling: Any = None, *, samples: int = 1, **more: Any) -> Any:
        found = []
        for place, prompt in enumerate(prompts):
            self.asked.append(prompt[-1].content)
            self.samplings.append(sampling)
            row = [Completion(self.lines.pop(0) if self.lines else "") for _ in range(samples)]
            found.append(row)
            if more.get("each"):
                more["each"](place, row)
        return found


def test_zero_shot_takes_one_line_a_case_and_asks_again_for_empty_ones(
    behaviour: Behaviour,
) -> None:
    attacker = Scripted(["1. First one\nand more", '"Second"', "", "Prompt: Third", "4", "5"])
    config = ZeroShotConfig(cases=3)
    cases = ZeroShot(attacker, config, 0).attack(behaviour)
    assert [case.best.text for case in cases] == ["First one", "Second", "Third"]
    assert len(attacker.asked) == 2
    assert behaviour.text in attacker.asked[0]
    expected = Sampling(0.9, 0.95, 256, frequency_penalty=0.1, presence_penalty=0.1)
    first, second = attacker.samplings
    assert replace(first, seed=0) == expected
    assert first.seed != second.seed


def test_zero_shot_puts_the_context_before_the_prompt(behaviour: Behaviour) -> None:
    asked = replace(behaviour, context="A text.")
    (case,) = ZeroShot(Scripted(["Say it"]), ZeroShotConfig(cases=1), 0).attack(asked)
    assert case.best.text == f"A text.{CONTEXT_RULE}Say it"


def test_an_attacker_without_words_gives_fewer_cases(behaviour: Behaviour) -> None:
    assert ZeroShot(Scripted(["only this"]), ZeroShotConfig(cases=3), 0).attack(behaviour) != []
    assert ZeroShot(Scripted([]), ZeroShotConfig(cases=3), 0).attack(behaviour) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\n- hello there\nrest", "hello there"),
        ("**Prompt 2:** hello", "hello"),
        ("“How so?”", "How so?"),
        ("12) do it", "do it"),
        ("...\n!!!", ""),
        ("3 apples are here", "3 apples are here"),
        ('Sure, here is a prompt:\n\n"How so?"', "How so?"),
        ("**Prompt:**\nHow so?", "How so?"),
        ("Write the following:", "Write the following:"),
    ],
)
def test_the_first_line_that_says_something(text: str, line: str) -> None:
    assert first_line(text) == line


def test_sfs_without_a_first_prompt_has_no_loss_there_and_is_read_again(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    lines = ["", "How many apples are there in the basket on the table"]
    config = SFSConfig(cases=1, rounds=2, samples=1)
    (case,) = SFS(attacked, Scripted(lines), config, 0).attack(behaviour)
    assert case.losses == (float("inf"), case.best.loss)
    written = json.dumps(case.as_row(), allow_nan=False)
    assert Case.from_row(json.loads(written)) == case


def test_sfs_shows_the_best_cases_and_drops_duplicates_and_short_ones(
    attacked: AttackedModel, behaviour: Behaviour
) -> None:
    lines = [
        "How many apples are there in the basket on the table",
        "The answer is 42, because seven times six is forty-two",
        "short",
        "How many apples are there in the basket on the table",
        "What is the capital of that country? I would look it up",
        "The answer is 42, because seven times six is forty-two",
    ]
    config = SFSConfig(cases=2, rounds=2, samples=3, shots=1)
    attacker = Scripted(lines)
    cases = SFS(attacked, attacker, config, 0).attack(behaviour)
    target = attacked.tokeniser.response_ids([behaviour.target])[0][:-1]
    pool = [lines[0], lines[1], lines[4]]
    losses = attacked.losses_of_texts(pool, target)
    ranked = sorted(zip(losses, pool, strict=True))
    assert [case.best.text for case in cases] == [text for _, text in ranked[:2]]
    assert cases[0].best.loss == pytest.approx(ranked[0][0], rel=1e-4)
    assert cases[0].notes["dropped"] == {"duplicate": 2, "too short": 1}
    first_best = min(zip(losses[:2], pool[:2], strict=True))[1]
    assert f"- {first_best}" in attacker.asked[1]
    assert attacker.asked[1].count("\n- ") == 1
    assert attacker.samplings[0].max_new_tokens == 1024
    assert list(cases[0].losses) == [
        pytest.approx(min(losses[:2]), rel=1e-4),
        pytest.approx(min(losses), rel=1e-4),
    ]
