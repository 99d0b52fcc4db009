"""`task=plan`: what a run needs and how long it takes, without loading or downloading anything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from plot_exp.config.schema import Config
from plot_exp.data import sources
from plot_exp.data.examples import PreferenceExample, Split
from plot_exp.data.layout import find_root
from plot_exp.data.splits import sample
from plot_exp.data.tally import Tally
from plot_exp.data.token_cache import TokenCache
from plot_exp.data.tokenise import ChatTokeniser, TokenisedExample, tokenise
from plot_exp.errors import UserError
from plot_exp.files import write_json, write_text
from plot_exp.planner.advice import advise
from plot_exp.planner.batches import alike
from plot_exp.planner.plan import Data, Plan, make_plan
from plot_exp.planner.shape import model_shape
from plot_exp.planner.text import facts_of, lines_of
from plot_exp.progress import quiet_libraries

# Of English text in the vocabularies of the presets.
CHARACTERS_A_TOKEN = 4


def run(config: Config, run_dir: Path) -> dict[str, float]:
    """Plans a run; writes plan.md and plan.json.

    Returns:
        The peak in GB, whether it fits, and the seconds that training takes.
    """
    quiet_libraries()
    offline()
    data, shape = read_data(config), model_shape(config)
    plan = make_plan(config, data, shape)
    if config.run is not None:
        plan = replace(plan, seconds_measured=measured_seconds(config, plan))
    replan = partial(make_plan, data=data, shape=shape)
    advice = advise(plan, replan) if config.plan.advise and not plan.fits else []
    lines = lines_of(plan, advice)
    print("\n".join(lines), flush=True)
    write_text(run_dir / "plan.md", "\n".join(lines) + "\n")
    write_json(run_dir / "plan.json", facts_of(plan, advice))
    return {
        "plan/peak_gb": plan.peak.total / 1e9,
        "plan/fits": float(plan.fits),
        "plan/seconds": plan.seconds,
    }


def measured_seconds(config: Config, plan: Plan) -> float:
    """How long training takes at the pairs a second that a finished run had.

    Raises:
        UserError: the run says no speed.
    """
    path = Path(str(config.run)) / "metrics.json"
    try:
        speed = json.loads(path.read_text(encoding="utf-8"))["train/pairs_per_second"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"run={config.run}: metrics.json there has no train/pairs_per_second; name a finished "
            "run of more than one step, or give plan.tflops"
        ) from error
    return plan.load.steps * config.trainer.batch_size / float(speed)


def offline() -> None:
    """A plan asks no hub; whoever was loaded before is told too."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    loaded: Any = sys.modules.get("huggingface_hub.constants")
    if loaded is not None:
        loaded.HF_HUB_OFFLINE = True


def read_data(config: Config) -> Data:
    """The run's examples, or stand-ins of the lengths that `plan` gives."""
    plan = config.plan
    if plan.prompt_tokens or plan.response_tokens or not _is_local(config):
        return _assumed(config)
    split = _split(config)
    count = len(split.train)
    drawn = _spread(split.train, plan.sample)
    tokeniser = _tokeniser(config, drawn)
    train, validation = (
        _tokenised(config, part, tokeniser, name)
        for name, part in (
            ("train", drawn),
            ("validation", _spread(split.validation, plan.sample)),
        )
    )
    if not train:
        return _assumed(config)
    shown = f"{count:,}" if len(drawn) == count else f"{len(drawn):,} of {count:,}"
    how = "with the model's tokenizer"
    if tokeniser is None:
        how = f"at {CHARACTERS_A_TOKEN} characters a token, since the tokenizer is not here"
    host = sum(map(_host_bytes, train)) * count / len(drawn)
    source = f"{shown} training examples, {how}"
    return Data(train, validation, source, len(drawn) / count, host)


def _is_local(config: Config) -> bool:
    """Whether the data can be read without a hub."""
    dataset = config.dataset
    if dataset.name == "demo" or dataset.path is not None:
        return True
    if dataset.name == "mix":
        return all(
            source.name == "demo" or source.path is not None
            for source in (dataset.sources or {}).values()
        )
    folders = {"hh_rlhf": "hh_rlhf", "gsm8k": "gsm8k", "math": "math"}
    folder = folders.get(dataset.name)
    return folder is not None and find_root(dataset, folder, dataset.hub_name or "") is not None


def _split(config: Config) -> Split:
    from plot_exp.workflows.prepare import without_sampling

    cache_dir = Path(config.cache_dir).expanduser()
    dataset = config.dataset
    split = sources.read(without_sampling(dataset), [], cache_dir=cache_dir)
    if not split.train:
        raise UserError(f"dataset={dataset.name}: no training example is left to use")
    trained_on = sample(split.train, dataset.preference_limit, dataset.split_seed)
    return Split(trained_on, split.validation)


def _spread(examples: Sequence[PreferenceExample], count: int) -> list[PreferenceExample]:
    """At most so many, evenly over all."""
    if len(examples) <= count:
        return list(examples)
    return [examples[place * len(examples) // count] for place in range(count)]


def _tokenised(
    config: Config,
    examples: Sequence[PreferenceExample],
    tokeniser: ChatTokeniser | None,
    split: str,
) -> list[TokenisedExample]:
    """With the model's tokenizer where it is here, else by the number of characters."""
    longest = config.dataset.max_length
    if tokeniser is None:
        return [_by_characters(one, longest) for one in examples]
    cache = TokenCache(Path(config.cache_dir).expanduser() / "tokenised")
    tally = Tally(config.dataset.name)
    return tokenise(examples, tokeniser, longest, tally, split, cache)


def _tokeniser(config: Config, train: Sequence[PreferenceExample]) -> ChatTokeniser | None:
    from plot_exp.models.load import load_tokenizer
    from plot_exp.models.tiny import train_tokenizer

    if config.model.name == "tiny":
        return ChatTokeniser(train_tokenizer(config.model.tiny, train))
    try:
        return ChatTokeniser(load_tokenizer(config.model))
    except UserError:
        return None


def _by_characters(example: PreferenceExample, longest: int) -> TokenisedExample:
    """As many ids as the text would have, about."""
    responses = [
        min(longest - 1, len(text) // CHARACTERS_A_TOKEN + 1) for text in example.responses
    ]
    prompt = sum(len(turn.content) for turn in example.prompt) // CHARACTERS_A_TOKEN + 8
    kept = max(1, min(prompt, longest - max(responses)))
    return TokenisedExample(example, (0,) * kept, tuple((0,) * length for length in responses))


def _host_bytes(item: TokenisedExample) -> float:
    """Of the ids: a place in a tuple and a number each, and of the text."""
    ids = [item.prompt_ids, *item.response_ids]
    numbers = sum(sum(28 for one in row if one > 256) + sys.getsizeof(row) for row in ids)
    texts = sum(len(text) for text in item.example.responses)
    return numbers + texts + sum(len(turn.content) for turn in item.example.prompt)


def _assumed(config: Config) -> Data:
    plan, longest = config.plan, config.dataset.max_length
    response = plan.response_tokens or (
        max(1, longest - plan.prompt_tokens) if plan.prompt_tokens else longest // 2
    )
    prompt = plan.prompt_tokens or max(1, longest - response)
    given = plan.prompt_tokens or plan.response_tokens
    why = "as plan gives them" if given else "assumed, since the data are not here to be read"
    said = f"{plan.examples:,} examples of {prompt} prompt and {response} response tokens, {why}"
    items = alike(plan.examples, prompt, response)
    return Data(items, items[: config.trainer.validation_batch_size], said)
