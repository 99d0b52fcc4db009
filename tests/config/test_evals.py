"""Which benchmarks a choice of `eval` brings."""

from __future__ import annotations

import pytest

from plot_exp.config.combinations import check
from plot_exp.config.composition import compose
from plot_exp.config.evals import BENCHMARKS, EvalConfig
from plot_exp.errors import UserError


def chosen(*overrides: str) -> list[str]:
    config = compose(list(overrides)).eval
    return [name for name in BENCHMARKS if getattr(config, name) is not None]


def test_every_benchmark_is_a_section_and_a_choice() -> None:
    assert set(BENCHMARKS) <= EvalConfig.model_fields.keys()
    for name in BENCHMARKS:
        assert chosen(f"eval={name}") == [name]


def test_groups_hold_what_they_say() -> None:
    assert chosen("eval=quick") == chosen("eval=none") == []
    assert set(chosen("eval=paper")) == set(BENCHMARKS)
    config = compose(["eval=general"]).eval
    assert config.lm_eval is not None
    assert config.lm_eval.shots()["arc_challenge"] == 25
    reasoning = compose(["eval=reasoning", "eval.gsm8k.limit=5"]).eval
    assert reasoning.gsm8k is not None
    assert reasoning.gsm8k.limit == 5
    assert reasoning.mt_bench is not None
    assert "writing" not in (reasoning.mt_bench.categories or [])


def test_a_setting_of_a_benchmark_that_is_not_chosen_says_so() -> None:
    with pytest.raises(UserError, match=r"'gsm8k' is not part of the chosen eval; .*eval=gsm8k"):
        compose(["eval=quick", "eval.gsm8k.limit=4"])
    with pytest.raises(UserError, match=r"eval.gsm8k.limt.*limit"):
        compose(["eval=gsm8k", "eval.gsm8k.limt=4"])


def test_a_served_model_is_measured_by_itself(tmp_path) -> None:
    served = ["eval=gsm8k", "eval.endpoint.url=http://localhost:1/v1"]
    with pytest.raises(UserError, match=r"endpoint\.url=.* needs eval\.endpoint\.model"):
        check(compose(["task=evaluate", *served]))
    served.append("eval.endpoint.model=theirs")
    check(compose(["task=evaluate", *served]))
    (tmp_path / "config.yaml").touch()
    for other in ("task=train", f"run={tmp_path}"):
        with pytest.raises(UserError, match=f"endpoint.url=.* with {other}"):
            check(compose(["task=evaluate", *served, other]))


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "'https://host/v1?key=secret'"])
def test_a_key_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UserError, match=r"eval\.judge\.url=https://.*\bkey\b") as error:
        compose(["eval=mt_bench", f"eval.judge.url={url}"])
    assert "secret" not in str(error.value)
