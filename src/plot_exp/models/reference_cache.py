"""Log-probabilities of a fixed model on a fixed set of responses, kept in a memory-mapped file.

One file holds one set under one model: it is complete or does not exist. While it is filled, its
parts stand beside it, each whole, so that a filling that was killed goes on where it stopped. Each
response is always scored in the same batch of its set, hence the numbers do not depend on how
often the filling was interrupted. A system lock, which dies with its process, lets one fill and
the others wait.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from plot_exp.data.collate import Batch
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.files import remove_leftovers, replacing
from plot_exp.ops.scores import Scores
from plot_exp.progress import Bar

LAYOUT = 2  # raise it when the file's layout or the meaning of its numbers changes
BATCHES_A_PART = 16
KEY_BYTES = 16

Say = Callable[[str], None]


def response_keys(item: TokenisedExample) -> list[bytes]:
    """What tells each scored response from any other: the prompt's ids and its own."""
    length = len(item.prompt_ids)
    prompt = hashlib.blake2b(length.to_bytes(8, "little"), digest_size=KEY_BYTES)
    prompt.update(array("q", item.prompt_ids).tobytes())
    keys = []
    for ids in item.response_ids:
        whole = prompt.copy()
        whole.update(array("q", ids).tobytes())
        keys.append(whole.digest())
    return keys


class StoredScores:
    """An open file: token log-probabilities by response, read from disk as they are asked for."""

    def __init__(self, keys: Sequence[bytes], starts: np.ndarray, logps: np.ndarray) -> None:
        self._place = {key: row for row, key in enumerate(keys)}
        self._starts, self._logps = starts, logps

    def __len__(self) -> int:
        return len(self._place)

    def rows(self, keys: Sequence[bytes]) -> list[Tensor] | None:
        """The token log-probabilities of each response; None unless all of them are there."""
        places = [self._place[key] for key in keys if key in self._place]
        if len(places) < len(keys):
            return None
        return [
            torch.from_numpy(np.array(self._logps[self._starts[row] : self._starts[row + 1]]))
            for row in places
        ]


class ReferenceCache:
    """The file of one model and one set of examples.

    Args:
        folder: where all such files lie.
        identity: of the model and of everything else that its numbers depend on.
        items: the examples; which of them comes first does not matter.
    """

    def __init__(self, folder: Path, identity: str, items: Sequence[TokenisedExample]) -> None:
        by_keys = {b"".join(response_keys(item)): item for item in items}
        digest = hashlib.sha256(f"{LAYOUT}\x1f{identity}\x1e".encode())
        for keys in sorted(by_keys):
            digest.update(keys + b"\x1e")
        # Each example once, in an order that their contents alone determine.
        self.items = [by_keys[keys] for keys in sorted(by_keys)]
        self._wanted = {
            keys[at : at + KEY_BYTES] for keys in by_keys for at in range(0, len(keys), KEY_BYTES)
        }
        self.key = digest.hexdigest()
        self.path = folder / f"{self.key[:32]}.safetensors"
        self.parts = folder / f"{self.key[:32]}.parts"

    def open(self) -> StoredScores | None:
        """The complete file; None where it is missing, torn or holds anything else."""
        found = _read(self.path, self.key)
        if found is None:
            return None
        return StoredScores(*found) if self._wanted <= set(found[0]) else None

    def fill(
        self,
        batches: Callable[[Sequence[TokenisedExample]], Iterable[Batch]],
        score: Callable[[Batch], Scores],
        bar: Bar,
        say: Say = print,
    ) -> StoredScores:
        """The complete file, computed as far as it is missing.

        Args:
            batches: lays examples out, the same way each time.
            score: the model's scores of a batch.
        """
        from filelock import FileLock, Timeout

        if (found := self.open()) is not None:
            return found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another run computes the reference's scores; waiting for it")
            lock.acquire()
        try:
            if (found := self.open()) is not None:
                return found
            self._tidy(say)
            return self._fill(batches, score, bar)
        finally:
            lock.release()

    def _tidy(self, say: Say) -> None:
        """Removes what killed writers left, and a file that is not what it should be."""
        for path in self.path.parent.glob(f".{self.path.name}.*.part"):
            path.unlink(missing_ok=True)
        if self.path.exists():
            say(f"{self.path} is damaged; it is computed again")
            self.path.unlink()
        if self.parts.is_dir():
            remove_leftovers(self.parts)

    def _fill(
        self,
        batches: Callable[[Sequence[TokenisedExample]], Iterable[Batch]],
        score: Callable[[Batch], Scores],
        bar: Bar,
    ) -> StoredScores:
        laid_out = list(batches(self.items))
        plan = [
            laid_out[at : at + BATCHES_A_PART] for at in range(0, len(laid_out), BATCHES_A_PART)
        ]
        marks = [_mark(self.key, group) for group in plan]
        files = [self.parts / f"{place:05d}.safetensors" for place in range(len(plan))]
        missing = [place for place in range(len(plan)) if _read(files[place], marks[place]) is None]
        todo = [(place, batch) for place in missing for batch in plan[place]]
        done: list[tuple[list[bytes], list[np.ndarray]]] = []
        for count, (place, batch) in enumerate(
            bar(todo, "scoring with the reference", len(todo)), 1
        ):
            done.append(_scored(batch, score))
            if count == len(todo) or todo[count][0] != place:
                _write(files[place], marks[place], done)
                done = []
        self._join(files, marks)
        found = self.open()
        assert found is not None
        return found

    def _join(self, files: Sequence[Path], marks: Sequence[str]) -> None:
        """Makes the parts one file, and then removes them."""
        pieces = []
        for file, mark in zip(files, marks, strict=True):
            part = _read(file, mark)
            assert part is not None
            keys, starts, logps = part
            pieces.append((keys, [logps[a:b] for a, b in pairwise(starts)]))
        _write(self.path, self.key, pieces)
        shutil.rmtree(self.parts, ignore_errors=True)


