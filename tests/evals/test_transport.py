"""Mean distributions against a loop over positions; the rows that the report shows."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.data.loader import evaluation_batches
from plot_exp.data.tally import Tally
from plot_exp.data.tokenise import ChatTokeniser, tokenise
from plot_exp.evals.transport import favoured_tokens, mean_distribution, moved_tokens
from plot_exp.models.policy import Policy


@pytest.mark.parametrize(("side", "place"), [("chosen", 0), ("rejected", 1)])
def test_the_mean_over_all_response_positions_of_one_side(saved_model, examples, side, place):
    model = AutoModelForCausalLM.from_pretrained(saved_model).eval()
    tokeniser = ChatTokeniser(AutoTokenizer.from_pretrained(saved_model))
    items = tokenise(examples, tokeniser, 128, Tally("toy"), "validation")
    rows = []
    for item in items:
        ids = torch.tensor([item.prompt_ids + item.response_ids[place]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(item.prompt_ids) - 1 : -1]
        rows.append(logits.double().softmax(-1))
    expected = torch.cat(rows).mean(0)
    found = mean_distribution(Policy(model), evaluation_batches(items, 3, 0), side)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
    assert float(found.sum()) == pytest.approx(1.0)


def test_favoured_and_disfavoured_tokens():
    found = favoured_tokens(
        torch.tensor([0.0, 0.3, -0.5, 0.2]),
        torch.tensor([4, 3, 0, 2]),
        torch.tensor([4, 0, 5, 0]),
        list("abcd"),
    )
    assert [row["token"] for row in found["favoured"]] == ["b", "d"]
    (row,) = found["disfavoured"]
    assert row == {
        "token": "c", "id": 2, "chosen": 0, "rejected": 5, "difference": pytest.approx(-0.5)
    }  # fmt: skip


def test_moved_tokens_come_by_how_far_they_moved():
    before, after = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.45, 0.05, 0.5])
    found = moved_tokens(torch.tensor([0.1, 0.2, 0.7]), before, after, list("abc"))
    assert [row["token"] for row in found] == ["c", "b", "a"]
    assert found[0]["after"] == 0.5
