"""The command as it is typed: exit codes, messages, folders, and what is imported when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from plot_exp import __version__
from plot_exp.__main__ import main
from plot_exp.config.composition import composed, opened
from plot_exp.config.schema import Config, load
from plot_exp.errors import RunError, UserError
from plot_exp.sweep import point

HEAVY = ("torch", "transformers", "lightning", "datasets", "wandb", "matplotlib", "pandas")
Workflow = Callable[[Config, Path], dict[str, float]]


def _save(config: Config, run_dir: Path) -> None:
    OmegaConf.save(OmegaConf.create(config.plain()), run_dir / "config.yaml")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Config, Path]]:
    """An empty folder to work in, and every call of a workflow that stands in for training."""
    calls: list[tuple[Config, Path]] = []

    def train(config: Config, run_dir: Path) -> dict[str, float]:
        calls.append((config, run_dir))
        _save(config, run_dir)
        (run_dir / "metrics.json").write_text(json.dumps({"seed": config.seed}))
        return {"seed": config.seed}

    _install(monkeypatch, train)
    monkeypatch.chdir(tmp_path)
    return calls


def _install(monkeypatch: pytest.MonkeyPatch, workflow: Workflow) -> None:
    module = types.ModuleType("plot_exp.workflows.train")
    module.run = workflow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plot_exp.workflows.train", module)


def test_a_named_sweep_takes_several_values_without_the_flag(
    runs: list[tuple[Config, Path]], tmp_path: Path
) -> None:
    assert main(["sweep=alpha", "seed=3,4"]) == 0
    assert {config.seed for config, _ in runs} == {3, 4}


def test_what_is_chosen_twice_is_refused(
    runs: list[tuple[Config, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep=alpha", "sweep=main"]) == 2
    assert "only one can be chosen" in capsys.readouterr().err
    assert main(["loss=dpo", "seed=1", "loss=sft"]) == 2
    assert "-m with loss=dpo,sft runs both" in capsys.readouterr().err
    assert main(["loss=dpo", "loss=dpo"]) == 0
    assert len(runs) == 1


def test_a_run_gets_its_own_folder(runs: list[tuple[Config, Path]], tmp_path: Path) -> None:
    assert main(["loss=sft+plot", "name=mine"]) == 0
    assert main(["loss=sft+plot", "name=mine"]) == 0
    (config, first), (_, second) = runs
    assert list(config.loss) == ["sft", "plot"]
    assert first != second
    assert first.parent == second.parent == tmp_path / "outputs/mine"
    assert sorted(file.name for file in first.iterdir()) == ["config.yaml", "metrics.json"]
    assert load(first / "config.yaml") == config


def test_a_mistake_leaves_nothing_behind(
    runs: list[tuple[Config, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["los=dpo"], ["--wrong-flag"], ["-m", "seed=0,-1"], ["dataset.path=/nope"]):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
    assert runs == []
    assert list(tmp_path.iterdir()) == []


def test_resume_goes_on_with_the_runs_own_settings(
    runs: list[tuple[Config, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["seed=3", "hydra.run.dir=here"])
    assert main(["resume=here"]) == 0
    config, run_dir = runs[-1]
    assert (config.seed, run_dir) == (3, Path("here").absolute())
    assert config.resume == str(run_dir)
    for arguments, message in (
        (["resume=here", "seed=1"], "leave out: seed=1"),
        (["resume=/nope"], "no such directory"),
        (["resume=."], "no config.yaml"),
        (["+resume=."], "no config.yaml"),
        (["-m", "resume=here", "seed=1,2"], "leave -m out"),
        (["hydra.run.dir=here"], "holds a run already"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("row 3 has no 'chosen'"), 2, "error: row 3 has no 'chosen'\n"),
        (RunError("the disk is full"), 1, "error: the disk is full\n"),
    ],
)
def test_an_expected_failure_is_one_line_and_an_empty_folder_goes(
    runs: list[tuple[Config, Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: Exception,
    code: int,
    message: str,
) -> None:
    def fail(config: Config, run_dir: Path) -> dict[str, float]:
        raise error

    _install(monkeypatch, fail)
    assert main([]) == code
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_failure_keeps_its_trace_in_the_run(
    runs: list[tuple[Config, Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(config: Config, run_dir: Path) -> dict[str, float]:
        raise ZeroDivisionError("by nothing")

    _install(monkeypatch, fail)
    assert main(["hydra.run.dir=here"]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: by nothing" in shown
    assert "Traceback" not in shown
    assert "in fail" in Path("here/error.log").read_text()
    monkeypatch.setenv("PLOT_EXP_TRACEBACK", "1")
    assert main(["hydra.run.dir=there"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(
    runs: list[tuple[Config, Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(config: Config, run_dir: Path) -> dict[str, float]:
        _save(config, run_dir)
        raise KeyboardInterrupt

    _install(monkeypatch, stop)
    assert main(["hydra.run.dir=here"]) == 130
    assert f"resume={Path('here').absolute()}" in capsys.readouterr().err
    assert main(["-m", "seed=0,1"]) == 130
    assert "same command again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_fills_in_what_is_missing(
    runs: list[tuple[Config, Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    command = ["-m", "loss=dpo,dpo+plot", "seed=0,1", "name=s"]

    def sometimes(config: Config, run_dir: Path) -> dict[str, float]:
        _save(config, run_dir)
        if config.seed == 1 and "plot" in config.loss:
            raise RunError("the machine stopped")
        (run_dir / "metrics.json").write_text("{}")
        return {}

    stand_in = sys.modules["plot_exp.workflows.train"]
    _install(monkeypatch, sometimes)
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert shown.count("  done ") == 3
    assert "failed  loss=dpo+plot seed=1: the machine stopped" in shown
    folders = {path.name for path in (tmp_path / "outputs/sweeps/s").iterdir() if path.is_dir()}
    assert folders == {
        f"loss={loss},seed={seed}" for loss in ("dpo", "dpo+plot") for seed in (0, 1)
    }

    monkeypatch.setitem(sys.modules, "plot_exp.workflows.train", stand_in)
    assert main(command) == 0
    assert capsys.readouterr().out.count("  skipped ") == 3
    ((config, run_dir),) = runs
    assert run_dir.name == "loss=dpo+plot,seed=1"
    assert config.resume == str(run_dir)

    assert main([*command, "trainer.max_steps=7"]) == 0
    assert len(runs) == 5
    OmegaConf.update(node := OmegaConf.load(run_dir / "config.yaml"), "optimizer.lr", 1.0)
    OmegaConf.save(node, run_dir / "config.yaml")
    assert main(command) == 2
    assert "optimizer.lr: 1.0 then, " in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_named(
    runs: list[tuple[Config, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments in (["hydra.run.dir=file/run"], ["-m", "seed=0,1", "output_dir=file"]):
        assert main(arguments) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert runs == []


def _typed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(__file__).resolve().parents[1] / "src")
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "plot_exp", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.mark.parametrize("argument", ["--help", "loss=dpo+plto", "trainer.max_steps=0", "seed=0,1"])
def test_a_mistake_and_help_leave_nothing_behind(argument: str, tmp_path: Path) -> None:
    done = _typed(argument, cwd=tmp_path)
    assert done.returncode == (0 if argument == "--help" else 2)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["dataset.path=/nope"], ["--cfg", "job"]])
def test_nothing_heavy_is_imported_before_a_run_begins(arguments: list[str]) -> None:
    code = (
        f"import sys; from plot_exp.__main__ import main; main({arguments!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    source = str(Path(__file__).resolve().parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_group_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    from plot_exp.config.choices import groups

    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for group, options in groups().items():
        section = shown.split(f"\n  {group}")[1].split("\n\n")[0]
        assert [option for option in options if f"\n    {option} " not in section] == []


def test_hydras_own_flags_still_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--cfg", "job", "loss=sft+plot", "--package", "loss"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert list(shown) == ["sft", "plot"]
    assert main(["--cfg", "job", "los=sft"]) == 2
    assert main(["--info", "searchpath"]) == 0
    assert main(["--hydra-help"]) == 0
    with pytest.raises(SystemExit):
        main(["--version"])
    assert __version__ in capsys.readouterr().out


WORKER = """
import pathlib, pickle, sys, types
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext

