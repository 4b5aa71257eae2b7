"""What a step says to the engine `server`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contract import params as base


class Params(base.Params):
    """Where the server is, and how it takes weights."""

    base_url: str = Field("", description="where the server begins, such as http://127.0.0.1:8000, without /v1")
    model: str = Field("", description="the base's name at that server (vLLM: --served-model-name); SGLang asks for none")
    kind: Literal["openai", "sglang"] = Field(
        "openai", description="openai: /v1/completions of vLLM and cairn serve; sglang: /generate"
    )
    push: Literal["adapter", "weights"] = Field(
        "adapter", description="adapter: LoRA, loaded at the server; weights: the whole model, which it reads anew from a folder"
    )
    key_env: str = Field("", description="name of the environment variable that holds the server's key (never the key)")
    key_block: str = Field("", description="or the name of a Prefect Secret block that holds it")
    timeout_seconds: float = Field(600.0, gt=0, le=3600, description="of one attempt at a turn")
    retries: int = Field(3, ge=1, le=20, description="attempts at a turn while the connection fails or the server is busy")
    folder: str = Field("", description="of files that the server reads, on a disk that it sees; empty: the step's scratch folder")
