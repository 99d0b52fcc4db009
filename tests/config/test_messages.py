"""A mistake gets one message: the key, the value, the closest known name and the way out."""

from __future__ import annotations

import pytest

from plot_exp.config import combinations, loss_rules
from plot_exp.config.composition import compose
from plot_exp.config.keys import dotted, is_known
from plot_exp.config.schema import Config
from plot_exp.errors import UserError

MISTAKES = [
    ("los=dpo", ["'los'", "did you mean 'loss'"]),
    ("loss=dop", ["'dop'", "did you mean 'dpo'", "plot, pro, sft"]),
    ("loss=dpo+plto", ["loss=dpo+plto", "'plto'", "did you mean 'plot'"]),
    ("loss=dpo+dpo", ["'dpo' stands twice"]),
    ("loss=dpo+", ["a term is missing"]),
    ("loss=", ["has no value", "plot or pro or sft"]),
    ("loss.plot.alpha=abc", ["loss.plot.alpha=abc", "must be a number"]),
    ("loss.plot.alpha=-1", ["loss.plot.alpha=-1", "must be 0.0 or more"]),
    ("loss.plot.alpha=nan", ["loss.plot.alpha=nan", "finite number"]),
    ("loss.plto.alpha=1", ["'plto'", "did you mean 'plot'"]),
    ("loss.plot.alhpa=1", ["did you mean 'loss.plot.alpha'"]),
    ("loss=dpo loss.plot.alpha=1", ["'plot' is not in the chosen loss", "loss=dpo+plot"]),
    ("+loss.sft.weight=1", ["'sft' is not in loss=dpo+plot", "loss=dpo+plot+sft"]),
    ("loss.plot.gamma=1", ["'loss.plot.gamma'", "loss.plot knows: ", "anchor_gamma"]),
    ("loss.plot.side=chsen", ["loss.plot.side=chsen", "did you mean 'chosen'"]),
    ("trainer.max_step=3", ["did you mean 'trainer.max_steps'"]),
    ("batch_size=3", ["did you mean 'trainer.batch_size'"]),
    ("trainer.max_steps=0", ["trainer.max_steps=0", "must be 1 or more"]),
    ("trainer.max_steps=true", ["trainer.max_steps=true"]),
    ("trainer=5", ["trainer=5", "cpu, ddp, fsdp, gpu"]),
    ("model=hf", ["model.name=null", "model.name=ID_OR_DIR"]),
    ("model=null", ["model=null", "no such option"]),
    ("~model", ["~model", "cannot be removed"]),
    ("seed=-1", ["seed=-1", "must be 0 or more"]),
    ("seed=99999999999999999999", ["seed=99999999999999999999", "2147483647 or less"]),
    ("trainer.max_steps=99999999999999999999", ["or less"]),
    ("optimizer.betas=[0.9,1.5]", ["optimizer.betas.1=1.5", "less than 1"]),
    ("optimizer.betas=[-0.1,0.9]", ["optimizer.betas.0=-0.1", "0.0 or more"]),
    ("dataset=jsonl dataset.path=/dev/null", ["dataset.path=/dev/null", "neither a file nor"]),
    ("seed=abc", ["seed=abc", "must be a whole number"]),
    ("seed=0,1", ["seed=0,1", "-m"]),
    ("dataset=hhrlhf", ["dataset=hhrlhf", "did you mean 'hh_rlhf'"]),
    ("optimizer.lr=0", ["optimizer.lr=0", "must be greater than 0.0"]),
    ("optimizer=5", ["optimizer=5", "this is a section"]),
    ("a=b=c[", ["a=b=c[", "cannot read"]),
    ("+foo=1", ["'foo'", "+foo=1"]),
    ("experiment=quik", ["did you mean 'quick'"]),
    ("quick", ["'quick' is not KEY=VALUE", "experiment=quick"]),
    ("hydra.run.dri=x", ["hydra.run.dri"]),
    ("model@x=tiny", ["leave '@x' out"]),
    ("foo/bar=1", ["foo/bar=1", "no such group"]),
    # combinations
    ("trainer.microbatch_size=64", ["microbatch_size=64", "trainer.batch_size=32"]),
    ("trainer.microbatch_size=5", ["microbatch_size=5", "does not divide"]),
    ("model=hf model.name=/nope", ["model.name=/nope", "no such directory"]),
    ("reference=/nope", ["reference=/nope", "no such directory"]),
    ("dataset.path=/nope", ["dataset.path=/nope", "no such file"]),
    ("dataset=gsm8k dataset.rejected=none", ["rejected=none", "'dpo'", "rejected=corrupt"]),
    ("dataset=math dataset.rejected=given loss=sft+plot", ["'plot'", "math has none"]),
    ("dataset=mix dataset.sources.gsm8k.rejected=none", ["dataset.sources.gsm8k.rejected=none"]),
    ("dataset=hh_rlhf dataset.rejected=none", ["'dpo'", "leaves them out", "rejected=given"]),
    ("dataset=hh_rlhf dataset.rejected=corrupt", ["rejected=corrupt", "rejected=given"]),
    ("dataset=jsonl", ["dataset.path=FILE"]),
    ("dataset=gsm8k dataset.rejected=none loss=aot_unpaired", ["'aot_unpaired'", "gsm8k has none"]),
    ("loss=plot loss.plot.gradient_share=0.1", ["gradient_share=0.1", "loss=dpo+plot"]),
    ("loss=emo loss.emo.gradient_share=0.3", ["gradient_share=0.3", "loss=dpo+emo"]),
    ("loss.plot.gradient_share=0.1 loss.plot.alpha=0", ["loss.plot.alpha=0", "positive"]),
    ("loss.plot.cost_shape=power", ["cost_shape=power", "transport=line", "transport=dual"]),
    (
        "loss.plot.transport=exact loss.plot.cost_distance=geodesic",
        ["cost_distance=geodesic", "transport=exact", "transport=dual"],
    ),
    ("loss.plot.transport=dual loss.plot.distribution=position", ["distribution=batch"]),
    ("loss.plot.transport=dual trainer.coupling=microbatch", ["coupling=exact"]),
    ("loss.plot.transport=dual trainer.coupling=carried", ["carried", "coupling=exact"]),
    ("trainer.devices=0", ["trainer.devices=0: must be 'auto' or 1 or more"]),
    ("loss.plot.gradient_share=0", ["loss.plot.gradient_share=0", "greater than 0"]),
    ("loss=deft loss.deft.filter=1.5", ["loss.deft.filter=1.5", "1.0 or less"]),
    ("loss=tdpo reference_form=cached", ["'tdpo'", "whole distributions", "reference_form"]),
    ("loss=sft+kto reference_form=cached", ["loss=sft+kto", "'kto'", "other prompts"]),
    ("loss=kto trainer.batch_size=1", ["trainer.batch_size=1", "2 or more"]),
    ("loss=tdpo loss.tdpo.variant=3", ["loss.tdpo.variant=3", "must be 1 or 2"]),
    ("extensions=[/nope.py]", ["cannot read /nope.py"]),
    ("loss=kl loss.kl.direction=foward", ["did you mean 'forward'"]),
    ("trainer.on_nonfinite=ignore", ["trainer.on_nonfinite=ignore", "skip"]),
    ("task=evaluate", ["run=RUN_DIR"]),
    ("task=export", ["run=RUN_DIR"]),
    ("task=report", ["runs=DIR"]),
    ("task=report runs=/nope", ["runs=/nope", "no such directory"]),
    ("model.lora.dora=true", ["model.lora.dora=true", "every weight", "model.lora.rank=16"]),
    ("model.lora.export=adapter", ["model.lora.export=adapter", "model.lora.rank=16"]),
    ("task=evaluate run=/nope", ["run=/nope", "no such directory"]),
    ("name=../x", ["name=../x", "folder name", "leads out"]),
    ("name=/x", ["name=/x", "folder name", "root"]),
    ("name=a/../../x", ["folder name", "leads out"]),
    (r"name='..\\x'", ["folder name", "backslash"]),
    ("name='C:x'", ["folder name", "drive"]),
    ("name=" + "x" * 300, ["folder name", "longer than 200 bytes"]),
    ("name='a\tb'", ["folder name", "control character"]),
    ("task=report runs=" + "x" * 5000, ["cannot be used", "File name too long"]),
    ("model.name=hf_" + "aB3" * 11, ["model.name=[hidden]", "variable of the environment"]),
    ("cache_dir='ftp://ann:secret@host/x'", ["ftp://[hidden]@host", "of the environment"]),
    ("hydra.job.env_set.HF_TOKEN=hf_" + "aB3" * 11, ["HF_TOKEN=[hidden]"]),
    ("eval.judge.key_variable=sk-0123456789abcdef", ["key_variable=[hidden]"]),
    ("eval.judge.key_variable=my-key", ["key_variable=my-key", "not a key itself"]),
    ("export.push_to=nobody", ["export.push_to=nobody", "OWNER/NAME"]),
    ("export.push_to=a/../b", ["export.push_to=a/../b", "OWNER/NAME"]),
    ("export.max_shard_size=5", ["export.max_shard_size=5", "5GB"]),
    ("export.license=MIT", ["export.license=MIT", "apache-2.0"]),
    ("limits.record_mb=0", ["limits.record_mb=0", "greater than 0"]),
    ("model.tiny.heads=3", ["model.tiny.heads=3", "multiple"]),
    ("model=qwen7b model.shape.hidden_size=100", ["model.shape.hidden_size=100", "multiple"]),
    ("model=llama8b model.shape.num_key_value_heads=5", ["num_key_value_heads=5", "divide"]),
    ("model.shape.num_layers=2", ["model.shape.num_layers", "num_hidden_layers"]),
]


