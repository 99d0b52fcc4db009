"""The weight files of a directory as hubs deliver it: what they hold, and whether all are there.

Only the headers are read. A safetensors file begins with the length of its header, eight bytes,
little-endian; the header is JSON and says of each tensor its dtype, shape and place; the file ends
with the last of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plot_exp.errors import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
POINTER = b"version https://git-lfs"


def check_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's directory, in order.

    Raises:
        UserError: they are not there, not complete, or not what the index says.
    """
    if (folder / SINGLE).is_file():
        tensors_in(folder / SINGLE)
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise UserError(_none(folder))
    named = _index(folder / INDEX)
    files = [folder / name for name in sorted(set(named.values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UserError(
            f"{folder}: {absent[0]} is missing, {len(absent)} of the {len(files)} files that "
            f"{INDEX} names; copy or download it again"
        )
    held = {file.name: tensors_in(file).keys() for file in files}
    for tensor, name in named.items():
        if tensor not in held[name]:
            raise UserError(
                f"{folder / INDEX}: says that {tensor} is in {name}, which does not hold it; the "
                "index and the files are of different models or versions: download both again"
            )
    return files


def tensors_in(file: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file holds: dtype, shape and offsets of each tensor, by its name.

    Raises:
        UserError: it is cut short, or no such file at all.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        start = content.read(len(POINTER))
        if start == POINTER:
            raise UserError(
                f"{file}: a pointer of Git LFS, not the weights; run `git lfs pull` there"
            )
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or length > LONGEST_HEADER:
            raise UserError(f"{file}: no safetensors file; copy or download it again")
        content.seek(8)
        header = content.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        end = 8 + length + max((one["data_offsets"][1] for one in tensors.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        if len(header) < length:
            raise UserError(_cut(file, size, 8 + length)) from error
        raise UserError(f"{file}: its header cannot be read; download it again") from error
    if size < end:
        raise UserError(_cut(file, size, end))
    found: dict[str, dict[str, Any]] = tensors
    return found


def _cut(file: Path, size: int, end: int) -> str:
    return (
        f"{file}: cut short, {size:,} bytes are there of at least {end:,}; "
        "copy or download it again"
    )


def _index(file: Path) -> dict[str, str]:
    try:
        named = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        if not (named and all(isinstance(name, str) for name in named.values())):
            raise ValueError("no weight is named")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no index of weights; copy or download it again") from error
    outside = [name for name in named.values() if Path(name).name != name]
    if outside:
        raise UserError(f"{file}: names {outside[0]}, which is not a file of that folder")
    return dict(named)


def _none(folder: Path) -> str:
    pickled = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth") for file in folder.glob(kind))
    if pickled:
        return (
            f"{folder}: holds pickled weights alone ({pickled[0]}), which can run code when they "
            "are loaded; convert them to safetensors"
        )
    return f"{folder}: holds no weights: neither {SINGLE} nor {INDEX}"
