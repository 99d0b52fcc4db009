"""Measure a finished run again, or any model by itself, with the benchmarks that `eval` names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from plot_exp import environment
from plot_exp.config.schema import Config, load
from plot_exp.data import sources
from plot_exp.data.examples import Split
from plot_exp.data.overlap import prompt_hash
from plot_exp.errors import RunError, UserError
from plot_exp.evals.alpaca_eval import PublishedAnnotations
from plot_exp.evals.base import NoModel, Subject, Tools
from plot_exp.files import write_json, write_text
from plot_exp.generators.endpoint import EndpointGenerator
from plot_exp.generators.local import LocalGenerator
from plot_exp.losses.composite import build
from plot_exp.models.identity import model_identity
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar, choose, quiet_libraries
from plot_exp.redaction import redact
from plot_exp.report import run as report
from plot_exp.report.terminal import closing_table
from plot_exp.tracking.wandb_log import WandbLog
from plot_exp.workflows.benchmarks import Measured, Opened, chosen, measure, open_benchmarks
from plot_exp.workflows.context import build_context
from plot_exp.workflows.device import autocast, device_of
from plot_exp.workflows.leakage import Leakage
from plot_exp.workflows.measure import Measurer
from plot_exp.workflows.measured import write_measured
from plot_exp.workflows.models import Start, open_saved, open_start
from plot_exp.workflows.outcomes import publish, read_metrics, without, write_outcomes
from plot_exp.workflows.prepare import prepare, without_sampling
from plot_exp.workflows.reference import open_reference


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """`task=evaluate`: a finished run (`run=RUN_DIR`), or the model that `model` names.

    Of a run, data, reference and loss are its own and `eval` is this call's; its start is measured
    beside it, and its metrics.json and report are written again. Any other model gets a folder of
    its own. Finished benchmarks are kept in the cache by the weights and the settings that made
    them, so that a second call does only what is missing.

    Raises:
        UserError: the run has not been exported, or no benchmark could be run.
        RunError: a benchmark broke; the numbers of the others are written.
    """
    quiet_libraries()
    target = config.run and Path(config.run)
    folder = target or run_dir
    evaluation = Evaluation(config, folder, _of_run(config, target) if target else config)
    earlier = read_metrics(folder / "metrics.json")
    found = evaluation.quick() if target else {}
    after, before = evaluation.benchmarks()
    if target is None:
        if not after.outcomes:
            _complain(after, before, found)
        _describe(config, run_dir)
    found |= write_outcomes(folder, after, before)
    metrics = without(earlier, list(after.outcomes)) | found
    write_json(folder / "metrics.json", metrics)
    report.write(folder)
    if config.logger.name == "wandb":
        _send(config, folder, metrics, after)
    _say(after, before)
    closing_table(folder)
    _complain(after, before, found)
    return found


def before_training(config: Config, run_dir: Path) -> None:
    """Opens the benchmarks of `eval`: what they lack is told before hours of training, not after.

    Raises:
        UserError: a setting or a file of theirs cannot be used.
    """
    if chosen(config.eval):
        for name, why in Evaluation(config, run_dir, config).opened().refused.items():
            print(f"{name} will not be measured after training: {why}", flush=True)


def after_training(config: Config, run_dir: Path) -> dict[str, float]:
    """The benchmarks of `eval` on a run that has just written its model/, for its metrics.json.

    One that breaks is told and left out: the run itself is whole, and `task=evaluate` goes on.
    """
    if not chosen(config.eval):
        return {}
    own = config.model_copy(update={"run": str(run_dir)})
    try:
        after, before = Evaluation(own, run_dir, config).benchmarks()
    except UserError as error:
        print(f"the benchmarks could not be run: {redact(str(error))}", flush=True)
        return {}
    found = write_outcomes(run_dir, after, before)
    _say(after, before)
    return found


@dataclass
class Evaluation:
    """What one call measures.

    Attributes:
        config: this call's.
        folder: the run's, or the new one.
        trained: the settings that the measured model was made with, and this call's `eval`.
    """

    config: Config
    folder: Path
    trained: Config

    @property
    def bar(self) -> Bar:
        """Progress as this call wants it."""
        return choose(self.config.trainer.progress)

    @property
    def cache_dir(self) -> Path:
        """What benchmarks keep between calls."""
        return Path(self.config.cache_dir).expanduser() / "evaluations"

    def opened(self) -> Opened:
        """The benchmarks of this call, with their data.

        Raises:
            UserError: a setting is wrong.
        """
        evaluation = self.config.eval
        tools = Tools(
            self.cache_dir,
            evaluation.batch_size,
            evaluation.judge,
            lambda: self.split.validation,
        )
        return open_benchmarks(evaluation, tools)

    def quick(self) -> dict[str, float]:
        """Preferences and answers on the run's validation examples, where `eval` asks for them."""
        if not (self.config.eval.preferences or self.config.eval.generations):
            return {}
        trained = self.trained
        prepared = prepare(trained, self.bar, Leakage.of_run(self.folder))
        reference = open_reference(trained, prepared.start)
        if isinstance(reference, Policy):
            prepared.choose_layout(trained, reference)
        context = build_context(trained, reference, prepared.start.tokeniser, prepared.train)
        composite = build(trained.loss, context)
        measurer = Measurer(trained, prepared, reference, composite, context, self.bar)
        policy = open_saved(trained, self.folder / "model").policy
        with autocast(trained.trainer, policy.device):
            before = measurer.measure(prepared.start.policy)
            after = measurer.measure(policy)
        return write_measured(self.folder, measurer, before, after)

    def benchmarks(self) -> tuple[Measured, Measured | None]:
        """The measured model's numbers, and those of the start of a run."""
        if not chosen(self.config.eval):
            return Measured(), None
        opened = self.opened()
        if not opened.benchmarks:
            return Measured(refused=opened.refused), None
        if all(isinstance(one, PublishedAnnotations) for one in opened.benchmarks):
            return self._measure(opened, Subject(NoModel(), ""), "", frozenset()), None
        if self.config.eval.endpoint.url is not None:
            return self._measure(opened, self._served(), "", frozenset()), None
        start = self._start()
        base = self._subject(start, self.trained.model.revision, start.policy)
        if self.config.run is None:
            return self._measure(opened, base, base.identity, frozenset()), None
        saved = open_saved(self.trained, self.folder / "model")
        policy = self._subject(saved, None, start.policy)
        before = None
        if self.config.eval.base:
            before = self._measure(opened, base, base.identity, self._trained_on())
        return self._measure(opened, policy, base.identity, self._trained_on()), before

    def _measure(
        self, opened: Opened, subject: Subject, reference: str, trained_on: frozenset[str]
    ) -> Measured:
        with autocast(self.trained.trainer, device_of(self.trained.trainer)):
            return measure(
                opened,
                subject,
                self.cache_dir,
                reference=reference,
                trained_on=trained_on,
                bar=self.bar,
                seed=self.config.seed,
            )

    def _start(self) -> Start:
        """The start of the run, or the model that `model` names; both without training data."""
        of_data = self.trained.model.name == "tiny"
        return open_start(self.trained, self.split.train if of_data else [], self.bar)

    def _subject(self, start: Start, revision: str | None, reference: Policy) -> Subject:
        generator = LocalGenerator(
            start.policy,
            start.tokeniser,
            batch_size=self.config.eval.batch_size,
            name=start.origin,
        )
        drawn = self.trained.model.weights == "random"
        made_of = [
            model_identity(start.origin, revision),
            start.tokeniser.template,
            self.trained.model.dtype,
            self.trained.trainer.precision,
            # Only weights that are drawn depend on the seed: other runs share their start.
            self.trained.seed if start.policy is reference and drawn else None,
        ]
        identity = hashlib.sha256(repr(made_of).encode()).hexdigest()
        return Subject(generator, identity, reference)

    def _served(self) -> Subject:
        endpoint = self.config.eval.endpoint
        generator = EndpointGenerator(endpoint, self.cache_dir / "answers", "eval.endpoint")
        return Subject(generator, f"{endpoint.url} {endpoint.model}")

    def _trained_on(self) -> frozenset[str]:
        return frozenset(prompt_hash(example.prompt) for example in self.split.train)

    @cached_property
    def split(self) -> Split:
        """The data of the run, or of `dataset`; without sampled rejections, which take a model."""
        dataset = without_sampling(self.trained.dataset)
        split = sources.read(dataset, [], cache_dir=Path(self.trained.cache_dir).expanduser())
        return Leakage.of_run(self.folder).apart(split)


