"""AlpacaEval's published files, in a folder or on the hub."""

from __future__ import annotations

from pathlib import Path

from plot_exp.errors import UserError
from plot_exp.evals.alpaca_eval_records import Output, read_outputs
from plot_exp.evals.base import CannotRunError
from plot_exp.evals.length_control_tables import Tables, read_tables
from plot_exp.evals.published import find_folder

FOLDER = "alpaca_eval"
HUB_NAME = "tatsu-lab/alpaca_eval"

# What a file may be called: in a folder of this project's layout, and on the hub.
BASELINE = ("baseline_*outputs.json", "alpaca_eval_gpt4_baseline.json")
DIFFICULTY = ("instruction_difficulty*.csv",)
WEIGHTS = ("length_controlled_weights*.csv", "baseline_gpt4_1106_preview.csv")
GAMED = ("df_gamed*.csv",)


def open_tables(path: str | None, *, required: bool = True) -> tuple[Tables, list[Output]]:
    """The tables of the length control, and the baseline's outputs.

    Without a folder the files come from the hub, as far as it has them and can be reached.

    Args:
        required: the baseline's outputs have to be there.

    Raises:
        UserError: a file cannot be used, or a folder has two that fit.
        CannotRunError: the baseline's outputs are required and nowhere.
    """
    try:
        folder = find_folder(path, FOLDER, "eval.alpaca_eval.path", "AlpacaEval")
    except CannotRunError:
        found = _from_hub(BASELINE, DIFFICULTY, GAMED)
        if required and found[BASELINE] is None:
            raise
    else:
        found = {names: _in(folder, names) for names in (BASELINE, DIFFICULTY, WEIGHTS, GAMED)}
        if required and found[BASELINE] is None:
            raise CannotRunError(
                f"AlpacaEval needs the baseline's outputs, and {folder} holds none: expected "
                f"{' or '.join(BASELINE)}"
            ) from None
    outputs = found[BASELINE]
    baseline = read_outputs(outputs) if outputs else []
    tables = read_tables(
        difficulty=found[DIFFICULTY],
        weights=found.get(WEIGHTS),
        gamed_rows=found[GAMED],
        instructions=[output.instruction for output in baseline],
    )
    return tables, baseline


def _in(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        found = sorted(folder.glob(name))
        if len(found) > 1:
            raise UserError(
                f"{folder} holds {found[0].name} and {found[1].name}; leave one that is {name}"
            )
        if found:
            return found[0]
    return None


def _from_hub(*wanted: tuple[str, ...]) -> dict[tuple[str, ...], Path | None]:
    """The files that the hub has; a hub that cannot be reached is asked once, not for each."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found: dict[tuple[str, ...], Path | None] = dict.fromkeys(wanted)
    for names in wanted:
        file = names[-1].replace("*", "")
        try:
            found[names] = Path(hf_hub_download(HUB_NAME, file, repo_type="dataset"))
        except LocalEntryNotFoundError:  # neither the hub nor its cache
            break
        except EntryNotFoundError:
            continue
        except Exception:  # no permission, no disk, or a hub that breaks off
            break
    return found
