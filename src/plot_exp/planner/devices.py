"""The devices of a run: how many, how large, how fast, and what share of the weights each has."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from plot_exp.config.schema import Config
from plot_exp.ops.memory import free_bytes

GIB = 2**30
# Memory in GB and dense bf16 TFLOP/s, by the maker's data sheets.
GPUS = {
    "A100-40": (40.0, 312.0),
    "A100": (80.0, 312.0),
    "H100": (80.0, 989.0),
    "H200": (141.0, 989.0),
    "L40S": (48.0, 362.0),
    "RTX4090": (24.0, 165.0),
}
# Of a GPU's memory, what is left for tensors beside the driver's context and kernels.
USABLE = 0.97
# What is taken where nothing is named or found.
USUAL, EVERY = "H100", 8
PRODUCT = 1_024  # rows of the matrices that a CPU is timed with


@dataclass(frozen=True)
class Devices:
    """What a run is planned for.

    Attributes:
        kind: `cpu` or `cuda`.
        count: devices, one process each.
        sharded: each holds a share of the weights, gradients and optimizer states.
        memory: bytes of each.
        source: where that number comes from.
    """

    kind: str
    count: int
    sharded: bool
    memory: int
    source: str

    @property
    def shares(self) -> dict[str, float]:
        """The factor of each part that lies in shares."""
        if not self.sharded:
            return {}
        parts = ("weights", "gradients", "gradients by term", "optimizer", "reference")
        # Gathered weights stand for what autocast would keep.
        return dict.fromkeys(parts, 1 / self.count) | {"autocast copies": 0.0}


def devices_of(config: Config) -> Devices:
    """The devices that `trainer` asks for, measured where they are here."""
    trainer, here = config.trainer, torch.cuda.is_available()
    named = config.plan.gpu is not None
    on_gpu = trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and (here or named))
    measured = on_gpu and here and not named
    memory, source = _memory(config, on_gpu, measured)
    count = _count(config, on_gpu, here)
    if trainer.devices == "auto" and count > 1 and not here:
        source += f"; trainer.devices=auto is taken as {EVERY}"
    if trainer.accelerator == "auto" and not on_gpu:
        source += "; plan.gpu=H100 plans for a GPU"
    sharded = trainer.strategy == "fsdp" and count > 1
    return Devices("cuda" if on_gpu else "cpu", count, sharded, memory, source)


def _count(config: Config, on_gpu: bool, here: bool) -> int:
    """Devices of all machines."""
    trainer = config.trainer
    if trainer.strategy == "single":
        return 1
    devices = trainer.devices
    if devices == "auto":
        devices = 1 if not on_gpu else torch.cuda.device_count() if here else EVERY
    return int(devices) * trainer.nodes


def _memory(config: Config, on_gpu: bool, measured: bool) -> tuple[int, str]:
    given = config.plan.memory_gib
    if given is not None:
        return int(given * GIB), f"plan.memory_gib={given:g}"
    if not on_gpu:
        return free_bytes(torch.device("cpu")), "measured: what this machine has free"
    if measured:
        return torch.cuda.get_device_properties(0).total_memory, "measured"
    name = config.plan.gpu or USUAL
    size, _ = GPUS[name]
    return int(size * 1e9 * USABLE), f"assumed: plan.gpu={name}, {size:g} GB"


def speed_of(config: Config, kind: str) -> tuple[float, str]:
    """FLOP/s that one device gets done, and where that number comes from."""
    plan = config.plan
    if plan.tflops is not None:
        return plan.tflops * 1e12, f"plan.tflops={plan.tflops:g}"
    if kind == "cpu":
        return _product_speed(), "measured: a product of matrices on this CPU"
    name = plan.gpu or USUAL
    if plan.gpu is None and torch.cuda.is_available():
        own = torch.cuda.get_device_name()
        name = next((one for one in ("H200", "H100", "L40S", "A100") if one in own), name)
    _, peak = GPUS[name]
    share = plan.utilisation
    source = f"assumed: {share:.0%} of {name}'s {peak:g} TFLOP/s in dense bf16"
    return share * peak * 1e12, source


def _product_speed() -> float:
    one = torch.ones(PRODUCT, PRODUCT)
    _ = one @ one
    started = time.perf_counter()
    _ = one @ one
    return float(2 * PRODUCT**3 / (time.perf_counter() - started))