def _of_run(config: Config, folder: Path) -> Config:
    """The run's own settings with this call's `eval`.

    Raises:
        UserError: the run has not been exported.
    """
    if not (folder / "model" / "config.json").is_file():
        raise UserError(
            f"run={folder}: it has no model/ folder; finish it with resume={folder}, or write the "
            f"model of its last checkpoint with task=export run={folder} "
            f"export.path={folder / 'model'}"
        )
    return load(folder / "config.yaml").model_copy(update={"eval": config.eval})


def _describe(config: Config, run_dir: Path) -> None:
    """What was asked for, so that the numbers of a model by itself can be repeated."""
    text = yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True)
    write_text(run_dir / "config.yaml", text)
    environment.write(run_dir, {"run": config.seed})


def _send(config: Config, folder: Path, metrics: dict[str, float], after: Measured) -> None:
    log = WandbLog(folder, config)
    try:
        publish(log, metrics, after)
    finally:
        log.close(0)


def _say(after: Measured, before: Measured | None) -> None:
    """Notes, and what could not be run, on the terminal; both stand in evaluations.json too."""
    for outcome in after.outcomes.values():
        for note in outcome.notes:
            print(note, flush=True)
    reasons = after.refused.items() | (before or Measured()).refused.items()
    for name, why in sorted(reasons):  # both sides often have the same one
        print(f"{name} could not be run: {why}", flush=True)


def _complain(after: Measured, before: Measured | None, found: dict[str, float]) -> None:
    """Ends with an error where a benchmark broke, or nothing could be measured at all."""
    for measured in (after, before or Measured()):
        for name in measured.broken:
            why = measured.refused[name]
            raise RunError(f"eval.{name} broke off ({why}); the same command goes on with it")
    if not found and after.refused:
        reasons = "; ".join(f"{name}: {why}" for name, why in after.refused.items())
        raise UserError(f"nothing could be measured: {reasons}")
