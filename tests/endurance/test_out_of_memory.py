"""A step for which memory ran out is the same step, taken in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from endurance_runs import Run, assert_same_weights
from plot_exp.errors import PausedError
from plot_exp.training import out_of_memory
from plot_exp.training.out_of_memory import memory_explained

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB."
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: not enough memory"


class Short(Run):
    """A run whose policy has memory for so many examples a pass, from step `begin` on.

    Args:
        last: the pass of a step that fails, so that terms have been evaluated before; 0 for any.
    """

    def __init__(
        self,
        folder: Path,
        *,
        room: int,
        begin: int = 2,
        last: int = 0,
        error: Callable[[], Exception] = lambda: torch.OutOfMemoryError(CUDA),
        **arguments: Any,
    ) -> None:
        super().__init__(folder, **arguments)
        self.passes: list[tuple[int, int]] = []
        plain = self.policy.forward

        def forward(batch: Any, *args: Any, **kwargs: Any) -> Any:
            step = self.module.completed_steps + 1
            self.passes.append((step, len(batch.sources)))
            number = sum(one == step for one, _ in self.passes)
            if step >= begin and number >= last and len(batch.sources) > room:
                raise error()
            return plain(batch, *args, **kwargs)

        self.policy.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("loss", ["dpo", "aot", "dpo+plot", "kto"])
def test_smaller_microbatches_give_the_same_run(
    loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Run(tmp_path / "whole", loss=loss, steps=4).fit()
    short = Short(tmp_path / "short", loss=loss, steps=4, room=1).fit()
    assert short.module.completed_steps == 4
    for step, value in whole.losses().items():
        assert short.losses()[step] == pytest.approx(value, rel=1e-9)
    assert_same_weights(whole, short, tolerance=1e-8)
    said = capsys.readouterr().err
    assert said.count("memory ran out") == 1
    assert "step 2: memory ran out (CUDA out of memory" in said
    assert "1 examples a microbatch (trainer.microbatch_size)" in said
    # The smaller size is kept: nothing larger is tried again.
    assert {size for step, size in short.passes if step > 2} == {1}


def test_a_failure_after_the_terms_were_evaluated_leaves_no_trace(tmp_path: Path) -> None:
    """PLOT evaluates between the two passes of an exact step; the third pass fails here."""
    whole = Run(tmp_path / "whole", steps=3).fit()
    short = Short(
        tmp_path / "short", steps=3, room=1, begin=2, last=3, error=lambda: RuntimeError(CPU)
    ).fit()
    assert_same_weights(whole, short, tolerance=1e-8)
    for step, value in whole.losses().items():
        assert short.losses()[step] == pytest.approx(value, rel=1e-9)


def test_logits_are_halved_before_the_microbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 61 tokens, ten positions' logits are the least that is thought worth halving."""
    monkeypatch.setattr(out_of_memory, "SMALL_BYTES", 10 * 61 * 4)
    whole = Run(tmp_path / "whole", steps=3).fit()
    short = Run(tmp_path / "short", steps=3)
    plain = short.policy.forward

    def forward(batch: Any, *args: Any, **kwargs: Any) -> Any:
        if short.policy.head.chunk == "auto" or short.policy.head.chunk > 12:
            raise torch.OutOfMemoryError(CUDA)
        return plain(batch, *args, **kwargs)

    short.policy.forward = forward  # type: ignore[method-assign]
    short.fit()
    (reference,) = short.module._reference
    assert isinstance(short.policy.head.chunk, int)
    assert 5 <= short.policy.head.chunk <= 12
    assert reference is not None
    assert reference.head.chunk == short.policy.head.chunk  # type: ignore[attr-defined]
    assert short.module.smaller.examples is None
    assert "positions at a time (trainer.head_chunk=" in capsys.readouterr().err
    assert_same_weights(whole, short, tolerance=1e-8)


def test_the_smallest_pieces_end_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    short = Short(tmp_path / "run", room=0, begin=3, checkpoint_every=100)
    with pytest.raises(PausedError, match=r"step 3: .*a checkpoint of step 2 is saved.*task=plan"):
        short.fit()
    assert short.saved() == [2]
    rest = Run(tmp_path / "run").fit()
    assert sorted(rest.losses()) == [3, 4, 5, 6]
    assert_same_weights(Run(tmp_path / "whole").fit(), rest)


def test_a_term_that_means_another_thing_in_smaller_microbatches_is_not_cut(
    tmp_path: Path,
) -> None:
    short = Short(tmp_path, room=1, coupling="microbatch")
    with pytest.raises(PausedError, match="in the smallest pieces too"):
        short.fit()
    assert {size for _, size in short.passes} == {2}


def test_other_errors_pass(tmp_path: Path) -> None:
    short = Short(tmp_path, room=1, error=lambda: RuntimeError("mat1 and mat2 shapes"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        short.fit()


def test_memory_that_no_smaller_step_gives_back_is_explained() -> None:
    with pytest.raises(PausedError, match="validation_batch_size"), memory_explained():
        raise torch.OutOfMemoryError(CUDA)
    with pytest.raises(RuntimeError, match="shapes"), memory_explained():
        raise RuntimeError("shapes")
