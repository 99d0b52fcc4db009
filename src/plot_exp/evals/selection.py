"""Which cases a limit keeps: as evenly over the groups as there are, the same each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(
    items: Sequence[T], group: Callable[[T], str], limit: int | None, seed: int | None = None
) -> list[T]:
    """At most `limit` items, round by round over the groups, in the items' own order.

    Args:
        limit: None for all.
        seed: of the order within a group; None takes each group's first.
    """
    if limit is None or limit >= len(items):
        return list(items)
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(group(item), []).append(place)
    ranked: list[tuple[int, int]] = []
    for name, members in places.items():
        if seed is not None:
            random.Random(f"{seed}/{name}").shuffle(members)
        ranked += enumerate(members)
    # Of one round, the groups come in the order in which they first appear.
    order = {name: number for number, name in enumerate(places)}
    ranked.sort(key=lambda one: (one[0], order[group(items[one[1]])]))
    return [items[place] for place in sorted(place for _, place in ranked[:limit])]
