"""A token's contextual embedding is the mean of its own last hidden states."""

from __future__ import annotations

import pytest
import torch

from plot_exp.data.collate import collate_padded
from plot_exp.models.contextual import contextual_embedding
from plot_exp.models.policy import Policy

from scoring_models import VOCABULARY, example, tiny_model

EXAMPLES = [
    example([5, 6, 7], [[8, 9, 2], [10, 8, 8, 2]]),
    example([11], [[8, 2], [13, 14, 15, 2]]),
]


@pytest.mark.parametrize("sizes", [[2], [1, 1]])
def test_against_one_sequence_at_a_time(sizes: list[int]) -> None:
    """Without padding, position by position; token 8 occurs four times, 5 only in a prompt."""
    model = tiny_model("qwen2").double().eval()
    found: dict[int, list[torch.Tensor]] = {}
    everything = []
    for item in EXAMPLES:
        for ids in item.response_ids:
            row = torch.tensor([[*item.prompt_ids, *ids]])
            hidden = model.get_decoder()(input_ids=row).last_hidden_state[0]
            for place, token in enumerate(ids[:-1], start=len(item.prompt_ids)):
                found.setdefault(token, []).append(hidden[place])
                everything.append(hidden[place])

    items, batches = list(EXAMPLES), []
    for size in sizes:
        batches.append(collate_padded(items[:size], 0))
        items = items[size:]
    embedding = contextual_embedding(Policy(model), batches)

    assert embedding.shape == (VOCABULARY, 16)
    assert len(found[8]) == 4
    for token, states in found.items():
        expected = torch.stack(states).mean(0).float()
        torch.testing.assert_close(embedding[token], expected, rtol=1e-5, atol=1e-6)
    centre = torch.stack(everything).mean(0).float()
    for token in (2, 5, 60):
        torch.testing.assert_close(embedding[token], centre, rtol=1e-5, atol=1e-6)


def test_responses_of_one_token_have_nothing_to_read() -> None:
    batch = collate_padded([example([5], [[2], [2]])], 0)
    with pytest.raises(ValueError, match="contextual"):
        contextual_embedding(Policy(tiny_model("qwen2")), [batch])
