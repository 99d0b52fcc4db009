"""Anthropic's HH-RLHF (arXiv 2204.05862): two whole dialogues a row, as strings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from plot_exp.config.dataset import DatasetConfig
from plot_exp.data import hub
from plot_exp.data.examples import Message, PreferenceExample, Role, Split
from plot_exp.data.files import Row
from plot_exp.data.layout import Part, check_parts, find_root, folder_parts, subfolders
from plot_exp.data.rejected.sampled import Draw
from plot_exp.data.screening import EMPTY_RESPONSE, IDENTICAL
from plot_exp.data.sources.pipeline import finish
from plot_exp.data.sources.settings import check_rejected, check_subset
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

HUB_NAME = "Anthropic/hh-rlhf"
SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
FOLDER = "hh-rlhf"

NO_TURNS = "a dialogue has no turn of a human and the assistant"
PREAMBLE = "text stands before the first turn"
ENDS_IN_HUMAN_TURN = "a dialogue ends in a human turn, so there is no response to compare"
EMPTY_TURN = "a turn of the prompt is empty"
NO_SHARED_PROMPT = "chosen and rejected differ before the final response"
JOINED = "consecutive turns of one role were joined"
PREFIX = "one response begins with the whole other one (kept as it is)"

# A role name inside a line, as in `say "Human: hello"`, does not begin a turn.
_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def check(config: DatasetConfig) -> None:
    """See `sources.check`."""
    check_rejected(
        config, ("given", "none"), "its dialogues have rejected responses and no final answers"
    )
    root = find_root(config, FOLDER, HUB_NAME)
    if root is None:
        check_subset(config, SUBSETS, HUB_NAME)
    else:
        check_parts(parts(root, config))


def read(
    config: DatasetConfig,
    tallies: list[Tally],
    *,
    cache_dir: Path,
    draw: Draw | None = None,
    model_identity: str | None = None,
) -> Split:
    """See `sources.read`; the category of an example is its published subset."""
    check(config)
    tally = Tally(config.name)
    tallies.append(tally)
    groups: list[dict[str, list[PreferenceExample]]] = []
    for group, split, rows in _row_groups(config):
        groups.append({split: list(_examples(rows, group, tally))})
    return finish(
        groups, config, tally, cache_dir=cache_dir, draw=draw, model_identity=model_identity
    )


def _row_groups(config: DatasetConfig) -> Iterator[tuple[str, str, Iterable[Row]]]:
    root = find_root(config, FOLDER, HUB_NAME)
    if root is not None:
        for part in parts(root, config):
            yield part.group, part.split, part.rows()
        return
    for subset in [config.subset] if config.subset else SUBSETS:
        for split, rows in hub.load(config.hub_name or HUB_NAME, data_dir=subset).items():
            yield subset, split, rows


def parts(root: Path, config: DatasetConfig) -> list[Part]:
    """The files below `root`: one file, one subset's folder, or the folder of all subsets.

    Raises:
        UserError: nothing of that layout is there, or the subset is not.
    """
    if root.is_file():
        return [Part("all", (root,), _subset_of(root.parent, config))]
    if own := folder_parts(root, _subset_of(root, config)):
        return own
    by_subset = {folder.name: folder_parts(folder, folder.name) for folder in subfolders(root)}
    by_subset = {name: found for name, found in by_subset.items() if found}
    if not by_subset:
        raise UserError(
            f"{root} holds no HH-RLHF data; expected train.jsonl.gz or test.jsonl.gz in it or in "
            f"its folders {', '.join(SUBSETS)}."
        )
    check_subset(config, list(by_subset), root)
    wanted = [config.subset] if config.subset else list(by_subset)
    return [part for name in wanted for part in by_subset[name]]


def _subset_of(folder: Path, config: DatasetConfig) -> str:
    """The category of files in a folder: its name where published, else `dataset.subset`."""
    name = folder.resolve().name
    if name not in SUBSETS:
        return config.subset or FOLDER
    if config.subset not in (None, name):
        raise UserError(
            f"dataset.subset={config.subset} does not fit dataset.path={config.path}, which is "
            f"the subset {name}; leave one of them out."
        )
    return name


def _examples(rows: Iterable[Row], category: str, tally: Tally) -> Iterator[PreferenceExample]:
    for row in rows:
        dialogues = []
        for key in ("chosen", "rejected"):
            if not isinstance(row.values.get(key), str):
                keys = ", ".join(row.values) or "none"
                raise UserError(
                    f"{row} has no text under `{key}` (its keys: {keys}); HH-RLHF rows hold two "
                    "whole dialogues as strings, `chosen` and `rejected`; for other layouts use "
                    "dataset=jsonl."
                )
            dialogues.append(row.values[key])
        example = compare(dialogues[0], dialogues[1], row, category, tally)
        if example is not None:
            yield example


def compare(
    chosen: str, rejected: str, row: Row, category: str, tally: Tally
) -> PreferenceExample | None:
    """A pair of dialogues as one example: the last assistant turns behind their shared prompt.

    Returns:
        None where the pair cannot be used; the tally holds the reason.
    """
    try:
        (one, one_joined), (other, other_joined) = messages(chosen), messages(rejected)
        prompt = _shared_prompt(one, other)
    except _UnusableRowError as reason:
        tally.drop(str(reason), row.origin)
        return None
    responses = (one[-1].content, other[-1].content)
    if responses[0] == responses[1]:
        tally.drop(IDENTICAL, row.origin)
        return None
    if one_joined or other_joined:
        tally.change(JOINED, row.origin)
    if responses[0].startswith(responses[1]) or responses[1].startswith(responses[0]):
        tally.change(PREFIX, row.origin)
    return PreferenceExample(prompt, responses, category, "hh_rlhf", row.origin)


class _UnusableRowError(Exception):
    """A row is left out; the text is the reason."""


def messages(dialogue: str) -> tuple[list[Message], bool]:
    r"""Turns of a dialogue string; only `\n\nHuman:` and `\n\nAssistant:` begin one.

    Returns:
        The turns without surrounding white space, and whether any were joined.
    """
    marks = list(_TURN.finditer(dialogue))
    if not marks:
        raise _UnusableRowError(NO_TURNS)
    if dialogue[: marks[0].start()].strip():
        raise _UnusableRowError(PREAMBLE)
    ends = [mark.start() for mark in marks[1:]] + [len(dialogue)]
    turns: list[Message] = []
    joined = False
    for mark, end in zip(marks, ends, strict=True):
        role, content = _ROLES[mark[1]], dialogue[mark.end() : end].strip()
        if turns and turns[-1].role == role:
            content = f"{turns.pop().content}\n\n{content}".strip()
            joined = True
        turns.append(Message(role, content))
    return turns, joined


def _shared_prompt(one: list[Message], other: list[Message]) -> tuple[Message, ...]:
    if one[-1].role == "user" or other[-1].role == "user":
        raise _UnusableRowError(ENDS_IN_HUMAN_TURN)
    if one[:-1] != other[:-1]:
        raise _UnusableRowError(NO_SHARED_PROMPT)
    if len(one) < 2:
        raise _UnusableRowError(NO_TURNS)
    if not (one[-1].content and other[-1].content):
        raise _UnusableRowError(EMPTY_RESPONSE)
    if not all(message.content for message in one[:-1]):
        raise _UnusableRowError(EMPTY_TURN)
    return tuple(one[:-1])
