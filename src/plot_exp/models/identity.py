"""What tells one set of weights from another, without reading all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

SAMPLED_BYTES = 1 << 20


def model_identity(origin: str, revision: str | None) -> str:
    """A hub id with its revision, or a hash over the weight files of a directory.

    Of each file the name, the size, and the first and last megabyte are hashed: training changes
    every tensor, so that is enough to see it, and a 7B directory takes no time.
    """
    folder = Path(origin)
    if not folder.is_dir():
        return f"{origin}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\x1f{size}\x1e".encode())
        with file.open("rb") as content:
            digest.update(content.read(SAMPLED_BYTES))
            if size > 2 * SAMPLED_BYTES:
                content.seek(-SAMPLED_BYTES, 2)
                digest.update(content.read(SAMPLED_BYTES))
    return digest.hexdigest()
