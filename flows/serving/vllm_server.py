"""vLLM for `cairn serve --engine vllm`: one that is started with a checkpoint folder and ends with the command, or one that runs."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from flows import STATE
from flows.serving.vllm_engine import VllmEngine
from tasks.contract.params import BadInput, StageFailed

START = 900.0
"""Seconds that it may take to start: on two busy cores it has taken six minutes."""
RANKS = (8, 16, 32, 64, 128, 256, 512)
"""Of adapters, as vLLM takes them."""
ROOM = 8
"""Adapters that it holds at a time; ours."""
BASE = "base"
SETTINGS = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


def started(folder: Path, adapters: Sequence[Path], device: str, dtype: str, most: int) -> VllmEngine:
    """A vLLM on loopback with a checkpoint folder, and room for such adapters. dtype: "" for the folder's own. most: tokens of the
    longest conversation. BadInput where vLLM is missing, StageFailed when it does not start."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    most = min(most, int(config.get("max_position_embeddings") or most))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", BASE]
    command += ["--host", "127.0.0.1", "--port", port, "--dtype", dtype or "auto", "--max-model-len", str(most)]
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", *_for_adapters(adapters)]
    command += ["--enforce-eager"] if device == "cpu" else []
    log = STATE / "vllm.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"vLLM is starting, which takes minutes; what it says is in {log}", flush=True)
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**SETTINGS, **os.environ}, stdout=out, stderr=out, start_new_session=True)
    atexit.register(_stop, process)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
    except BaseException:
        _stop(process)
        raise
    return VllmEngine(url, BASE, int(config["vocab_size"]), most, lambda: _stop(process))


def running(url: str, folder: Path) -> VllmEngine:
    """A vLLM that somebody else started, which is believed to hold this folder. BadInput when it does not answer, or does not say
    which model it has."""
    url = url.rstrip("/").removesuffix("/v1")
    try:
        models: Any = httpx.get(f"{url}/v1/models", timeout=10).json()["data"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise BadInput(
            f"--server {url}: no list of models there ({type(error).__name__}: {error}). Is it a vLLM, and running?"
        ) from None
    bases: list[Mapping[str, Any]] = [one for one in models if not one.get("parent")]
    if len(bases) != 1:
        raise BadInput(f"--server {url}: expected one base, it has {', '.join(str(one.get('id')) for one in bases) or 'none'}")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    most = int(bases[0].get("max_model_len") or config.get("max_position_embeddings") or 8192)
    return VllmEngine(url, str(bases[0]["id"]), int(config["vocab_size"]), most)


def _python() -> str:
    """The interpreter that has vLLM: of its own environment, or this one."""
    own = STATE / "vllm/bin/python"
    if (STATE / "vllm/.ready").is_file() and own.is_file():
        return str(own)
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    raise BadInput(
        "--engine vllm: vLLM is not installed. `make .cairn/vllm/.ready` puts one for CPUs into .cairn/vllm (2.6 GB); on a GPU "
        "`pip install vllm` in this environment, or --server URL for one that runs elsewhere. --engine own needs none."
    )


def _for_adapters(adapters: Sequence[Path]) -> list[str]:
    if not adapters:
        return []
    rank = max(int(json.loads((folder / "adapter_config.json").read_text("utf-8")).get("r", 8)) for folder in adapters)
    if (fitting := next((one for one in RANKS if one >= rank), None)) is None:
        raise BadInput(f"--engine vllm: an adapter of rank {rank}, and vLLM takes {RANKS[-1]} at most. Take --engine own.")
    return [
        "--enable-lora",
        "--max-loras",
        str(min(ROOM, len(adapters))),
        "--max-cpu-loras",
        str(ROOM),
        "--max-lora-rank",
        str(fitting),
    ]


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    why = f"ended with {process.returncode}" if process.returncode is not None else f"did not answer within {START:.0f} s"
    raise StageFailed(f"vLLM {why}. It said last ({log}):\n{last}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """With whatever it started."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
