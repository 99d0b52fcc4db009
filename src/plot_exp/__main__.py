"""The door: `python -m plot_exp` composes the configuration, and `task` picks a workflow."""

from __future__ import annotations

import argparse
import atexit
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from plot_exp import __version__
from plot_exp.config.combinations import check
from plot_exp.config.composition import CONFIG_NAME, composed, opened, to_config
from plot_exp.config.help import help_text
from plot_exp.config.overrides import check_chosen_once
from plot_exp.config.schema import Config
from plot_exp.dispatch import ELSEWHERE, Outcome, complain, resumed, run, show_traceback
from plot_exp.errors import RunError, UserError
from plot_exp.interruption import Interrupted
from plot_exp.processes.ranks import speaks, started_outside
from plot_exp.slurm import remember, remembered
from plot_exp.sweep import sweep

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code: 0, 1 where a run failed, 2 for bad input, 130 when interrupted, 128 and the
        signal's number where another signal ended the run.
    """
    # What ends with the process is not searched for cycles first: with torch that takes a second.
    atexit.register(gc.freeze)
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        show_traceback()
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return RunError.exit_code
    except Exception as error:
        show_traceback()
        complain(f"{type(error).__name__}: {error} (PLOT_EXP_TRACEBACK=1 shows where)")
        return RunError.exit_code


def _main(argv: list[str]) -> int:
    parser = get_args_parser()
    args = _parsed(parser, argv)
    if args.help:
        print(help_text())
        return 0
    check_chosen_once(args.overrides)
    with opened(args.config_dir) as hydra:
        if args.hydra_help:
            hydra.hydra_help(config_name=CONFIG_NAME, args_parser=parser, args=args)
        elif args.shell_completion:
            hydra.shell_completion(CONFIG_NAME, args.overrides)
        elif args.info:
            hydra.show_info(args.info, config_name=CONFIG_NAME, overrides=args.overrides)
        elif args.cfg:
            composed(hydra, args.overrides)
            hydra.show_cfg(CONFIG_NAME, args.overrides, args.cfg, args.package, args.resolve)
        elif args.multirun or _names_a_sweep(args.overrides):
            if any(_resumes(text) for text in args.overrides):
                raise UserError(
                    "resume=RUN_DIR goes on with one run; leave -m out, or repeat the sweep's own "
                    "command without resume, which goes on with every point"
                )
            return _interruptible_sweep(hydra, args.overrides)
        elif any(_resumes(text) for text in args.overrides):
            return _resume(args.overrides)
        else:
            return _single(hydra, args.overrides)
    return 0


def _parsed(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The flags and overrides; `-m` may stand anywhere."""

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what there is")

    if "--version" in argv:
        print(f"plot_exp {__version__}")
        raise SystemExit(0)
    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(argv)
    if args.config_path or args.config_name:
        raise UserError("conf/config.yaml is the only start; --config-dir adds options to it")
    return args


def _single(hydra: Hydra, overrides: list[str]) -> int:
    node = composed(hydra, overrides)
    if node.hydra.mode == RunMode.MULTIRUN:
        return _interruptible_sweep(hydra, overrides)
    config = to_config(node)
    check(config)
    HydraConfig.instance().set_config(node)
    run_dir = Path(str(OmegaConf.select(node, "hydra.run.dir"))).absolute()
    if earlier := remembered(Path(config.output_dir).absolute(), overrides):
        print(f"SLURM has started this job again: going on with {earlier}", flush=True)
        return _closing(_interruptible(resumed(earlier), earlier))
    # Of several processes that were started alike the first one's folder counts.
    if speaks() and (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir} holds a run already; resume={run_dir} goes on with it")
    if speaks() and config.task == "train":
        remember(Path(config.output_dir).absolute(), overrides, run_dir)
    return _closing(_interruptible(config, run_dir))


def _names_a_sweep(overrides: Sequence[str]) -> bool:
    """Whether a named sweep was chosen, which is one without `-m` too."""
    return any(
        text.startswith("sweep=") and text != "sweep=null" for text in overrides
    ) and not any(_resumes(text) for text in overrides)


def _resumes(override: str) -> bool:
    """Whether an override asks to go on with a run; Hydra allows a `+` or two before the key."""
    key, _, value = override.partition("=")
    return key.lstrip("+") == "resume" and value != "null"


def _resume(overrides: list[str]) -> int:
    named: list[str] = []
    given: list[str] = []
    changes: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ELSEWHERE:
            changes[key] = value
        else:
            (named if _resumes(text) else given).append(text)
    if given or len(named) > 1:
        raise UserError(
            "resume=RUN_DIR goes on with the settings in RUN_DIR/config.yaml, but for "
            f"{' and '.join(ELSEWHERE)}; leave out: {' '.join(given or named[1:])}"
        )
    run_dir = Path(named[0].partition("=")[2].strip("'\"")).absolute()
    return _closing(_interruptible(resumed(run_dir, changes), run_dir))


def _interruptible(config: Config, run_dir: Path) -> Outcome:
    try:
        return run(config, run_dir)
    except KeyboardInterrupt as error:
        show_traceback()
        message, exit_code = _ended_by(error)
        if config.task == "train" and (run_dir / "config.yaml").is_file():
            message += f"; go on with: python -m plot_exp resume={run_dir}"
        return Outcome(run_dir, "failed", exit_code, message)


def _ended_by(error: KeyboardInterrupt) -> tuple[str, int]:
    """What to say of an interruption, and the exit code."""
    if not isinstance(error, Interrupted):
        return "interrupted", INTERRUPTED
    is_key = error.exit_code == INTERRUPTED
    return f"{'interrupted' if is_key else f'ended by {error}'}{error.note}", error.exit_code


def _interruptible_sweep(hydra: Hydra, overrides: list[str]) -> int:
    if (outside := started_outside()) is not None and outside.size > 1:
        raise UserError(
            f"{outside.size} processes were started for one sweep; start it once, with "
            "trainer.devices=N, which starts those of each point"
        )
    try:
        return sweep(hydra, overrides)
    except KeyboardInterrupt as error:
        show_traceback()
        message, exit_code = _ended_by(error)
        complain(f"{message}; the same command again fills in what is missing")
        return exit_code


def _closing(outcome: Outcome) -> int:
    if outcome.status == "failed":
        complain(outcome.message)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