def _judged(line: str) -> str:
    with pytest.raises(UserError) as raised:
        combinations.check(compose(line.split(" ")))
    return str(raised.value)


@pytest.mark.parametrize(("line", "parts"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_named_with_its_way_out(line: str, parts: list[str]) -> None:
    message = _judged(line)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def test_several_wrong_values_are_told_at_once() -> None:
    assert len(_judged("seed=-1 trainer.max_steps=0").splitlines()) == 2


def test_sft_needs_no_pairs() -> None:
    config = compose(["dataset=gsm8k", "dataset.rejected=none", "loss=sft"])
    assert list(loss_rules.terms_find_what_they_need(config)) == []


def test_every_key_of_the_schema_is_known_and_mistyping_it_finds_it_again() -> None:
    for key in dotted(Config):
        assert is_known(key, Config)
        assert not is_known(key + "x", Config)


@pytest.mark.parametrize("task", ["export", "evaluate"])
def test_a_folder_of_runs_is_no_run(tmp_path, task):
    for stamp in ("2026-01-01", "2026-01-02"):
        (tmp_path / stamp).mkdir()
        (tmp_path / stamp / "config.yaml").touch()
    (tmp_path / "empty").mkdir()
    for run, hint in (
        (tmp_path, rf"did you mean run={tmp_path}/2026-01-02\?"),
        (tmp_path / "empty", ""),
    ):
        with pytest.raises(UserError, match=rf"run={run}: no run directory.*{hint}"):
            combinations.check(compose([f"task={task}", f"run={run}"]))
