"""Distributions over the tokens that may carry mass."""

from __future__ import annotations

import torch
from torch import Tensor


def restrict(p: Tensor, allowed: Tensor) -> Tensor:
    """Removes the mass of the other tokens and renormalises; differentiable in `p`.

    Args:
        p: non-negative masses [..., V]; half precision is raised to fp32.
        allowed: BoolTensor [V].

    Returns:
        [..., V], zero off `allowed`; each row sums to one (a row without mass on `allowed` stays
        zero).
    """
    p = p if p.dtype in (torch.float32, torch.float64) else p.float()
    kept = torch.where(allowed, p, 0)
    return kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
