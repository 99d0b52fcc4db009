"""How the processes of a run wait for one another."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from torch.distributed import HashStore

from plot_exp.processes.ranks import Ranks
from plot_exp.processes.session import Joined, Session


def test_a_machine_opens_one_model_at_a_time_and_the_first_process_is_before_all() -> None:
    store = HashStore()
    open_now: dict[int, list[int]] = {0: [], 1: []}
    order: list[int] = []

    def process(rank: int) -> int:
        ranks = Ranks(rank=rank, size=4, local_rank=rank % 2, local_size=2)
        session = Joined(ranks, store, store, None, lambda failure: None)

        def opened() -> int:
            machine = open_now[ranks.node]
            machine.append(rank)
            order.append(rank)
            time.sleep(0.05)
            assert machine == [rank]
            machine.remove(rank)
            return rank

        try:
            return session.in_turn("opening", opened)
        finally:
            session.close()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(process, [3, 2, 1, 0]))

    assert found == [3, 2, 1, 0]
    assert order[0] == 0
    assert order.index(2) < order.index(3)


def test_one_process_alone_waits_for_nobody() -> None:
    assert Session().in_turn("opening", lambda: 7) == 7
