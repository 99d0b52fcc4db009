"""What is not used is not imported: help and mistakes are answered at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = {"torch", "transformers", "lightning", "datasets", "wandb", "peft", "trl", "matplotlib"}
ASK = """
import json, sys
from plot_exp.__main__ import main
code = main({arguments})
print(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def python(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], 0),
        (["trainer.max_stps=3"], 2),
        (["model=hf", "model.name=/no/where"], 2),
        (["loss=dpo", "reference_form=adapter_off"], 2),
        (["dataset=jsonl"], 2),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(arguments: list[str], expected: int) -> None:
    code, modules = json.loads(python(ASK.format(arguments=arguments)))
    assert code == expected
    assert not HEAVY & set(modules)


def test_help_is_there_within_two_seconds() -> None:
    """The best of three, since other processes may share the machine."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        python(ASK.format(arguments=["--help"]))
        taken.append(time.perf_counter() - started)
    assert min(taken) < 2, taken


@pytest.mark.slow
def test_training_imports_neither_loggers_nor_adapters_nor_peers() -> None:
    """Lightning brings matplotlib by itself; our own pictures are drawn at the report."""
    program = (
        "import json, sys, plot_exp.workflows.train; "
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    modules = set(json.loads(python(program)))
    assert "torch" in modules
    assert not {"wandb", "peft", "trl", "datasets", "ot", "math_verify"} & modules
