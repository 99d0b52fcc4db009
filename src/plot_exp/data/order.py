"""Which examples stand together: over an epoch, and within one optimizer's batch.

All of it is a pure function of seed, epoch and lengths, so that a run that is resumed at any step
sees the batches that it would have seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

# Batches whose examples are sorted by length together: enough to spare padding, few enough for an
# example to meet a new company in every epoch.
BATCHES_A_BUCKET = 32


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of `count` examples in one epoch."""
    return torch.randperm(count, generator=_generator(seed, epoch)).tolist()


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def grouped_order(lengths: Sequence[int], seed: int, epoch: int, batch_size: int) -> list[int]:
    """An epoch in which the batches hold examples of similar lengths, in random order.

    The shuffled examples are cut into buckets of `BATCHES_A_BUCKET` batches. Within a bucket they
    are sorted by length and cut into batches, and the batches are shuffled. A batch that lies
    across the end of an epoch takes what the shuffle brings.
    """
    count = len(lengths)
    order = epoch_order(count, seed, epoch)
    head = min(-epoch * count % batch_size, count)  # the rest of the last epoch's last batch
    tail = count - (count - head) % batch_size
    generator = _generator(seed, -1 - epoch)
    grouped = order[:head]
    for start in range(head, tail, BATCHES_A_BUCKET * batch_size):
        bucket = order[start : min(start + BATCHES_A_BUCKET * batch_size, tail)]
        bucket.sort(key=lambda index: lengths[index])
        batches = torch.randperm(len(bucket) // batch_size, generator=generator).tolist()
        for batch in batches:
            grouped += bucket[batch * batch_size : (batch + 1) * batch_size]
    return grouped + order[tail:]


def in_runs(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Parts of at most `size` of similar lengths: places sorted by length, cut in order.

    One part that takes all keeps the order.
    """
    places = list(range(len(lengths)))
    if size < len(places):
        places.sort(key=lambda place: lengths[place])
    return [places[start : start + size] for start in range(0, len(places), size)]


def balanced(lengths: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Parts of the given sizes with totals about equal, each in the order of places.

    The longest is dealt first, to the part with the smallest total that has room.
    """
    parts: list[list[int]] = [[] for _ in sizes]
    totals = [0] * len(sizes)
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        free = [part for part, size in enumerate(sizes) if len(parts[part]) < size]
        least = min(free, key=lambda part: (totals[part], part))
        parts[least].append(place)
        totals[least] += lengths[place]
    return [sorted(part) for part in parts]


def even_sizes(count: int, parts: int) -> list[int]:
    """`count` in `parts` numbers that differ by one at most."""
    edges = [part * count // parts for part in range(parts + 1)]
    return [stop - start for start, stop in itertools.pairwise(edges)]


def sizes_up_to(count: int, size: int) -> list[int]:
    """`count` in as few numbers as possible, none above `size`."""
    return even_sizes(count, math.ceil(count / size)) if count else []
