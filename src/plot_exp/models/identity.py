"""What tells one set of weights from another: by files without reading all, or by every number."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


# What a configuration says beside the model's computation.
_INCIDENTAL = frozenset(
    {"_name_or_path", "transformers_version", "use_cache", "architectures", "dtype", "torch_dtype"}
)


def weights_fingerprint(model: Any, leave_out: str | None = None) -> str:
    """A hash over every number of a loaded model and over its configuration.

    Adapters are part of it; weights that carry one count under the name that they have without.

    Args:
        model: a transformers model.
        leave_out: the name of an adapter that does not count.
    """
    import torch

    from plot_exp.models.parts import whole as in_one_piece

    def digest(entry: tuple[str, torch.Tensor]) -> bytes:
        name, tensor = entry
        content = hashlib.sha256(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        content.update(flat.view(torch.uint8).numpy().data)
        return content.digest()

    entries = [
        (name.replace(".base_layer.", "."), tensor)
        for name, tensor in sorted(model.state_dict().items())
        if leave_out is None or not (f".{leave_out}." in name or name.endswith(f".{leave_out}"))
    ]
    settings = {
        key: value for key, value in model.config.to_dict().items() if key not in _INCIDENTAL
    }
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    entries.sort(key=lambda entry: entry[0])
    if any(hasattr(tensor, "full_tensor") for _, tensor in entries):
        # Processes gather weights that lie in parts in one order.
        for name, tensor in entries:
            whole.update(digest((name, in_one_piece(tensor))))
        return whole.hexdigest()
    # Hashing leaves the interpreter's lock, so threads share the work.
    with ThreadPoolExecutor(4) as pool:
        for part in pool.map(digest, entries):
            whole.update(part)
    return whole.hexdigest()