sources = types.ModuleType("plot_exp.data.sources")
sources.check = lambda dataset: None
sys.modules[sources.__name__] = sources
train = types.ModuleType("plot_exp.workflows.train")
train.run = lambda config, run_dir: {"terms": len(config.loss)}
sys.modules[train.__name__] = train
state, loader, callbacks, task, master, overrides = pickle.loads(pathlib.Path("job").read_bytes())
setup_globals()
Singleton.set_state(state)
config = loader.load_sweep_config(master, overrides)
config.hydra.job.num = 0
job = run_job(
    hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
    task_function=task,
    config=config,
    job_dir_key="hydra.sweep.dir",
    job_subdir_key="hydra.sweep.subdir",
)
print(job.return_value.status, job.return_value.metrics, job.return_value.run_dir.name)
"""


def test_a_launchers_worker_process_composes_joined_terms(tmp_path: Path) -> None:
    """What process-based launchers do: ship Hydra's state and the task, compose over there."""
    with opened() as hydra:
        overrides = ["loss=dpo,sft+plot", "hydra.mode=MULTIRUN"]
        master = composed(hydra, overrides, multirun=True)
        job = (
            Singleton.get_state(),
            hydra.config_loader,
            Callbacks(master),
            point,
            master,
            ["loss=sft+plot"],
        )
        cloudpickle = pytest.importorskip("cloudpickle", reason="launchers bring it along")
        (tmp_path / "job").write_bytes(cloudpickle.dumps(job))
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")},
        check=False,
    )  # fmt: skip
    assert "done {'terms': 2} loss=sft+plot" in done.stdout, done.stderr
