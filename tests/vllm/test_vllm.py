"""A real vLLM (`make test-vllm`): a folder that this transformers saved, two adapters, token by token as the engine `own`."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tasks.players.local import own, server
from tests.players.test_engines import talk
from tests.players.test_own_engine import model
from tests.rollout import tiny

pytestmark = pytest.mark.vllm
START = 600.0
"""Seconds that it may take to start: on two cores it has taken four minutes."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with random weights and a tokenizer, and two adapters of it; heads of 32, the least that vLLM's CPU kernels take."""
    import torch
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("vllm")
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rope_parameters": None}

    def base() -> object:
        return model("llama", vocab_size=len(tiny.tokenizer()), tie_word_embeddings=False, **sizes)

    base().save_pretrained(str(root / "base"))  # type: ignore[attr-defined]
    tiny.tokenizer().save_pretrained(str(root / "base"))
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        worn = get_peft_model(base(), LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))  # type: ignore[arg-type]
        worn.save_pretrained(str(root / name))
    return root


@pytest.fixture(scope="module")
def url(folders: Path) -> Iterator[str]:
    """The address of a vLLM that serves the base."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own_env = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    command = [f"{os.environ['CAIRN_VLLM']}/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folders / "base")]
    command += [
        "--served-model-name",
        "base",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--max-model-len",
        "512",
    ]
    command += ["--enforce-eager", "--enable-lora", "--max-loras", "3", "--max-lora-rank", "8"]
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    log = folders / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **own_env}, stdout=out, stderr=out, cwd=folders)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + START
        while not _answers(address):
            assert process.poll() is None and time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_vllm_says_what_the_own_engine_says(folders: Path, url: str) -> None:
    """Two turns of six conversations, with each adapter and with none, at temperature 0."""
    adapters = {name: folders / name for name in ("one", "two")}
    params = server.Params(base_url=url, model="base")
    server.meet(params, "")
    there = talk(server.opened(folders / "base", adapters, rows=8, most=300, params=params))
    for name, (ids, logprobs) in talk(own.opened(folders / "base", adapters, rows=8, most=300, dtype="float32")).items():
        assert there[name][0] == ids and there[name][1] == pytest.approx(logprobs, abs=1e-3)
