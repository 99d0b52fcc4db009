"""From the dataset's section to tokenised examples, with the count of what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plot_exp.config.dataset import DatasetConfig, SampledRejections
from plot_exp.config.model import ModelConfig
from plot_exp.config.schema import Config
from plot_exp.data import sources
from plot_exp.data.collate import Batch, collate
from plot_exp.data.examples import Message, PreferenceExample, Split
from plot_exp.data.loader import evaluation_batches
from plot_exp.data.overlap import overlap
from plot_exp.data.packing import PADDED, Layout
from plot_exp.data.splits import sample
from plot_exp.data.tally import Tally
from plot_exp.data.token_cache import TokenCache
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.errors import UserError
from plot_exp.generators.base import Sampling
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.identity import model_identity
from plot_exp.models.load import load_model, load_tokenizer
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar, quiet_libraries
from plot_exp.workflows.layouts import choose_layout
from plot_exp.workflows.leakage import Leakage
from plot_exp.workflows.models import Start, open_start

BEYOND_LIMIT = "beyond dataset.preference_limit"


@dataclass
class Prepared:
    """What training and evaluation start from.

    Attributes:
        train, validation: tokenised examples.
        tallies: what was kept, dropped and changed, by dataset.
        facts: what data.json holds.
        layout: of the run's batches.
    """

    start: Start
    train: list[TokenisedExample]
    validation: list[TokenisedExample]
    tallies: list[Tally]
    facts: dict[str, Any] = field(default_factory=dict)
    layout: Layout = PADDED

    @property
    def pad_id(self) -> int:
        """The token that fills rows."""
        return int(self.start.tokeniser.tokenizer.pad_token_id)

    def collate(self, items: Sequence[TokenisedExample]) -> Batch:
        """One batch in the run's layout."""
        return collate(items, self.pad_id, self.layout)

    def batches(self, items: Sequence[TokenisedExample], batch_size: int) -> Iterator[Batch]:
        """Batches for scoring without gradients; see `evaluation_batches`."""
        return evaluation_batches(items, batch_size, self.pad_id, self.layout)

    def choose_layout(self, config: Config, *others: Policy) -> None:
        """Takes the layout that the policy and the others can score."""
        items = [*self.train, *self.validation]
        prompt = max((len(item.prompt_ids) for item in items), default=0)
        response = max((len(ids) for item in items for ids in item.response_ids), default=0)
        longest = min(prompt + response, config.dataset.max_length)
        self.layout = choose_layout(config.trainer, [self.start.policy, *others], longest)


def prepare(config: Config, bar: Bar, leakage: Leakage | None = None) -> Prepared:
    """Reads the data, opens the policy's start and tokenises.

    Args:
        leakage: prompts that are kept apart from training; None asks the benchmarks of `eval`.

    Raises:
        UserError: the data or the model cannot be used, or a term lacks what it needs.
    """
    quiet_libraries()
    leakage = Leakage.of(config) if leakage is None else leakage
    split, tallies, start, leaked = _read(config, bar, leakage)
    split = _fewer_preferences(split, config.dataset, tallies)
    if not split.train:
        raise UserError(f"dataset={config.dataset.name}: no training example is left to use")
    _require_what_terms_need(config, split)
    shared = overlap(split)
    train = _tokenise(config, split.train, start.tokeniser, tallies, "train")
    validation = _tokenise(config, split.validation, start.tokeniser, tallies, "validation")
    facts = {
        "tallies": [tally.as_dict() for tally in tallies],
        "overlap": {
            "prompts": shared,
            "removed": config.dataset.remove_overlap,
            "training": len(split.train),
            **leaked,
        },
        "train": len(train),
        "validation": len(validation),
        "without_pairs": sum(item.example.kind != "ranked" for item in train),
    }
    prepared = Prepared(start, train, validation, tallies, facts)
    prepared.choose_layout(config)
    return prepared


def _read(
    config: Config, bar: Bar, leakage: Leakage
) -> tuple[Split, list[Tally], Start, dict[str, Any]]:
    """Reads the sources; where rejected responses are sampled, the policy's start comes first."""
    cache_dir = Path(config.cache_dir).expanduser()
    dataset = config.dataset
    if not sources.needs_model(dataset):
        tallies: list[Tally] = []
        split = sources.read(dataset, tallies, cache_dir=cache_dir)
        facts = leakage.facts(split.train)
        split = leakage.apart(split, tallies)
        return split, tallies, open_start(config, split.train, bar), facts
    gold = leakage.apart(sources.read(without_sampling(dataset), [], cache_dir=cache_dir))
    start = open_start(config, gold.train, bar)
    named = dataset.sampled.model
    tallies = []
    split = sources.read(
        dataset,
        tallies,
        cache_dir=cache_dir,
        draw=Drawer(config, start, bar),
        model_identity=model_identity(
            named or start.origin, None if named else config.model.revision
        ),
    )
    return leakage.apart(split, tallies), tallies, start, leakage.facts(split.train)