def _scored(batch: Batch, score: Callable[[Batch], Scores]) -> tuple[list[bytes], list[np.ndarray]]:
    scores = score(batch)
    lengths = scores.length.tolist()
    rows = [row.numpy() for row in scores.token_logps.detach().cpu().split(lengths)]
    return [key for item in batch.sources for key in response_keys(item)], rows


def _mark(key: str, group: Sequence[Batch]) -> str:
    """What a part is: the responses of its batches, batch by batch."""
    digest = hashlib.sha256(key.encode())
    for batch in group:
        digest.update(b"\x1e")
        for item in batch.sources:
            digest.update(b"".join(response_keys(item)))
    return digest.hexdigest()


def _write(
    path: Path, mark: str, pieces: Sequence[tuple[Sequence[bytes], Sequence[np.ndarray]]]
) -> None:
    """One file, whole or not at all; `mark` says what it holds."""
    keys = [key for some, _ in pieces for key in some]
    rows = [row for _, some in pieces for row in some]
    arrays: dict[str, np.ndarray] = {
        "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES),
        "starts": np.cumsum([0, *map(len, rows)], dtype=np.int64),
        "token_logps": np.concatenate(rows),
    }
    # One entry: several would be written in any order, and equal contents are to be equal files.
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"holds": f"{mark} {_checksum(arrays)}"})


def _read(path: Path, mark: str) -> tuple[list[bytes], np.ndarray, np.ndarray] | None:
    """Keys, starts and mapped log-probabilities; None unless the file is what it should be."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < path.stat().st_size else {}
        arrays = {
            name: np.memmap(
                path,
                dtype=_DTYPES[header[name]["dtype"]],
                mode="r",
                offset=8 + size + header[name]["data_offsets"][0],
                shape=tuple(header[name]["shape"]),
            )
            for name in ("keys", "starts", "token_logps")
        }
        if header["__metadata__"]["holds"] != f"{mark} {_checksum(arrays)}":
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    keys = [row.tobytes() for row in np.asarray(arrays["keys"])]
    return keys, np.asarray(arrays["starts"]), arrays["token_logps"]


_DTYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "F64": np.float64}


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
