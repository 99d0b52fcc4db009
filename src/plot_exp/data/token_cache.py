"""Tokenised data on disk, found again by everything that it depends on.

The key is a hash over the tokenizer, the chat template, the truncation, the versions of the
libraries and every text, so that a change of any of them finds nothing. A file is written whole or
not at all, and two writers write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from plot_exp.data.encoded import Encoded
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.tokenise import ChatTokeniser, encode
from plot_exp.errors import RunError
from plot_exp.files import replacing

FORM = 1  # raise it when `encode` or the file's arrays change their meaning
ARRAYS = ("outcome", "cut", "spelled", "tokens", "ends")


class TokenCache:
    """Does what `encode` does, and keeps it.

    Args:
        folder: where the files lie; it may be read-only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, examples: Sequence[PreferenceExample], tokeniser: ChatTokeniser, max_length: int
    ) -> Encoded:
        """See `tokenise.encode`."""
        key = fingerprint(examples, tokeniser, max_length)
        path = self.folder / f"{key[:32]}.safetensors"
        responses = [len(example.responses) for example in examples]
        found = _read(path, key)
        if found is not None and found.fits(responses):
            return found
        if path.exists():
            print(f"{path} is damaged; the data are tokenised again", flush=True)
        found = encode(examples, tokeniser, max_length)
        try:
            with replacing(path) as temporary:
                arrays = {name: getattr(found, name) for name in ARRAYS}
                save_file(arrays, temporary, metadata={"key": key})
        except RunError as error:
            print(f"tokenised data are not kept: {error}", flush=True)
        return found


def fingerprint(
    examples: Sequence[PreferenceExample], tokeniser: ChatTokeniser, max_length: int
) -> str:
    """What the ids depend on, as a hash."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            text = str(part).encode("utf-8", errors="surrogatepass")
            digest.update(len(text).to_bytes(8, "little") + text)

    add(FORM, transformers.__version__, tokenizers.__version__, max_length)
    add(tokeniser.template, tokeniser.plain, tokeniser.adds_bos)
    add(tokeniser.eos_id, tokeniser.bos_id, *_vocabulary(tokeniser))
    for example in examples:
        add(len(example.prompt), len(example.responses))
        for message in example.prompt:
            add(message.role, message.content)
        add(*example.responses)
    return digest.hexdigest()


def _vocabulary(tokeniser: ChatTokeniser) -> list[str]:
    """The tokenizer's rules and words, special ones included."""
    tokenizer = tokeniser.tokenizer
    special = sorted(f"{token}" for token in tokenizer.all_special_tokens)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        added = sorted(
            (number, str(token)) for number, token in tokenizer.added_tokens_decoder.items()
        )
        words = sorted(tokenizer.get_vocab().items())
        return [
            type(tokenizer).__name__,
            str(tokenizer.init_kwargs),
            str(words),
            str(added),
            *special,
        ]
    rules = json.loads(backend.to_str())
    # How the last call cut or padded is no part of it.
    rules.pop("truncation", None)
    rules.pop("padding", None)
    return [json.dumps(rules, sort_keys=True), *special]


def _read(path: Path, key: str) -> Encoded | None:
    """What stands in the file; None where there is none, or another's."""
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            arrays: dict[str, np.ndarray] = {name: file.get_tensor(name) for name in ARRAYS}
    except (OSError, SafetensorError):
        return None
    return Encoded(**arrays)
