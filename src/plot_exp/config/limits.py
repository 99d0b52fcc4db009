"""What a file that is read may hold at most."""

from __future__ import annotations

from pydantic import Field

from plot_exp.config.base import Section
from plot_exp.reading import MEGABYTE, Limits, use_limits


class LimitsConfig(Section):
    """Bounds on files from elsewhere; real data stay far below them.

    Attributes:
        record_mb: megabytes (2^20 bytes) of one line, record or cell.
        document_mb: megabytes of one JSON document.
        expansion: how many times its own size a compressed file may grow when it is read.
    """

    record_mb: float = Field(64.0, gt=0, le=2**20)
    document_mb: float = Field(1024.0, gt=0, le=2**20)
    expansion: float = Field(200.0, ge=1, le=2**20)


def apply_limits(config: LimitsConfig) -> None:
    """Puts them in force for this process."""
    use_limits(
        Limits(
            record=int(config.record_mb * MEGABYTE),
            document=int(config.document_mb * MEGABYTE),
            expansion=config.expansion,
        )
    )
