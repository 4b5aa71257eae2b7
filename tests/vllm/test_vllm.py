"""A real vLLM (`make test-vllm`): a folder that this transformers saved, two adapters, token by token as the engine `own`; rl with an
adapter of each step; a server that reads the whole model anew."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own, server
from tasks.players.local.generation import Engine, Place
from tasks.rl.core.hooks import Hooks, Played
from tasks.rl.core.loop import run
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.grpo import Params
from tests.players.test_engines import talk
from tests.players.test_own_engine import model
from tests.rl.micro import SHORT, Brief, context, frozen
from tests.rl.test_mismatch import Adapted
from tests.rollout import tiny

pytestmark = pytest.mark.vllm
START = 600.0
"""Seconds that it may take to start: on two cores it has taken four minutes."""
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
ADAPTERS = ("--enable-lora", "--max-loras", "3", "--max-lora-rank", "8")


class Low(Brief):
    """Paid for low ids: these random weights never end a turn, so that all would be paid alike for its length."""

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        said = [[token for turn in one.talk.turns for token in turn["ids"]] for one in played]
        return [{"low": -sum(ids) / (100 * max(1, len(ids)))} for ids in said]


class LowAdapted(Low):
    """With an adapter."""

    prepare = Adapted.prepare


def base(seed: int = 3) -> Any:
    """Random weights; heads of 32, the least that vLLM's CPU kernels take."""
    import torch

    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rope_parameters": None}
    made = model("llama", vocab_size=len(tiny.tokenizer()), tie_word_embeddings=False, **sizes)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, a base with a tokenizer in sft/model, where rl looks for it, and two adapters of it."""
    import torch
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("vllm")
    frozen(root)
    base().save_pretrained(str(root / "sft" / "model"))
    tiny.tokenizer().save_pretrained(str(root / "sft" / "model"))
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        worn = get_peft_model(base(), LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))
        worn.save_pretrained(str(root / name))
    return root


@contextmanager
def vllm(folder: Path, log: Path, settings: Mapping[str, str], *options: str) -> Iterator[str]:
    """The address of a vLLM that serves a checkpoint folder as `base`, while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [f"{os.environ['CAIRN_VLLM']}/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--max-model-len", "512"]
    command += ["--enforce-eager", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **SETTINGS, **settings}, stdout=out, stderr=out, cwd=log.parent)
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


@pytest.fixture(scope="module")
def takes_adapters(folders: Path) -> Iterator[str]:
    with vllm(folders / "sft" / "model", folders / "adapters.log", {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}, *ADAPTERS) as url:
        yield url


@pytest.fixture(scope="module")
def takes_weights(folders: Path) -> Iterator[str]:
    with vllm(folders / "sft" / "model", folders / "weights.log", {"VLLM_SERVER_DEV_MODE": "1"}) as url:
        yield url


def same(there: Engine, here: Engine, adapters: Sequence[str]) -> None:
    """Two turns of six conversations, the adapters by turns, at temperature 0: the same ids, and log-probabilities."""
    found = talk(there, adapters=adapters)
    for name, (ids, logprobs) in talk(here, adapters=adapters).items():
        assert found[name][0] == ids and found[name][1] == pytest.approx(logprobs, abs=1e-3)


def learned(folders: Path, scratch: Path, params: server.Params, hooks: Hooks) -> list[float]:
    """Two steps of rl that play at the server; how far its log-probabilities were from the trainer's in each (rl stops at 0.001)."""
    from tasks.rl import Inputs

    figures: dict[str, list[float]] = {}
    opened = partial(server.opened, params=params, place=Place(scratch / "engine"))
    log = lambda name, value, _: figures.setdefault(name, []).append(value)  # noqa: E731
    ctx = context(scratch, of_checkpoint=partial(CheckpointAgent, engine=opened), log=log)
    run(Inputs(folders / "worlds", folders / "sft", "retail"), SHORT.model_copy(update={"min_trained": 0.0}), hooks, ctx)
    assert any(figures["rl/tokens"]), "something was trained, or the second step would play what the first played"
    return figures["rl/mismatch_mean"]


def test_vllm_says_what_the_own_engine_says(folders: Path, takes_adapters: str) -> None:
    """Its transformers is older than the one that saved the folder (below 5.20)."""
    adapters = {name: folders / name for name in ("one", "two")}
    params = server.Params(base_url=takes_adapters, model="base")
    server.meet(params, "")
    there = server.opened(folders / "sft" / "model", adapters, rows=8, most=300, params=params)
    same(there, own.opened(folders / "sft" / "model", adapters, rows=8, most=300, dtype="float32"), ["", *adapters])


def test_rl_plays_at_vllm_with_the_adapter_of_each_step(folders: Path, takes_adapters: str, tmp_path: Path) -> None:
    apart = learned(folders, tmp_path, server.Params(base_url=takes_adapters, model="base"), LowAdapted(params=Params()))
    assert len(apart) == 2 and 0 < max(apart) < 1e-4


def test_vllm_reads_a_whole_model_anew(folders: Path, takes_weights: str, tmp_path: Path) -> None:
    """Another model than the one it was started with, and back by rl, whose weights move at each step."""
    params = server.Params(base_url=takes_weights, model="base", push="weights")
    other = base(seed=4)
    there = server.opened(other, rows=8, most=300, params=params, place=Place(tmp_path / "other"))
    same(there, own.opened(other, rows=8, most=300, dtype="float32"), [""])
    apart = learned(folders, tmp_path, params, Low(params=Params()))
    assert len(apart) == 2 and 0 < max(apart) < 1e-4
