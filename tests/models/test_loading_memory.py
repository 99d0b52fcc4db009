"""What loading takes in memory: weights in the hub's layout, and their copy, in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

# Peaks over what the process had before, in units of the loaded model's weights.
MEASURED = """
import json, sys, threading, time
import transformers.models.llama.modeling_llama  # belongs to the baseline
from plot_exp.config.model import ModelConfig
from plot_exp.models.load import load_model
from plot_exp.models.policy import Policy, frozen_copy

def kilobytes(key):
    status = open("/proc/self/status").read()
    return int(status.split(key + ":")[1].split()[0])

base, own_base = kilobytes("VmRSS"), kilobytes("RssAnon")
own_peak, done = [0], []
def watch():
    while not done:
        own_peak[0] = max(own_peak[0], kilobytes("RssAnon"))
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
model = load_model(ModelConfig(name=sys.argv[1], dtype=sys.argv[2]))
size = sum(one.numel() * one.element_size() for one in model.parameters()) / 1024
found = {"loaded": (kilobytes("VmHWM") - base) / size, "own": (own_peak[0] - own_base) / size}
policy = Policy(model)
copied = frozen_copy(policy)
found["copied"] = (own_peak[0] - own_base) / size
done.append(True)
found["megabytes"] = size / 1024
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of a gigabyte in bfloat16, in shards."""
    folder = tmp_path_factory.mktemp("large")
    shape = LlamaConfig(
        vocab_size=16_000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=6,
        num_attention_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(shape)
    model = model.to_empty(device="cpu").to(torch.bfloat16)
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.save_pretrained(folder, max_shard_size="50MB")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("dtype", "mapped"), [("float32", 0.5), ("bfloat16", 1.0)])
def test_loading_takes_the_model_once_and_its_copy_once_more(
    folder: Path, dtype: str, mapped: float
) -> None:
    """The files are mapped, and their pages count as the process's until others need the memory."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder), dtype],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["megabytes"] > 250
    assert found["own"] < 1.15
    assert found["loaded"] < 1.15 + mapped
    assert found["copied"] < 2.2
