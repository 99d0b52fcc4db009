"""One of several processes that share an optimizer's batch: `process_worker.py FOLDER JOBS`.

Started by tests/training/test_processes.py with torch.distributed's environment variables; JOBS
is a JSON list of {loss, sizes, mode, dropout, parts}: sizes holds the microbatches of every rank,
and parts says whether the policy's weights are cut. Losses and gradients go to FOLDER/rank.pt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from plot_exp.models.parts import whole
from plot_exp.training.sharding import shard
from plot_exp.training.world import Processes

from coupling_runs import Run


def main(folder: Path, jobs: list[dict]) -> None:
    """Takes each job's step and saves what came of it."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    saved = []
    for job in jobs:
        run = Run(job["loss"], dropout=job["dropout"])
        world = Processes(torch.device("cpu"), sums_gradients=job["parts"])
        if job["parts"]:
            shard(run.policy, mesh, None)
        step = {"mode": job["mode"], "world": world}
        outcome, _ = run.step(job["sizes"], **step)
        if job["mode"] == "carried":
            outcome, _ = run.step(job["sizes"], carried=outcome.parts, **step)
        world.add_gradients(run.policy.parameters())
        saved.append(
            {
                "losses": {name: result.loss for name, result in outcome.terms.items()},
                "gradients": [whole(parameter.grad) for parameter in run.policy.parameters()],
                "sums": outcome.whole(world).policy.sums(),
            }
        )
    torch.save(saved, folder / f"{world.rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
