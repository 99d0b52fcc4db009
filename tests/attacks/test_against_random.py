"""Each white-box attack is worth its gradients: far below random search at equal cost."""

from __future__ import annotations

import pytest

from plot_exp.attacks.base import Attack
from plot_exp.attacks.finish import random_slots
from plot_exp.attacks.gbda import GBDA
from plot_exp.attacks.gcg import GCG
from plot_exp.attacks.model import AttackedModel, SlotLosses
from plot_exp.attacks.pez import PEZ
from plot_exp.attacks.uat import UAT
from plot_exp.config.attacks import INITIAL, GBDAConfig, GCGConfig, PEZConfig, UATConfig
from plot_exp.data.behaviours import demo
from plot_exp.data.tally import Tally

TEN = "! " * 10
# A backward pass costs about two forward ones.
BACKWARD = 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcg", "uat", "pez", "gbda"])
def test_an_attack_falls_far_below_random_search_at_the_same_cost(
    trained: AttackedModel, name: str
) -> None:
    attacks: dict[str, Attack] = {
        "gcg": GCG(
            trained,
            GCGConfig(steps=20, width=64, top_k=64, initial=TEN, stop_loss=-1.0),
            0,
            lambda text, tokens: "",
        ),
        "uat": UAT(trained, UATConfig(steps=8, initial=TEN)),
        "pez": PEZ(trained, PEZConfig(cases=4, steps=120, tokens=10), 0),
        "gbda": GBDA(trained, GBDAConfig(cases=4, steps=120, tokens=10), 0),
    }
    gains = []
    for behaviour in demo(Tally("demo"))[:3]:
        cases = attacks[name].attack(behaviour)
        cost = sum(case.evaluations + BACKWARD * case.gradients for case in cases)
        prompt = trained.prompt(behaviour, INITIAL)
        rows = random_slots(trained, prompt, cost, 10, seed=1)
        losses = SlotLosses(trained, prompt).of_ids(rows)
        found = min(case.best.loss for case in cases if case.best.loss is not None)
        # In units of what luck is worth: from the middle of random prompts to the best of them.
        worth = float(losses.median() - losses.min())
        gains.append((float(losses.min()) - found) / worth)
    assert min(gains) > 0
    assert sum(gains) / len(gains) > 0.3, gains
