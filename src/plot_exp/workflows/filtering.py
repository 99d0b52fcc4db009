"""DEFT's data filter: the training examples that the distribution reward singles out."""

from __future__ import annotations

import torch

from plot_exp.config.losses import DEFTConfig
from plot_exp.config.schema import Config
from plot_exp.data.filtering import kept_indices
from plot_exp.losses.context import Context
from plot_exp.losses.deft import distribution_reward, signed_difference
from plot_exp.losses.distribution import sides
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request, Side
from plot_exp.progress import Bar
from plot_exp.workflows.prepare import Prepared


def filter_training(
    config: Config, prepared: Prepared, reference: Reference, context: Context, bar: Bar
) -> None:
    """Leaves in `prepared.train` what `loss.deft.filter` keeps, and counts the rest as dropped.

    Q_diff and everything else of the context stay those of all the training examples.
    """
    section = config.loss.get("deft")
    if not isinstance(section, DEFTConfig) or section.filter == 1:
        return
    rewards = example_rewards(config, section, prepared, reference, context, bar)
    kept = set(kept_indices(rewards, section.filter, section.filter_keeps))
    reason = f"not among the {section.filter:.3g} of {section.filter_keeps} reward"
    by_name = {tally.dataset: tally for tally in prepared.tallies}
    for index, item in enumerate(prepared.train):
        if index not in kept:
            tally = by_name.get(item.example.dataset, prepared.tallies[0])
            tally.keep("train", -1)
            tally.drop(f"{reason} (loss.deft.filter)", item.example.origin)
    prepared.train = [prepared.train[index] for index in sorted(kept)]
    prepared.facts["tallies"] = [tally.as_dict() for tally in prepared.tallies]
    prepared.facts["train"] = len(kept)
    prepared.facts["without_pairs"] = sum(item.example.kind != "ranked" for item in prepared.train)


@torch.no_grad()
def example_rewards(
    config: Config,
    section: DEFTConfig,
    prepared: Prepared,
    reference: Reference,
    context: Context,
    bar: Bar,
) -> list[float]:
    """R of each training example's chosen responses under the reference, in their order.

    It is the mean over them; where there is none (an undesirable response alone), over the
    rejected ones. The floor of the loss does not apply: nothing is optimised here.
    """
    signed = signed_difference(section, context).to(reference.device)
    request = Request(frozenset((side, "log_response") for side in sides("both")))
    batches = list(prepared.batches(prepared.train, config.eval.batch_size))
    found: dict[int, float] = {}
    for batch in bar(batches, "filtering by reward", len(batches)):
        batch = batch.to(reference.device)
        scores, responses = reference(batch, request), batch.responses
        reward = torch.zeros(len(responses.length), dtype=torch.float64, device=reference.device)
        masks: dict[Side, torch.Tensor] = {
            "chosen": responses.chosen,
            "rejected": responses.rejected,
        }
        for side, mask in masks.items():
            total = scores.distributions[(side, "log_response")].double()
            reward[mask] = distribution_reward(total / responses.length[mask, None], signed)
        for place, item in enumerate(batch.sources):
            own = responses.example == place
            preferred = own & responses.chosen
            found[id(item)] = float(reward[preferred if bool(preferred.any()) else own].mean())
    return [found[id(item)] for item in prepared.train]
