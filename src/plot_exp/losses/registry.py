"""Where a term's mathematics is found: in this package, or registered from a file of one's own.

A file named by `extensions=[FILE]` registers its terms when it is loaded; a notebook's cell
calls `register` itself.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from plot_exp.config.losses import TERMS
from plot_exp.config.terms import Term as Settings
from plot_exp.errors import UserError
from plot_exp.losses.base import Term
from plot_exp.losses.soundness import check_classes

BUILT_IN = frozenset(TERMS)
_registered: dict[str, type[Term]] = {}
_loaded: dict[Path, str] = {}


def register(name: str, settings: type[Settings], term: type[Term]) -> None:
    """Makes `loss=NAME` and `loss.NAME.*` known; registering a name again replaces the term.

    Args:
        name: a lower-case word; no name of this package's own terms.
        settings: its settings, each with a default, a subclass of `TermConfig`.
        term: called with the settings and the `Context`.

    Raises:
        ValueError: the name cannot be had, a setting has no default, or a class does not fit.
    """
    if name in BUILT_IN:
        raise ValueError(f"{name!r} is a term of plot_exp; choose another name")
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"{name!r} must be a lower-case word, as in loss=dpo+hinge")
    check_classes(name, settings, term)
    required = [key for key, field in settings.model_fields.items() if field.is_required()]
    if required:
        raise ValueError(f"{name!r}: the setting {required[0]!r} needs a default")
    TERMS[name], _registered[name] = settings, term


def term_class(name: str) -> type[Term]:
    """The registered class of a term, or `TERM` of `plot_exp.losses.<name>`."""
    if name in _registered:
        return _registered[name]
    found: type[Term] = importlib.import_module(f"plot_exp.losses.{name}").TERM
    return found


def load_extension(path: Path) -> None:
    """Runs a Python file that registers terms, once for each content it has.

    Raises:
        UserError: there is no such file, it fails, or it registers nothing.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"extensions: cannot read {path}: {error.strerror}") from error
    digest = hashlib.sha256(source).hexdigest()
    if _loaded.get(path) == digest:
        return
    name = f"plot_exp_extension_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    before = dict(_registered)
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"extensions: {path} is not a Python file; its name must end with .py")
    # Annotations of settings are read in the module of that name.
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"extensions: {path} fails: {type(error).__name__}: {error}") from error
    if _registered == before:
        raise UserError(
            f'extensions: {path} registers no term; end it with register("hinge", HingeConfig, '
            "Hinge), say"
        )
    _loaded[path] = digest
