"""Bytes of small programs against hand arithmetic."""

from __future__ import annotations

import torch
from torch import nn

from plot_exp.planner.ledger import Ledger, rehearsing

FLOAT = 4


def test_a_linear_layers_bytes_by_hand() -> None:
    ledger = Ledger()
    with rehearsing(ledger):
        with ledger.booking("weights"):
            layer = nn.Linear(1_000, 3_000, bias=False)
        ledger.enter("forward", "activations")
        given = torch.zeros(7, 1_000)
        found = layer(given)
        assert ledger.live["weights"] == 3_000 * 1_000 * FLOAT
        assert ledger.live["activations"] == 7 * (1_000 + 3_000) * FLOAT
        ledger.enter("backward", "backward")
        found.sum().backward()
        # Flops of the product forth, and of that for the weight's gradient.
        assert ledger.flops["forward"] == ledger.flops["backward"] == 2 * 7 * 1_000 * 3_000
        del found, given
    assert ledger.live["backward"] == 3_000 * 1_000 * FLOAT
    assert ledger.peaks["backward"]["weights"] == 3_000 * 1_000 * FLOAT


def test_views_count_once_and_what_is_let_go_leaves() -> None:
    ledger = Ledger()
    with rehearsing(ledger):
        ledger.enter("work", "here")
        kept = torch.zeros(1_000)
        view = kept.view(10, 100)[2:]
        assert ledger.live["here"] == 1_000 * FLOAT
        passing = torch.zeros(5_000)
        del passing, kept
        assert ledger.live["here"] == 1_000 * FLOAT
        del view
        assert ledger.live["here"] == 0
    assert ledger.peaks["work"]["here"] == 6_000 * FLOAT


def test_autocasts_copies_of_weights_are_told_apart() -> None:
    ledger = Ledger()
    with rehearsing(ledger):
        with ledger.booking("weights"):
            layer = nn.Linear(512, 256, bias=False)
        ledger.enter("forward", "activations")
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.zeros(3, 512))
            assert ledger.live["autocast copies"] == 512 * 256 * 2
        assert ledger.live["autocast copies"] == 0


def test_what_a_batch_says_of_itself_is_computed() -> None:
    with rehearsing(Ledger()):
        lengths = torch.tensor([3, 4])
        assert int(lengths.sum()) == 7
        rows = torch.zeros(10, 8)[torch.arange(int(lengths.sum()))]
        assert rows.shape == (7, 8)
