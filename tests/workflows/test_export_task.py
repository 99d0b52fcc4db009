"""`task=export`: the run's own policy, loaded by plain transformers and by peft, with its card."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.composition import compose
from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.workflows import export

QUICK = [
    "experiment=quick",
    "logger=none",
    "eval=none",
    "trainer.progress=false",
    "trainer.checkpoint_every=1",
    "trainer.validate_every=1",
    "trainer.keep.best=val/reward_margin",
    "trainer.keep.mode=max",
    "model.lora.rank=2",
]


@pytest.fixture(scope="module")
def adapted(run_cli, tmp_path_factory) -> Path:
    """A finished run with an adapter, whose best step is not its last one."""
    folder = tmp_path_factory.mktemp("adapted")
    done = run_cli([*QUICK, "hydra.run.dir=run"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def asked(run: Path, **settings: object) -> Config:
    config = compose(["task=export", f"run={run}", f"cache_dir={run.parent}/outputs/cache"])
    changed = config.export.model_copy(update=settings)
    return config.model_copy(update={"export": changed})


def exported(run: Path, folder: Path, **settings: object) -> Path:
    # The run was made from another working directory, which its settings are relative to.
    config = asked(run, path=str(folder), **settings)
    export.run(config, folder)
    return folder


@pytest.fixture(autouse=True)
def _beside_the_run(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapted.parent)


IDS = torch.tensor([[5, 9, 300, 41, 7]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.slow
def test_merged_and_kept_give_the_runs_own_logits(adapted: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    own = logits(AutoModelForCausalLM.from_pretrained(adapted / "model"))
    merged = exported(adapted, tmp_path / "merged", adapter="merge")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(merged)), own)
    kept = exported(adapted, tmp_path / "kept", adapter="keep")
    assert not (kept / "config.json").exists()
    loaded = AutoPeftModelForCausalLM.from_pretrained(kept)
    torch.testing.assert_close(logits(loaded), own, rtol=0, atol=1e-5)
    with loaded.disable_adapter():
        assert not torch.allclose(logits(loaded), own, rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(kept).chat_template
    for folder in (merged, kept):
        assert {file.suffix for file in folder.iterdir()} <= {
            ".json",
            ".safetensors",
            ".md",
            ".jinja",
        }
    assert (
        yaml.safe_load((kept / "README.md").read_text().split("---")[1])["library_name"] == "peft"
    )


@pytest.mark.slow
def test_dtype_shards_and_the_chosen_checkpoint(adapted: Path, tmp_path: Path) -> None:
    last = exported(adapted, tmp_path / "a", max_shard_size="10KB", dtype="bfloat16")
    assert len(list(last.glob("*.safetensors"))) > 1
    assert json.loads((last / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = AutoModelForCausalLM.from_pretrained(last, dtype="auto")
    expected = load_file(adapted / "model" / "model.safetensors")
    found = loaded.state_dict()
    assert all(torch.equal(found[key], expected[key].bfloat16()) for key in expected)

    steps = {
        int(re.fullmatch(r"step-(\d+).ckpt", path.name)[1])
        for path in (adapted / "checkpoints").iterdir()
    }
    best, newest = min(steps), max(steps)
    assert best < newest
    one = exported(adapted, tmp_path / "b", checkpoint="best")
    two = exported(adapted, tmp_path / "c", checkpoint=best)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert f"after step {best}" in (one / "README.md").read_text()
    assert f"**These weights are of step {best}**" in (one / "README.md").read_text()
    with pytest.raises(UserError, match=rf"export.checkpoint=77: .*but after {best}, {newest}"):
        exported(adapted, tmp_path / "d", checkpoint=77)
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_the_card_tells_what_stands_in_the_run_and_nothing_of_the_machine(
    adapted: Path, tmp_path: Path
) -> None:
    folder = exported(adapted, tmp_path / "out", license="apache-2.0")
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "transformers"
    assert front["license"] == "apache-2.0"
    assert {"dpo", "plot", "plot_exp"} <= set(front["tags"])
    assert "base_model" not in front, "the tiny base is on no hub"
    data = json.loads((adapted / "data.json").read_text())
    assert f"{data['train']} examples stood ready for training, of which 32 were trained on" in text
    for section in ("How to load it", "Objective", "Data", "Results", "Limits", "Provenance"):
        assert f"\n## {section}\n" in text
    assert "PLOT** is a reconstruction" in text
    for file in folder.iterdir():
        assert str(adapted.parent).encode() not in file.read_bytes(), file.name


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["merge", "keep"])
def test_the_card_names_the_precision_of_the_file(
    adapted: Path, tmp_path: Path, adapter: str
) -> None:
    """An adapter beside weights of half precision is kept in fp32."""
    settings = yaml.safe_load((adapted / "config.yaml").read_text())
    settings["model"]["dtype"] = "bfloat16"
    run = tmp_path / "run"
    shutil.copytree(adapted, run)
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    folder = tmp_path / "out"
    config = asked(adapted, path=str(folder), adapter=adapter)
    export.run(config.model_copy(update={"run": str(run)}), folder)
    name = "adapter_model.safetensors" if adapter == "keep" else "model.safetensors"
    stored = {str(one.dtype) for one in load_file(folder / name).values()}
    expected = "float32" if adapter == "keep" else "bfloat16"
    assert stored == {f"torch.{expected}"}
    assert f"in {expected}." in (folder / "README.md").read_text()


@pytest.mark.slow
def test_an_existing_folder_is_replaced_on_request_alone(adapted: Path, tmp_path: Path) -> None:
    target = exported(adapted, tmp_path / "out")
    (target / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"export\.overwrite=true"):
        exported(adapted, target)
    assert (target / "mine.txt").exists()
    exported(adapted, target, overwrite=True)
    assert not (target / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    home = tmp_path / "home"
    home.mkdir()
    (home / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match="is no exported model"):
        exported(adapted, home, overwrite=True)
    assert (home / "letters.txt").exists()


@pytest.mark.slow
def test_what_cannot_be_exported_says_so(adapted: Path, tmp_path: Path) -> None:
    run = shutil.copytree(adapted, tmp_path / "run", ignore=shutil.ignore_patterns("outputs"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["lora"]["rank"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="trained every weight"):
        export.run(asked(run, adapter="keep"), tmp_path)
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        export.run(asked(run), tmp_path)
    # Neither is another format taken for a checkpoint.
    save_file({"a": torch.zeros(1)}, run / "checkpoints" / "step-9.ckpt")
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        export.run(asked(run), tmp_path)
    assert not (run / "export").exists()
