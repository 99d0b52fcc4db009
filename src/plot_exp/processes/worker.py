"""`python -m plot_exp.processes.worker`: one of a run's processes, started by the first one.

What to do stands on its standard input; which process it is, in torchrun's variables.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from plot_exp.config.problems import validated
from plot_exp.config.schema import Config
from plot_exp.dispatch import run
from plot_exp.errors import RunError
from plot_exp.processes.children import SECONDS_TO_END
from plot_exp.processes.session import LOOK_EVERY


def main() -> int:
    """Takes part in the run.

    Returns:
        The exit code; what there is to say, the first process says.
    """
    atexit.register(gc.freeze)  # as in `__main__`
    # Ctrl-C goes to every process of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.load(sys.stdin)
    threading.Thread(target=_end_with, args=(told["parent"],), daemon=True).start()
    config = validated(Config, told["config"], source="the run's first process")
    try:
        return run(config, Path(told["run_dir"])).exit_code
    except KeyboardInterrupt:
        return RunError.exit_code


def _end_with(parent: int) -> None:
    """Ends this process once the one that started it is gone, wherever it waits."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    time.sleep(SECONDS_TO_END)
    os._exit(RunError.exit_code)


if __name__ == "__main__":
    sys.exit(main())
