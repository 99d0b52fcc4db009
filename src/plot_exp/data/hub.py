"""Published datasets by their hub names; the only place that imports `datasets`."""

from __future__ import annotations

from plot_exp.data.files import Row
from plot_exp.errors import UserError

_SPLITS = {"train": "train", "validation": "validation", "test": "validation"}


def load(
    name: str, *, config: str | None = None, data_dir: str | None = None
) -> dict[str, list[Row]]:
    """Downloads (or takes from the cache) a dataset and gives its rows by split.

    Args:
        name: the hub id, such as `openai/gsm8k`.
        config: the configuration within it.
        data_dir: the folder within it.

    Returns:
        Rows under `train` and `validation`, or under `all` where there is one split. Of
        `validation` and `test`, the validation split is taken.

    Raises:
        UserError: it cannot be loaded, most often because there is no network.
    """
    try:
        import datasets

        loaded = datasets.load_dataset(name, config, data_dir=data_dir)
    except Exception as error:
        # The library raises anything from OSError to its own types; all end the same way here.
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise UserError(
            f"The dataset {name} cannot be loaded from the hub ({reason}); pass "
            "dataset.path=FILE_OR_FOLDER with a local copy, or check the network."
        ) from error
    where = "/".join(part for part in (name, config or data_dir) if part)
    found: dict[str, list[Row]] = {}
    for split, target in _SPLITS.items():
        if split in loaded and target not in found:
            found[target] = [
                Row(dict(values), f"{where}:{split}", row)
                for row, values in enumerate(loaded[split])
            ]
    if not found:
        raise UserError(
            f"The dataset {name} has the splits {', '.join(loaded)}; expected train, validation or "
            "test."
        )
    return found if len(found) > 1 else {"all": next(iter(found.values()))}
