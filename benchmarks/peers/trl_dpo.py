"""TRL's DPOTrainer on given token ids: the peer of benchmarks/throughput.py.

    python benchmarks/peers/trl_dpo.py SETTINGS.json      prints one JSON object

Needs only TRL and what it brings. SETTINGS names a model directory and a file of token ids in the
order of training, so that both sides see the same batches; `TRAINING` are arguments of DPOConfig.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Timed(TrainerCallback):
    """The time of every step's end and the loss of every step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


class GivenTokens(DPOTrainer):
    """A DPOTrainer that takes token ids as they are; in their order where it is asked for."""

    shuffled = False

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        if self.shuffled:
            return super()._get_train_sampler(dataset)
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)


def main() -> None:
    """Trains as the settings say and prints what it took."""
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(settings["threads"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    tokenizer.padding_side = "left"
    dtype = getattr(torch, settings["dtype"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
    rows = [
        json.loads(line)
        for line in Path(settings["tokens"]).read_text(encoding="utf-8").split("\n")
        if line
    ]
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=settings["log_every"],
            max_length=None,
            **settings["training"],
        )
        GivenTokens.shuffled = settings["shuffled"]
        trainer = GivenTokens(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[timed],
        )
        trainer.train()
    steps = len(timed.ends)
    batch = settings["training"]["per_device_train_batch_size"]
    seconds = timed.ends[-1] - timed.ends[0]
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    result = {
        "pairs_per_second": batch * (steps - 1) / seconds,
        "peak_bytes": peak,
        "losses": timed.losses,
        "versions": {
            "trl": trl.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
