"""Pushing a folder to the Hugging Face hub, with a token from the environment alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from plot_exp.errors import RunError, UserError
from plot_exp.redaction import redact, remember

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
REFUSED = {
    401: "the token is not valid",
    403: "the token may not write there; it needs the right to write to this repository",
    404: "there is no such owner, or the token may not see it",
    409: "a repository of that name is in the way",
    429: "too many requests; try again later",
}


class Hub:
    """One repository on the hub.

    Args:
        repository: OWNER/NAME.

    Raises:
        UserError: no token, no network, or a token that the hub refuses: known before any work.
    """

    def __init__(self, repository: str) -> None:
        from huggingface_hub import HfApi

        self.repository = repository
        self._api: Any = HfApi(token=_token(repository))
        self._ask("whoami")

    def push(self, folder: Path, *, private: bool) -> str:
        """Uploads a folder as it is, into a repository that is made where it is missing.

        Returns:
            Its address.

        Raises:
            UserError: the repository may not be written, or others can read it and should not.
            RunError: the upload broke off.
        """
        self._ask("create_repo", self.repository, private=private, exist_ok=True)
        found = self._ask("repo_info", self.repository)
        if private and not found.private:
            raise UserError(
                f"export.push_to={self.repository}: this repository is there and everybody can "
                "read it; write export.private=false if that is meant, or name another one. "
                f"Nothing was uploaded; the model is in {folder}"
            )
        said = "Upload a model trained with plot_exp"
        try:
            self._ask(
                "upload_folder",
                repo_id=self.repository,
                folder_path=str(folder),
                commit_message=said,
            )
        except UserError as error:
            raise RunError(f"{error}. The model is in {folder}") from error
        return f"{self._api.endpoint}/{self.repository}"

    def _ask(self, what: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._api, what)(*args, **options)
        except Exception as error:  # the library and its transports raise types of their own
            raise UserError(f"export.push_to={self.repository}: {_reason(error)}") from None


def _token(repository: str) -> str:
    for name in TOKEN_VARIABLES:
        if token := (os.environ.get(name) or "").strip():
            remember(token)
            if not (token.isascii() and token.isprintable() and " " not in token):
                raise UserError(f"the token in {name} holds characters that no token has")
            return token
    raise UserError(
        f"export.push_to={repository} needs a token of the hub that may write: put it into the "
        f"variable {TOKEN_VARIABLES[0]} of the environment"
    )


def _reason(error: Exception) -> str:
    """What went wrong in words, without anything that the request held."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        why = REFUSED.get(status, "try again later" if status >= 500 else "the hub refused")
        return f"{why} (HTTP {status})"
    lines = redact(str(error)).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    if type(error).__name__ == "OfflineModeIsEnabled" or os.environ.get("HF_HUB_OFFLINE") == "1":
        return "HF_HUB_OFFLINE forbids the network"
    if isinstance(error, OSError) or "Connect" in said or "Timeout" in said:
        return f"the hub cannot be reached ({said})"
    return said
