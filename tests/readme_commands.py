"""Runs every command of README.md in its quick form: python tests/readme_commands.py [README].

Commands are the lines of fenced `sh` blocks. `experiment=quick` is added, and what stands for a
reader's own file is replaced: `path/to/X` by the published data under `PLOT_EXP_DATA`, `RUN_DIR`
by the run that an earlier command left. A command that needs the hub is composed, not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FROM_THE_HUB = ("model=llama3b", "model=llama8b", "model=qwen7b")
LIMIT_SECONDS = 900


class SkippedError(Exception):
    """The command cannot be run here; the message says why."""


def commands(text: str) -> Iterator[list[str]]:
    """The commands of the fenced `sh` blocks, continued lines joined and comments left out."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def quick(words: list[str], outputs: Path) -> list[str]:
    """The command as it is run here.

    Args:
        outputs: where earlier commands left their runs.

    Raises:
        SkippedError: it is no command of ours, or what it needs is not at hand.
    """
    if words[:2] == ["make", "demo"]:
        words = ["python", "-m", "plot_exp"]
    if words[:3] != ["python", "-m", "plot_exp"]:
        raise SkippedError("not a plot_exp command")
    arguments = [_filled(word, outputs) for word in words[3:]]
    if any(word in FROM_THE_HUB for word in arguments):
        return [sys.executable, "-m", "plot_exp", *arguments, "--cfg", "job"]
    alone = {"--help", "--cfg"} & set(arguments) or any(w.startswith("resume=") for w in arguments)
    if not alone and not any(word.startswith("experiment=") for word in arguments):
        arguments.append("experiment=quick")
    return [sys.executable, "-m", "plot_exp", *arguments]


def _filled(word: str, outputs: Path) -> str:
    """A word with its placeholder replaced."""
    if found := re.search(r"path/to/(\S+)", word):
        return word.replace(found.group(), str(_published(found[1].rstrip("/"))))
    if "SWEEP_DIR" in word:
        return word.replace("SWEEP_DIR", str(_latest(outputs / "sweeps", "a sweep")))
    if "RUN_DIR" in word:
        return word.replace("RUN_DIR", str(_latest(outputs / "quick", "a run")))
    if "ID_OR_DIR" in word:
        return word.replace("ID_OR_DIR", str(_latest(outputs / "quick", "a run") / "model"))
    return word


def _published(name: str) -> Path:
    root = os.environ.get("PLOT_EXP_DATA")
    if not root:
        raise SkippedError("PLOT_EXP_DATA is not set")
    for candidate in (Path(root) / name, *sorted(Path(root).glob(f"*/{name}"))):
        if candidate.exists():
            return candidate
    raise SkippedError(f"PLOT_EXP_DATA has no {name}")


def _latest(folder: Path, what: str) -> Path:
    found = [p for p in folder.glob("*") if folder.name == "sweeps" or (p / "model").is_dir()]
    if not found:
        raise SkippedError(f"no earlier command left {what}")
    return max(found, key=lambda path: path.stat().st_mtime)


def run(words: list[str], folder: Path) -> bool:
    """Run one command in `folder` and report it."""
    shown = shlex.join(words)
    try:
        actual = quick(words, folder / "outputs")
    except SkippedError as reason:
        print(f"skipped  {shown}  ({reason})", flush=True)
        return True
    began = time.monotonic()
    try:
        done = subprocess.run(
            actual, cwd=folder, text=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = -1, str(error)
    seconds = time.monotonic() - began
    print(f"{'ok' if code == 0 else 'FAILED':<8} {shown}  ({seconds:.0f} s)", flush=True)
    if code != 0:
        print(f"  as {shlex.join(actual[1:])}, exit code {code}\n{output[-3000:]}", flush=True)
    return code == 0


def main() -> int:
    """Run them all; the exit code is 1 where one failed or none was found."""
    readme = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    found = list(commands(readme.read_text(encoding="utf-8")))
    if not found:
        print(f"{readme} holds no command")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        results = [run(words, Path(folder)) for words in found]
    print(f"{results.count(True)} of {len(results)} README commands passed or were skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
