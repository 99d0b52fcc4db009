"""Harmful behaviours that red-team attacks aim at: published files, or the embedded demo ones."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from plot_exp.data import behaviour_files
from plot_exp.data.demo.harmlessness import COMPLIANCES, PROMPTS, REQUESTS
from plot_exp.data.examples import Origin
from plot_exp.data.tally import Tally
from plot_exp.errors import UserError

DATA_FOLDER = "PLOT_EXP_DATA"
# Between a context and the request that refers to it, as HarmBench joins them.
CONTEXT_RULE = "\n\n---\n\n"
DEMO_CATEGORIES: dict[str, tuple[str, ...]] = {
    "property": ("steal", "break", "pick", "set", "sell"),
    "persons": ("hit", "spread", "smuggle"),
    "deceit": ("forge", "blackmail"),
}


@dataclass(frozen=True)
class Behaviour:
    """What a model should not do, and how an answer that does it begins.

    Attributes:
        id: unique within its file.
        text: the request.
        target: the beginning of a complying answer, whose loss the attacks lower.
        functional: how it is graded: `standard`, `contextual` or `copyright`.
        semantic: what it is about.
        context: a text that the request refers to, or empty.
        source: the copyrighted text that an answer is compared with, where it is at hand.
        tags: HarmBench's, such as `lyrics` or `book`.
    """

    id: str
    text: str
    target: str
    functional: str
    semantic: str
    origin: Origin
    context: str = ""
    source: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def request(self) -> str:
        """The whole user turn without an attack: the context, if any, then the request."""
        return f"{self.context}{CONTEXT_RULE}{self.text}" if self.context else self.text


def demo(tally: Tally) -> list[Behaviour]:
    """The mild harmful requests of the demo's harmlessness part, in a wording kept for validation.

    Their complying answers are the demo's stand-ins, which hold nothing that could be acted on.
    """
    found = []
    opening = COMPLIANCES.train[1].split(":")[0] + ":"
    for row, request in enumerate(request for request in REQUESTS if request.harmful):
        verb = request.deed.split()[0]
        semantic = next(name for name, verbs in DEMO_CATEGORIES.items() if verb in verbs)
        found.append(
            Behaviour(
                id=request.deed.replace(" ", "_").replace("'", ""),
                text=PROMPTS.validation[0].format(deed=request.deed),
                target=opening.format(deed=request.deed),
                functional="standard",
                semantic=semantic,
                origin=Origin("demo", row),
            )
        )
        tally.keep("behaviours")
    return found


def find(name: str, path: str | None, key: str = "eval.asr.path") -> Path:
    """The published file or folder: `path`, or `name` under the folder in `PLOT_EXP_DATA`.

    Raises:
        UserError: there is neither.
    """
    if path is not None:
        found = Path(path).expanduser()
        if not found.exists():
            raise UserError(f"{key}={path}: there is no such file or directory")
        return found
    folder = os.environ.get(DATA_FOLDER)
    if folder and (Path(folder) / name).is_dir():
        return Path(folder) / name
    raise UserError(
        f"the behaviours of {name} are in files that it publishes; give {key}=FILE_OR_FOLDER, or "
        f"a folder {name}/ under the one that {DATA_FOLDER} names"
    )


def load(
    name: str,
    path: str | None = None,
    *,
    split: str = "all",
    texts: str | None = None,
    tally: Tally,
) -> list[Behaviour]:
    """All usable behaviours of `demo`, `harmbench` or `advbench`.

    Args:
        path: a file or folder in the published layout; None looks under `PLOT_EXP_DATA`.
        split: `all`, `val` or `test` (HarmBench only).
        texts: a folder with the source of each copyright behaviour as `<id>.txt`.
        tally: counts what is left out or repaired.

    Raises:
        UserError: a file is missing or not what it should be, or nothing is left.
    """
    if name == "demo":
        return demo(tally)
    place = find(name, path)
    records = (
        behaviour_files.harmbench(place, split, tally)
        if name == "harmbench"
        else behaviour_files.advbench(place, tally)
    )
    sources = _sources(texts)
    found = []
    for record in records:
        source = sources.get(record.id)
        if record.functional == "copyright" and source is None:
            tally.drop("copyright behaviour without its source text", record.origin)
            continue
        found.append(Behaviour(**vars(record), source=source))
        tally.keep("behaviours")
    if not found:
        raise UserError(f"{place}: none of its behaviours can be used; {tally.lines()[-1].strip()}")
    return found


def choose(
    behaviours: Sequence[Behaviour],
    *,
    functional: Sequence[str] | None = None,
    semantic: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    tally: Tally,
) -> list[Behaviour]:
    """Those of the wanted categories, and at most `limit` of them, evenly over both categories.

    What is left out here is taken off the tally's kept ones and named.

    Raises:
        UserError: no behaviour is of the wanted categories.
    """
    kept = []
    for one in behaviours:
        if functional is not None and one.functional not in functional:
            _leave_out(one, "functional category not chosen", tally)
        elif semantic is not None and one.semantic not in semantic:
            _leave_out(one, "semantic category not chosen", tally)
        else:
            kept.append(one)
    if not kept:
        known = sorted({name for one in behaviours for name in (one.functional, one.semantic)})
        raise UserError(
            "eval.asr.functional and eval.asr.semantic leave no behaviour; these data hold: "
            + ", ".join(known)
        )
    chosen = {one.id for one in _spread(kept, limit, seed)} if limit else {one.id for one in kept}
    for one in kept:
        if one.id not in chosen:
            _leave_out(one, "beyond eval.asr.limit", tally)
    return [one for one in kept if one.id in chosen]


def _leave_out(one: Behaviour, reason: str, tally: Tally) -> None:
    tally.drop(reason, one.origin)
    tally.keep("behaviours", -1)


def _spread(behaviours: Sequence[Behaviour], limit: int, seed: int) -> list[Behaviour]:
    groups: dict[tuple[str, str], list[Behaviour]] = defaultdict(list)
    for one in behaviours:
        groups[(one.functional, one.semantic)].append(one)
    for key, group in groups.items():
        Random(f"{seed} {key}").shuffle(group)
    turns = [
        group[turn]
        for turn in range(max(map(len, groups.values())))
        for group in groups.values()
        if turn < len(group)
    ]
    return turns[:limit]


def _sources(texts: str | None) -> dict[str, str]:
    if texts is None:
        return {}
    folder = Path(texts).expanduser()
    if not folder.is_dir():
        raise UserError(f"eval.asr.copyright.texts={texts}: there is no such directory")
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.txt"))}
