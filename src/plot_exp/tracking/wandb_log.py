"""W&B as a guest: imported only when wanted, and never the reason for a failure."""

from __future__ import annotations

import logging
import netrc
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from plot_exp.config.schema import Config
from plot_exp.errors import RunError
from plot_exp.files import write_text
from plot_exp.redaction import redact
from plot_exp.tracking.address import keep_address

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
History = Callable[[], Iterable[tuple[int, Mapping[str, float]]]]

# The public service answers under both names; which one is the default depends on its version.
PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
RUN_ID_FILE = "wandb_id.txt"
# Set by a sweep for its points, or by the user. Given to W&B, which reads its environment once.
GROUP = "WANDB_RUN_GROUP"
LONGEST_NAME = 128
INIT_SECONDS = 30
FINISH_SECONDS = 120
UPLOAD_BYTES = 200 * 2**20


def has_api_key() -> bool:
    """Whether the environment or the netrc file holds a key for the W&B server in use."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own_server = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    hosts = (own_server,) if own_server else PUBLIC_HOSTS
    named = os.environ.get("NETRC")
    for file in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            entries = netrc.netrc(Path(file).expanduser())
        except (OSError, RuntimeError, netrc.NetrcParseError):
            continue
        if any(entries.authenticators(host) for host in hosts):
            return True
    return False


def choose_mode(wanted: str) -> Mode:
    """`online` only with a key; `auto` follows `WANDB_MODE`, then the key."""
    if wanted == "auto":
        from_environment = os.environ.get("WANDB_MODE", "").lower()
        if from_environment in ("offline", "dryrun"):
            return "offline"
        if from_environment == "disabled":
            return "disabled"
    if wanted == "offline":
        return "offline"
    if has_api_key():
        return "online"
    if wanted == "online":
        logger.warning(
            "logger.mode=online, but there is no W&B key (WANDB_API_KEY or `wandb login`): "
            "this run is logged offline"
        )
    return "offline"


class WandbLog:
    """A W&B run that may be online, offline or absent; no method raises.

    The run's id stays in `run_dir/wandb_id.txt`, so that a resumed run continues the same W&B run.
    Steps between the checkpoint and a kill are sent a second time, with the same values: every
    chart is drawn over `step`. Where W&B fails in the middle of a run, its service's death
    included, the run is begun again offline from `history`; a second failure switches it off.

    Args:
        run_dir: of the run.
        config: of the run; W&B gets it in full.
        history: gives every step so far with its scalars.
    """

    def __init__(self, run_dir: Path, config: Config, history: History = tuple) -> None:
        self._config, self._history = config, history
        self._lost = False
        self._run: Any = None
        self._wandb: Any = None
        self._folder = run_dir
        self._mode: str = "disabled"
        mode = choose_mode(config.logger.mode)
        if mode != "disabled":
            self._run = self._start(config, mode)

    @property
    def where(self) -> str | None:
        """The run's address, or how to send an offline run."""
        if self._run is None:
            return None
        if self._mode == "online":
            return str(getattr(self._run, "url", None) or "W&B, online")
        return self._how_to_send()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs scalars over `step`."""
        self._attempt("log", lambda run: run.log({**metrics, "step": step}))

    def table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
    ) -> None:
        """Logs a table; cells that are neither text nor number are shown as text."""

        def send(run: Any) -> None:
            data = [[_cell(cell) for cell in row] for row in rows]
            table = self._wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
            run.log({name: table, "step": step})

        self._attempt("table", send)

    def image(self, name: str, path: Path) -> None:
        """Logs a picture from its file."""
        self._attempt("image", lambda run: run.log({name: self._wandb.Image(str(path))}))

    def artifact(self, name: str, kind: str, path: Path, *, upload: bool | None = None) -> None:
        """Logs a file or folder: by content up to `UPLOAD_BYTES`, by address above.

        The file is read where it lies (`immutable`), so W&B keeps no second copy in the home.
        """

        def send(run: Any) -> None:
            size = _size(path)
            content = size <= UPLOAD_BYTES if upload is None else upload
            artifact = self._wandb.Artifact(
                re.sub(r"[^\w.\-]+", "-", name), type=kind, metadata={"path": str(path)}
            )
            if not content:
                artifact.add_reference(path.resolve().as_uri(), checksum=False)
            elif path.is_dir():
                artifact.add_dir(str(path), policy="immutable")
            else:
                artifact.add_file(str(path), policy="immutable")
            run.log_artifact(artifact)

        self._attempt("artifact", send)

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Sets final numbers."""
        self._attempt("summary", lambda run: run.summary.update(dict(metrics)))

    def close(self, exit_code: int) -> None:
        """Ends the run; says how to send what W&B has not got, where it was lost on the way."""
        ended = self._run is not None
        self._attempt("finish", lambda run: run.finish(exit_code=exit_code))
        self._run = None
        if ended:
            # `finish` does not wait for W&B's own process, which still writes the run's file.
            self._end_service()
        how = self._how_to_send() if self._lost else None
        if how is not None:
            print(f"W&B was lost during this run; send what is kept with: {how}", flush=True)
        self._lost = False

    def _attempt(self, what: str, send: Callable[[Any], None]) -> None:
        if self._run is None:
            return
        try:
            send(self._run)
        except Exception as error:
            before, self._lost, self._run = self._lost, True, None
            self._end_service()
            again = not before and self._begin_again()
            logger.warning(
                "%s (%s failed: %s); the files in %s are complete without it",
                "W&B is lost, and this run goes on offline"
                if again
                else "W&B is off for the rest of this run",
                what,
                _brief(error),
                self._folder,
            )
            if again and what == "finish":
                with suppress(Exception):
                    send(self._run)

    def _begin_again(self) -> bool:
        """Begins the same run anew, offline, with all that was logged so far."""
        try:
            run = self._init(self._config, "offline", self._run_id())
            for step, metrics in self._history():
                run.log({**metrics, "step": step})
        except Exception:
            self._end_service()
            return False
        self._run, self._mode = run, "offline"
        return True

    def _how_to_send(self) -> str | None:
        """The command that sends the newest of the run's own files; None where there is none."""
        files = (self._folder / "wandb").glob("*run-*/run-*.wandb")
        newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
        return None if newest is None else f"wandb sync {newest.parent}"

    def _start(self, config: Config, mode: Mode) -> Any:
        """The W&B run, online or else offline or else None, with one warning in all."""
        failures: list[str] = []
        first_id = self._run_id()
        attempts: list[tuple[Mode, str]] = [(mode, first_id)]
        if mode == "online":
            logger.info("connecting to W&B, for at most %d s", INIT_SECONDS)
            # W&B's own process may hold the first id as in use, where another program started it.
            attempts += [("offline", first_id), ("offline", secrets.token_hex(4))]
        for attempt, run_id in attempts:
            try:
                run = self._init(config, attempt, run_id)
            except Exception as error:
                failures.append(f"{attempt}: {_brief(error)}")
                self._end_service()
                continue
            self._mode = attempt
            self._keep_run_id(run_id)
            if attempt == "online":
                keep_address(self._folder, run)
            if failures:
                logger.warning("W&B cannot be reached (%s): logging offline", failures[0])
            return run
        logger.warning("W&B is off for this run (%s)", "; ".join(dict.fromkeys(failures)))
        return None

    def _init(self, config: Config, mode: Mode, run_id: str) -> Any:
        import wandb

        self._wandb = wandb
        if getattr(self._wandb, "run", None) is not None:
            # One whose service is dead cannot be finished, and would be taken for the new one.
            with suppress(Exception):
                self._wandb.run.finish()
            self._wandb.run = None
        run = self._wandb.init(
            project=config.logger.project,
            entity=config.logger.entity,
            name=self._name(config),
            group=os.environ.get(GROUP),
            tags=config.logger.tags or None,
            config=config.plain(),
            dir=str(self._folder),
            id=run_id,
            resume="allow" if mode == "online" else None,
            mode=mode,
            settings=_settings(self._wandb),
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        return run

    def _end_service(self) -> None:
        """Ends W&B's own process once it has written; it would else hold the run's id as in use."""
        with suppress(Exception, SystemExit):
            self._wandb.teardown()

    def _name(self, config: Config) -> str:
        """A sweep's points are told apart by their folders; elsewhere the run's own name."""
        in_group = self._folder.parent.name == os.environ.get(GROUP)
        return (self._folder.name if in_group else config.name)[:LONGEST_NAME]

    def _run_id(self) -> str:
        """The id that a resumed run goes on with, or a fresh one."""
        with suppress(OSError, UnicodeDecodeError):
            if known := (self._folder / RUN_ID_FILE).read_text(encoding="utf-8").strip():
                return known
        return secrets.token_hex(4)

    def _keep_run_id(self, run_id: str) -> None:
        try:
            write_text(self._folder / RUN_ID_FILE, run_id + "\n")
        except RunError as error:
            logger.warning("%s; a resumed run will be a new W&B run", error)


def _settings(wandb: Any) -> Any:
    """Short waits, no chatter, no capture of the terminal, no copy of the reader's code."""
    wanted = {
        "init_timeout": INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "login_timeout": INIT_SECONDS,
        "silent": True,
        "console": "off",
        "disable_code": True,
        # It takes a remote's address with a token in the user's place; environment.json has the
        # commit.
        "disable_git": True,
        "save_code": False,
    }
    known = getattr(wandb.Settings, "model_fields", wanted)
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _brief(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
