"""Where W&B shows a run, kept beside it for whoever writes about it later."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from plot_exp.errors import RunError
from plot_exp.files import write_text

ADDRESS_FILE = "wandb_url.txt"


def keep_address(run_dir: Path, run: Any) -> None:
    """Writes the address of a run that is logged online; another has none."""
    if address := str(getattr(run, "url", None) or ""):
        with suppress(RunError):
            write_text(run_dir / ADDRESS_FILE, address + "\n")


def known_address(run_dir: Path) -> str | None:
    """The address of a run that was logged online."""
    try:
        text = (run_dir / ADDRESS_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"https?://[^\s<>\"]+", text) else None
