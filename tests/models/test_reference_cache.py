"""The file of reference scores: complete or refused, whatever happens to who writes it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from plot_exp.data.collate import Batch
from plot_exp.data.loader import evaluation_batches
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.models.policy import Policy
from plot_exp.models.reference_cache import ReferenceCache, response_keys
from plot_exp.ops.scores import Request, Scores
from plot_exp.progress import silent

from scoring_models import example, tiny_model

EXAMPLES = [
    example([3 + place % 11, 4], [[5 + place % 50, 2], [7, 8 + place % 31, 9, 2]])
    for place in range(150)
]


def laid_out(items: Sequence[TokenisedExample]) -> Iterable[Batch]:
    return evaluation_batches(items, 4, 0)


class Scorer:
    """A model, and how many batches it was asked for."""

    def __init__(self) -> None:
        self.policy = Policy(tiny_model("llama").eval())
        self.batches = 0

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Scores:
        self.batches += 1
        return self.policy(batch, Request())


def quiet(_: str) -> None: ...


def filled(folder: Path, items: Sequence[TokenisedExample] = EXAMPLES, known: str = "model") -> int:
    """Fills the file where it is missing; how many batches that took."""
    scorer = Scorer()
    ReferenceCache(folder, known, items).fill(laid_out, scorer, silent, quiet)
    return scorer.batches


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_what_is_read_is_what_the_model_says(tmp_path: Path) -> None:
    scorer = Scorer()
    stored = ReferenceCache(tmp_path, "model", EXAMPLES).fill(laid_out, scorer, silent, quiet)
    for item in EXAMPLES[:7]:
        live = scorer(next(iter(laid_out([item])))).token_logps
        rows = stored.rows(response_keys(item))
        assert rows is not None
        assert [len(row) for row in rows] == [2, 4]
        assert rows[0].dtype == torch.float32
        torch.testing.assert_close(torch.cat(rows), live, rtol=1e-5, atol=1e-5)
    assert stored.rows(response_keys(example([3, 4], [[60, 2]]))) is None


def test_a_second_run_computes_nothing_and_the_order_of_examples_does_not_matter(
    tmp_path: Path,
) -> None:
    assert filled(tmp_path) > 0
    content = only_file(tmp_path).read_bytes()
    assert filled(tmp_path, EXAMPLES[::-1]) == 0
    assert only_file(tmp_path).read_bytes() == content


FIRST = EXAMPLES[0]
OTHERS = {
    "other weights": ("another model", EXAMPLES),
    "one example more": ("model", [*EXAMPLES, example([9], [[9, 2]])]),
    "one example less": ("model", EXAMPLES[:-1]),
    "another prompt": ("model", [example([60, 4], [[5, 2], [7, 8, 9, 2]]), *EXAMPLES[1:]]),
    "another response": ("model", [example([3, 4], [[5, 2], [7, 8, 60, 2]]), *EXAMPLES[1:]]),
    # The same ids, cut elsewhere into prompt and response: other tokens are scored.
    "another mask": ("model", [example([3], [[4, 5, 2], [4, 7, 8, 9, 2]]), *EXAMPLES[1:]]),
    "a prompt cut shorter": ("model", [example([4], [[5, 2], [7, 8, 9, 2]]), *EXAMPLES[1:]]),
}


@pytest.mark.parametrize("change", OTHERS)
def test_whatever_changes_the_numbers_misses(tmp_path: Path, change: str) -> None:
    known, items = OTHERS[change]
    ReferenceCache(tmp_path, "model", EXAMPLES).fill(laid_out, Scorer(), silent, quiet)
    assert ReferenceCache(tmp_path, "model", EXAMPLES).open() is not None
    assert ReferenceCache(tmp_path, known, items).open() is None


@pytest.mark.parametrize("place", ["header", "keys", "logps", "end", "empty", "other"])
def test_a_damaged_file_is_recognised_and_computed_again(tmp_path: Path, place: str) -> None:
    filled(tmp_path)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    at = {"header": 12, "keys": header + 5, "logps": len(whole) - 9}.get(place)
    if at is not None:
        broken = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    else:
        broken = {"end": whole[:-4], "empty": b"", "other": b"\xff" * 64}[place]
    path.write_bytes(broken)
    said: list[str] = []

    assert ReferenceCache(tmp_path, "model", EXAMPLES).open() is None
    ReferenceCache(tmp_path, "model", EXAMPLES).fill(laid_out, Scorer(), silent, said.append)

    assert "is damaged; it is computed again" in said[0]
    assert path.read_bytes() == whole


def test_a_file_of_another_set_put_in_its_place_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "one", EXAMPLES[:40])
    filled(tmp_path / "other")
    only_file(tmp_path / "one").write_bytes(only_file(tmp_path / "other").read_bytes())
    assert ReferenceCache(tmp_path / "one", "model", EXAMPLES[:40]).open() is None


def test_a_failing_filling_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """38 batches are three parts of up to 16; the third fails when the first two are whole."""
    all_at_once = filled(tmp_path / "whole")
    scorer = Scorer()

    def fails(batch: Batch) -> Scores:
        if scorer.batches == 35:
            raise RuntimeError("out of memory")
        return scorer(batch)

    cache = ReferenceCache(tmp_path / "parts", "model", EXAMPLES)
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.fill(laid_out, fails, silent, quiet)
    assert cache.open() is None

    assert filled(tmp_path / "parts") == all_at_once - 32
    one, other = only_file(tmp_path / "whole"), only_file(tmp_path / "parts")
    assert one.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "parts").glob("*.parts"))


def fill_slowly(folder: Path, pause: float, log: Path) -> None:
    """A line in the log for every batch that was computed, and `done`."""
    scorer = Scorer()

    def score(batch: Batch) -> Scores:
        with log.open("a") as lines:
            lines.write("batch\n")
        time.sleep(pause)
        return scorer(batch)

    ReferenceCache(folder, "model", EXAMPLES).fill(laid_out, score, silent, quiet)
    with log.open("a") as lines:
        lines.write("done\n")


def start(folder: Path, pause: float, log: str) -> BaseProcess:
    """Another process, forked: it has everything imported."""
    process = get_context("fork").Process(target=fill_slowly, args=(folder, pause, folder / log))
    process.start()
    return process


@pytest.mark.slow
def test_killed_at_random_moments_it_is_absent_or_whole_and_ends_the_same(tmp_path: Path) -> None:
    filled(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    cache = ReferenceCache(folder, "model", EXAMPLES)
    kills = 0
    for turn in range(12):
        process = start(folder, 0.04, f"log{turn}")
        time.sleep(random.Random(turn).uniform(0.0, 1.0))
        kills += process.is_alive()
        process.kill()
        process.join()
        if (found := cache.open()) is not None:
            assert len(found) == len({key for item in EXAMPLES for key in response_keys(item)})
    assert kills >= 2

    filled(folder)

    assert only_file(folder).read_bytes() == only_file(tmp_path / "whole").read_bytes()
    assert not [path for path in folder.iterdir() if path.name.endswith((".part", ".parts"))]


@pytest.mark.slow
def test_of_two_that_fill_at_once_one_computes_and_both_read(tmp_path: Path) -> None:
    alone = filled(tmp_path / "whole")
    folder = tmp_path / "shared"
    folder.mkdir()
    processes = [start(folder, 0.01, name) for name in ("one", "other")]
    for process in processes:
        process.join(timeout=240)
        assert process.exitcode == 0
    computed = sum((folder / name).read_text().count("batch") for name in ("one", "other"))
    assert computed == alone
    assert all("done" in (folder / name).read_text() for name in ("one", "other"))
    assert only_file(folder).read_bytes() == only_file(tmp_path / "whole").read_bytes()


def test_no_prompt_is_taken_for_another_that_begins_like_it() -> None:
    # Behind a prompt of one token stands a one; both read 7 1 2 5 where lengths come last.
    assert response_keys(example([7, 1], [[5]])) != response_keys(example([7], [[2, 5]]))
