"""The endpoint's client against a real server: transformers' own `serve`, on an exported model.

The model is a Llama: the server reads answers of some other architectures, Qwen2 among them, by the
markers of their published chat templates, which a tiny model's tokenizer does not have.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from plot_exp.config.endpoint import EndpointConfig
from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.generators.base import Sampling
from plot_exp.generators.endpoint import EndpointGenerator
from plot_exp.generators.local import LocalGenerator
from plot_exp.models.policy import Policy

NEEDED = ("fastapi", "uvicorn", "openai")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason=f"what `transformers serve` takes is not installed ({', '.join(NEEDED)})",
    ),
]


@pytest.fixture(scope="module")
def server(llama_dir, tmp_path_factory):
    """The base address of a server that offers the model in `llama_dir`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(llama_dir)),
                *("--port", str(port), "--host", "127.0.0.1", "--device", "cpu"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        else:
            pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_a_served_model_answers_as_it_does_in_this_process(server, llama_dir, tmp_path):
    settings = EndpointConfig(url=server, model=str(llama_dir), concurrency=4, timeout=60)
    texts = ["hi", "how many apples are there?", "say 42", "what is the capital?", "and then?"]
    prompts = [[Message("user", text)] for text in texts]
    sampling = Sampling(max_new_tokens=12)
    client = EndpointGenerator(settings, tmp_path)
    found = client(prompts, sampling)
    local = LocalGenerator(
        Policy(AutoModelForCausalLM.from_pretrained(llama_dir)),
        ChatTokeniser(AutoTokenizer.from_pretrained(llama_dir)),
    )
    expected = local(prompts, sampling)
    assert [row[0].text for row in found] == [row[0].text for row in expected]
    assert any(row[0].text for row in found)
    before = client.requests
    assert client(prompts, sampling) == found
    assert client.requests == before == len(prompts)
