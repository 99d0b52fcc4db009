"""The example of docs/transport.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from plot_exp.ot import costs

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "transport.md"


def test_the_documented_cost_works(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setattr(costs, "TRANSFORMS", dict(costs.TRANSFORMS))
    monkeypatch.setattr(costs, "SHAPES", dict(costs.SHAPES))
    names: dict[str, object] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    cost = names["cost"]
    assert isinstance(cost, costs.Cost)
    found = cost.tokens(torch.arange(50), torch.arange(50))
    points = cost.points
    straight = torch.cdist(points, points).clamp_max(0.5 * cost.typical) * cost.factor
    torch.testing.assert_close(found, straight, rtol=1e-3, atol=2e-3)
    assert int(torch.linalg.matrix_rank(points, rtol=1e-4)) == 5
    assert cost.metric
