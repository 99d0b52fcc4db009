"""Steps with each form of the reference are the same steps; adapters resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plot_exp.config.model import LoRAConfig
from plot_exp.config.schema import OptimizerConfig, TrainerConfig
from plot_exp.data.loader import StepLoader
from plot_exp.errors import RunError
from plot_exp.losses.base import TermResult
from plot_exp.models.adapters import add_adapter
from plot_exp.models.policy import Policy, frozen_copy
from plot_exp.models.reference import CachedReference, PolicyStart, Reference
from plot_exp.models.reference_cache import ReferenceCache
from plot_exp.module import PreferenceModule
from plot_exp.ops.scores import Request
from plot_exp.progress import silent
from plot_exp.training.passes import seed_device
from plot_exp.workflows.engine import build_trainer
from plot_exp.workflows.strategies import weights_of

from coupling_runs import composite, examples
from scoring_models import tiny_model

DATA = examples(12)
ADAPTER = LoRAConfig(rank=4, dropout=0.2)


def reference_of(form: str, policy: Policy, folder: Path) -> Reference:
    if form == "adapter_off":
        shared = PolicyStart(policy)
        shared.moved = True
        return shared
    copy = frozen_copy(policy)
    if form == "copy":
        return copy
    cache = ReferenceCache(folder / "reference", "model", DATA)
    loader = StepLoader(
        DATA, batch_size=4, microbatch_size=2, epochs=1, max_steps=1, seed=0, pad_id=0
    )

    def batches(items: Any) -> Any:
        return [batch for step in range(3) for batch in loader.microbatches(step)]

    with torch.no_grad():
        stored = cache.fill(batches, lambda batch: copy(batch, Request()), silent)
    return CachedReference([stored], copy.live, torch.device("cpu"))


class Trained:
    """A few steps in fp64, with an adapter or all weights."""

    def __init__(
        self,
        folder: Path,
        *,
        loss: str = "dpo+plot",
        form: str = "copy",
        adapter: LoRAConfig | None = ADAPTER,
        steps: int = 5,
        stop_after: int | None = None,
        checkpoint: Path | None = None,
        infinite: tuple[int, ...] = (),
        ema: float | None = None,
        **trainer: Any,
    ) -> None:
        model = tiny_model("qwen2").double()
        if adapter is not None:
            add_adapter(model, adapter, seed=0)
        policy = Policy(model)
        self.started = [parameter.detach().clone() for parameter in policy.trainable()]
        keep = {"log_every": 3, "log_term_gradients": False, "checkpoint_every": 1} | trainer
        settings = TrainerConfig(max_steps=steps, batch_size=4, microbatch_size=2, **keep)
        reference = reference_of(form, policy, folder)
        if settings.activation_checkpointing:
            policy.checkpoint_activations()
        loader = StepLoader(
            DATA,
            batch_size=4,
            microbatch_size=2,
            epochs=1,
            max_steps=steps,
            seed=0,
            pad_id=0,
            first_step=lambda: self.module.completed_steps,
        )
        self.logged: dict[int, dict[str, float]] = {}
        terms = composite(loss)
        self.module = PreferenceModule(
            policy,
            reference,
            terms,
            trainer_config=settings,
            optimizer_config=OptimizerConfig(
                lr=1e-2, schedule="constant", weight_decay=0.1, ema=ema
            ),
            steps=steps,
            seed=0,
            log=lambda metrics, step: self.logged.setdefault(step, {}).update(metrics),
            validate=self._note_weights,
        )
        self.validated: dict[int, list[torch.Tensor]] = {}
        self._make_infinite(next(iter(terms.terms.values())), infinite)
        policy.train()
        build_trainer(settings, folder, stop_after or steps, []).fit(
            self.module,
            loader,
            ckpt_path=str(checkpoint) if checkpoint else None,
            weights_only=True,
        )

    def _note_weights(self, step: int) -> dict[str, float]:
        self.validated[step] = self.weights()
        return {}

    def _make_infinite(self, term: Any, steps: tuple[int, ...]) -> None:
        plain = term.forward

        def forward(*args: Any) -> TermResult:
            result = plain(*args)
            if self.module.completed_steps + 1 in steps:
                return TermResult(result.loss * torch.inf, result.metrics)
            return result

        term.forward = forward

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.module.policy.trainable()]


def assert_same(one: Trained, other: Trained, tolerance: float = 0.0) -> None:
    for left, right in zip(one.weights(), other.weights(), strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", ["dpo", "aot", "dpo+plot"])
def test_an_adapter_switched_off_trains_as_a_copy_does(tmp_path: Path, loss: str) -> None:
    copy = Trained(tmp_path / "copy", loss=loss)
    assert_same(copy, Trained(tmp_path / "off", loss=loss, form="adapter_off"))
    assert copy.logged[5]["train/reward_margin"] != 0


@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_kept_scores_train_as_a_live_reference_does(
    tmp_path: Path, adapter: LoRAConfig | None
) -> None:
    live = Trained(tmp_path / "live", adapter=adapter)
    kept = Trained(tmp_path / "kept", form="cached", adapter=adapter)
    # Kept scores come from batches of another width; the architecture's norms run in fp32.
    assert_same(live, kept, tolerance=1e-6)


@pytest.mark.parametrize("form", ["copy", "adapter_off"])
def test_running_layers_again_trains_as_keeping_them_does(tmp_path: Path, form: str) -> None:
    plain = Trained(tmp_path / "plain", form=form)
    again = Trained(tmp_path / "again", form=form, activation_checkpointing=True)
    assert_same(plain, again)


@pytest.mark.parametrize("form", ["adapter_off", "cached"])
def test_a_resumed_adapter_ends_with_the_same_bits(tmp_path: Path, form: str) -> None:
    whole = Trained(tmp_path / "whole", form=form, coupling="carried")
    Trained(tmp_path / "part", form=form, stop_after=2, coupling="carried")
    (checkpoint,) = (tmp_path / "part" / "checkpoints").glob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all("lora_" in name for name in saved if name.startswith("policy."))

    rest = Trained(tmp_path / "rest", form=form, checkpoint=checkpoint, coupling="carried")

    assert_same(whole, rest)
    assert [id(one) for one in rest.module.policy.trainable()]


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    Trained(tmp_path / "part", stop_after=2)
    (checkpoint,) = (tmp_path / "part" / "checkpoints").glob("*.ckpt")
    with pytest.raises(RunError, match="does not fit the model"):
        Trained(tmp_path / "rest", adapter=None, checkpoint=checkpoint)


def test_a_step_at_fault_between_log_steps_is_named_and_has_moved_nothing(tmp_path: Path) -> None:
    """Step 4 is infinite, step 6 reads it; the last whole step is the third."""
    broken: list[Trained] = []

    class Kept(Trained):
        def _make_infinite(self, term: Any, steps: tuple[int, ...]) -> None:
            broken.append(self)
            super()._make_infinite(term, steps)

    with pytest.raises(RunError, match=r"step 4: .*loss term dpo = inf.*as before the step"):
        Kept(tmp_path / "broken", steps=7, infinite=(4,), checkpoint_every=100)
    whole = Trained(tmp_path / "whole", steps=7, stop_after=3, checkpoint_every=100)
    assert broken[0].module.completed_steps == 6
    assert_same(whole, broken[0])


def test_no_checkpoint_is_written_behind_a_step_at_fault(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="step 4: "):
        Trained(tmp_path, steps=7, infinite=(4,), log_every=100, checkpoint_every=2)
    assert [path.stem for path in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


def test_steps_left_out_between_log_steps_are_logged_at_their_own(tmp_path: Path) -> None:
    run = Trained(tmp_path, steps=9, infinite=(4, 5), on_nonfinite="skip", checkpoint_every=100)
    assert run.module.skipped_steps == 2
    assert run.logged[4] == {"train/skipped_steps": 1.0}
    assert run.logged[5] == {"train/skipped_steps": 2.0}
    assert all(bool(torch.isfinite(weight).all()) for weight in run.weights())
    assert sorted(run.logged) == [1, 3, 4, 5, 6, 9]


def test_seeding_the_device_seeds_what_is_drawn() -> None:
    seed_device(torch.device("cpu"), 3)
    one = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), one)


@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_the_average_is_what_is_validated_and_left_and_is_resumed(
    tmp_path: Path, adapter: LoRAConfig | None
) -> None:
    """Training itself goes on from the weights, and the average follows them."""
    plain = Trained(tmp_path / "plain", adapter=adapter, validate_every=1)
    whole = Trained(tmp_path / "whole", adapter=adapter, ema=0.6, validate_every=1)
    expected = whole.started
    for step in range(1, 6):
        pairs = zip(expected, plain.validated[step], strict=True)
        expected = [0.6 * average + 0.4 * weights for average, weights in pairs]
        for found, right in zip(whole.validated[step], expected, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    for found, right in zip(whole.weights(), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)

    Trained(tmp_path / "part", adapter=adapter, ema=0.6, stop_after=2)
    (checkpoint,) = (tmp_path / "part" / "checkpoints").glob("*.ckpt")
    kept = weights_of(checkpoint)
    for name, one in whole.module.policy.named_parameters():
        if one.requires_grad:
            place = [id(other) for other in whole.module.policy.trainable()].index(id(one))
            assert torch.equal(kept[name], whole.validated[2][place])
    rest = Trained(tmp_path / "rest", adapter=adapter, ema=0.6, checkpoint=checkpoint)
    assert_same(whole, rest)


def test_gradients_are_clipped_to_the_norm_together(tmp_path: Path) -> None:
    def gradients(clip: float) -> tuple[torch.Tensor, float]:
        run = Trained(tmp_path / str(clip), steps=1, gradient_clip=clip)
        parameters = run.module.policy.trainable()
        whole = torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])
        return whole, run.logged[1]["train/grad_norm"]

    free, norm = gradients(1e6)
    clipped, noted = gradients(1e-3)
    assert free.norm().item() == pytest.approx(norm)
    assert noted == norm > 1e-3
    torch.testing.assert_close(clipped, free * (1e-3 / norm), rtol=1e-3, atol=0)


def test_an_average_stands_for_every_name_of_a_tied_weight(tmp_path: Path) -> None:
    tied, own, average = torch.ones(3, 2), torch.full((3, 2), 2.0), torch.full((3, 2), 0.5)
    content = {
        "state_dict": {"policy.embedding": tied, "policy.head": tied, "policy.norm": own},
        "averages": {"policy.embedding": average},
    }
    torch.save(content, tmp_path / "step-1.ckpt")

    kept = weights_of(tmp_path / "step-1.ckpt")

    assert torch.equal(kept["embedding"], average)
    assert torch.equal(kept["head"], average)
    assert torch.equal(kept["norm"], own)
