"""What is wrong with an override, said before Hydra meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException

from plot_exp.config.evals import BENCHMARKS
from plot_exp.config.keys import dotted, is_known, unknown_key
from plot_exp.config.losses import TERMS, load_extension, parse_terms
from plot_exp.config.nearest import known, nearest
from plot_exp.config.schema import Config
from plot_exp.errors import UserError
from plot_exp.redaction import holds_secret, redact

OPTIONAL_GROUPS = ("experiment", "size", "sweep")
ONE_CHOICE = ("loss", "model", "dataset", "sweep", "size", "experiment", "task", "trainer")


def check_overrides(
    overrides: Sequence[str], options: dict[str, list[str]], sweep: bool = False
) -> None:
    """Refuse what cannot be read, unknown keys, unknown options and unknown terms.

    Args:
        options: the names that each group of `conf/` offers.
        sweep: whether several values for one key are allowed.

    Raises:
        UserError: naming the first override that is wrong, and what was likely meant.
    """
    for text in overrides:
        if holds_secret(text):
            raise UserError(
                f"{redact(text)}: this looks like a key or a password, and settings are written "
                "to files and to W&B; put it into a variable of the environment"
            )
        override = _parsed(text, options)
        if override.is_hydra_override():
            continue
        if override.is_sweep_override() and not sweep:
            raise UserError(
                f"{text}: several values; add -m to run each of them, "
                "or write key=[a,b] for a list and key='a,b' for a text with a comma"
            )
        key = override.key_or_group
        if override.package is not None:
            raise UserError(f"{text}: leave '@{override.package}' out; write {key}=OPTION")
        if key in options:
            _check_choice(text, override, options[key])
        else:
            _check_key(text, override, key, options)


def check_chosen_once(overrides: Sequence[str]) -> None:
    """Refuse a group that is chosen twice, of which the last choice would silently win.

    Raises:
        UserError: naming both.
    """
    chosen: dict[str, str] = {}
    for text in overrides:
        group, _, value = text.partition("=")
        if group in ONE_CHOICE and value:
            if chosen.get(group, value) != value:
                raise UserError(
                    f"{group}={chosen[group]} and {text}: only one can be chosen; -m with "
                    f"{group}={chosen[group]},{value} runs both"
                )
            chosen[group] = value


def load_extensions(overrides: Sequence[str]) -> None:
    """Loads the files of `extensions=`, so that their terms are known to the other overrides.

    Raises:
        UserError: see `plot_exp.losses.registry.load_extension`.
    """
    for text in overrides:
        if not text.startswith("extensions="):
            continue
        value = _parsed(text, {}).value()
        for path in value if isinstance(value, list) else [value]:
            if path is not None:
                load_extension(str(path))


def _parsed(text: str, options: dict[str, list[str]]) -> Override:
    """One override, read by Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"{text!r} is not KEY=VALUE; {_meant(text, options)}") from error
        detail = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"cannot read {text!r} ({detail}); "
            "quote values with special characters: \"KEY='VALUE'\""
        ) from error
    if text.endswith("=") and not override.is_delete():
        key = override.key_or_group
        hint = f"choose {' or '.join(options[key])}" if key in options else f"{key}=null for none"
        raise UserError(f"{text!r} has no value; {hint}")
    return override


def _meant(word: str, options: dict[str, list[str]]) -> str:
    if offers := [group for group, names in options.items() if word in names]:
        return f"did you mean {' or '.join(f'{group}={word}' for group in offers)}?"
    if guess := nearest(word, [*options, *dotted(Config)]):
        return f"did you mean {guess}=VALUE?"
    return "--help lists what can be set"


def _values(override: Override) -> Iterator[Any]:
    """Every value that an override, or the sweep in it, can take."""
    value = override._value
    if isinstance(value, Sweep):
        yield from override.sweep_string_iterator()
    elif override.value_type is not None:
        yield override.value()


def _check_choice(text: str, override: Override, names: list[str]) -> None:
    group = override.key_or_group
    if override.is_delete():
        raise UserError(f"{text}: {group!r} cannot be removed; choose {group}={'|'.join(names)}")
    if override.is_add() or override.is_force_add():
        raise UserError(f"{text}: leave the '+' out, {group!r} is a group with a choice already")
    for value in _values(override):
        if value is None and group in OPTIONAL_GROUPS:
            continue
        if group == "loss" and isinstance(value, str):
            parse_terms(value.strip("'\""))
        elif not isinstance(value, str) or value.strip("'\"") not in names:
            shown = "null" if value is None else value
            raise UserError(f"{group}={shown}: no such option; {known(str(shown), names)}")


def _check_key(text: str, override: Override, key: str, options: dict[str, list[str]]) -> None:
    if "/" in key:
        raise UserError(f"{text}: no such group; {known(key, options)}")
    if not is_known(key, Config):
        if "." not in key and (guess := nearest(key, options)):
            raise UserError(f"unknown key {key!r} in {text!r}; did you mean {guess!r}?")
        raise UserError(f"{unknown_key(key, Config)} (in {text!r})")
    if override.is_delete() and not key.startswith("dataset.sources."):
        raise UserError(f"{text}: {key!r} cannot be removed; set it with {key}=VALUE")


def explain_failure(error: Exception) -> str:
    """A sentence for what Hydra or OmegaConf refused all the same."""
    cause = error.__cause__ or error
    message = str(error) if str(error).strip() else str(cause)
    if found := re.search(r"Could not override '(loss\.(\w+)\S*)'", message):
        key, term = found.groups()
        if term in TERMS:
            return (
                f"{key} is set, but {term!r} is not in the chosen loss; "
                f"add it, as in loss=dpo+{term}, or leave the override out"
            )
    if found := re.search(r"Could not override '(eval\.(\w+)\S*)'", message):
        key, benchmark = found.groups()
        if benchmark in BENCHMARKS:
            return (
                f"{key} is set, but {benchmark!r} is not part of the chosen eval; "
                f"choose it, as in eval={benchmark}, or leave the override out"
            )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(lines[:2]) or type(error).__name__