def _fewer_preferences(split: Split, dataset: DatasetConfig, tallies: Sequence[Tally]) -> Split:
    """The split with `dataset.preference_limit` training examples, the rest counted as dropped."""
    train = sample(split.train, dataset.preference_limit, dataset.split_seed)
    kept = {id(example) for example in train}
    by_name = {tally.dataset: tally for tally in tallies}
    for example in split.train:
        if id(example) not in kept:
            tally = by_name.get(example.dataset, tallies[0])
            tally.keep("train", -1)
            tally.drop(BEYOND_LIMIT, example.origin)
    return Split(train, split.validation)


def without_sampling(dataset: DatasetConfig) -> DatasetConfig:
    """The same data with gold responses alone where rejected ones would be sampled."""
    update: dict[str, Any] = {}
    if dataset.rejected == "sampled":
        update["rejected"] = "none"
    if dataset.sources:
        update["sources"] = {
            name: without_sampling(source) for name, source in dataset.sources.items()
        }
    return dataset.model_copy(update=update)


@dataclass(frozen=True)
class Drawer:
    """Draws responses for `rejected=sampled`, from the policy's start or a named model."""

    config: Config
    start: Start
    bar: Bar

    def __call__(
        self, prompts: Sequence[tuple[Message, ...]], settings: SampledRejections
    ) -> list[list[str]]:
        start = self.start
        if settings.model is not None:
            named = ModelConfig(name=settings.model, dtype=self.config.model.dtype)
            tokeniser = ChatTokeniser(load_tokenizer(named))
            start = Start(Policy(load_model(named)), tokeniser, settings.model)
        generator = LocalGenerator(
            start.policy,
            start.tokeniser,
            batch_size=self.config.eval.batch_size,
            max_prompt=self.config.dataset.max_length,
            name=start.origin,
        )
        sampling = Sampling(
            settings.temperature, settings.top_p, settings.max_new_tokens, seed=settings.seed
        )
        answers = generator(
            prompts, sampling, samples=settings.samples, bar=self.bar, label="drawing responses"
        )
        return [[answer.text for answer in row] for row in answers]


def _require_what_terms_need(config: Config, split: Split) -> None:
    """Some data turn out to hold no pair, or no rejected response, only when they are read."""
    kinds = {example.kind for example in split.train}
    loss = "+".join(config.loss)
    for name, section in config.loss.items():
        if getattr(section, "needs_pairs", False) and "ranked" not in kinds:
            unpaired = "unpaired" in kinds
            raise UserError(
                f"loss={loss}: {name!r} compares chosen with rejected responses to one prompt, but "
                f"dataset={config.dataset.name} holds no example with both; use loss="
                + ("aot_unpaired, kto or sft, which need no pairs" if unpaired else "sft")
                + ", or data with rejected responses (dataset.rejected=corrupt for gsm8k and math)"
            )
        if getattr(section, "needs_rejected", False) and not _both_sides(split):
            raise UserError(
                f"loss={loss}: {name!r} compares chosen with rejected responses, but "
                f"dataset={config.dataset.name} holds only one of the two kinds; use loss=sft, or "
                "data with both (dataset.rejected=corrupt for gsm8k and math)"
            )


def _both_sides(split: Split) -> bool:
    """Whether there are chosen and rejected responses, to one prompt or to different ones."""
    labels = {label for example in split.train for label in example.desirable or ()}
    return labels == {True, False} or any(example.kind == "ranked" for example in split.train)


def _tokenise(
    config: Config,
    examples: Sequence[PreferenceExample],
    tokeniser: ChatTokeniser,
    tallies: Sequence[Tally],
    split: str,
) -> list[TokenisedExample]:
    """Tokenises each dataset's examples under its own tally, one dataset after the other."""
    by_name = {tally.dataset: tally for tally in tallies}
    cache = TokenCache(Path(config.cache_dir).expanduser() / "tokenised")
    done: list[TokenisedExample] = []
    for name in dict.fromkeys(example.dataset for example in examples):
        own = [example for example in examples if example.dataset == name]
        done += tokenise(own, tokeniser, config.dataset.max_length, by_name[name], split, cache)
    return done
