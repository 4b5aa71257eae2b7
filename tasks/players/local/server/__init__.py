"""Engine `server`: a vLLM, SGLang or `cairn serve` beside this process, by token ids; never by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contract import params as base
from tasks.contract.servers import check_address, check_key
from tasks.players.local.server.params import Params as Params

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.players.local.generation import Place
    from tasks.players.local.server.engine import ServerEngine


WAYS = frozenset(("base_url", "model", "key_env", "key_block", "timeout_seconds", "retries", "folder"))
"""Of its params those on which no answer depends: the weights are pushed, and each step compares log-probabilities."""


def check(params: Params, where: str) -> None:
    """Raise BadInput for an address that is none, a name that is missing, or a key that is named twice or written down. where: the
    section, for the message."""
    begins = " is missing or no address: where the server begins, such as http://127.0.0.1:8000"
    check_address(params.base_url, where, begins)
    if params.base_url.rstrip("/").endswith("/v1"):
        raise base.BadInput(f"{where}.base_url = {params.base_url!r}: without /v1, which is added for each call")
    if params.kind == "openai" and not params.model.strip():
        raise base.BadInput(f"{where}.model is missing: the base's name at {params.base_url} (vLLM: --served-model-name)")
    check_key(params.key_env, params.key_block, where)


def check_forms(params: Params, where: str, whole: Sequence[str], adapters: Sequence[str], at_once: bool) -> None:
    """Raise BadInput where a checkpoint that will play has another form than `push` brings to the server. whole, adapters: steps that
    surely leave one or the other; at_once: whether several checkpoints may play at once. where: the section, for the message."""
    if params.push == "weights" and at_once:
        raise base.BadInput(
            f"{where}.push: weights: the server holds one model, and on device: cpu several play at once, so that one would answer for "
            "another. Write device: cuda (one after the other), push: adapter, or let another engine play them."
        )
    if params.push == "weights" and adapters:
        raise base.BadInput(
            f"{where}.push: weights brings whole models to the server, and of {', '.join(adapters)} an adapter would play. Write "
            "push: adapter where all are adapters, or let another engine play them."
        )
    if params.push == "adapter" and whole:
        raise base.BadInput(
            f"{where}.push: adapter brings LoRA adapters to the server, and of {', '.join(whole)} a whole checkpoint would play. Write "
            "push: weights where none is an adapter, or let another engine play them."
        )


def opened(
    checkpoint: Path | PreTrainedModel,
    adapters: Mapping[str, Path] | None = None,
    *,
    rows: int,
    most: int,
    device: str = "cpu",
    dtype: str | None = None,
    params: Params | None = None,
    place: Place | None = None,
) -> ServerEngine:
    """An engine at a server that holds the same base. What a model in memory has learned is pushed there before the first turn; of a
    folder nothing but `adapters` is.

    device, dtype: the server's own matter. BadInput for a server without token ids, or with another model than the params name.
    """
    from tasks.players.local.generation import Place as Anywhere
    from tasks.players.local.server.engine import ServerEngine
    from tasks.players.local.server.weights import of_folder, pushed

    if params is None:
        raise base.BadInput("engine server: it needs params that say where the server is (base_url)")
    beside = place or Anywhere()
    engine = ServerEngine(params, beside.secrets(params.model_dump()), rows=rows, most=most)
    engine.api.greet()
    engine.names |= of_folder(engine.api, adapters or {})
    if not isinstance(checkpoint, Path):
        engine.names |= pushed(engine.api, checkpoint, params, beside.folder)
    return engine


def meet(params: Params, secret: str) -> None:
    """Ask the server for its models and a token, before anything is computed. BadInput, by name, for a server without token ids, with
    another model than asked for, or that does not answer."""
    from tasks.contract.client import CallFailed
    from tasks.contract.params import StageFailed
    from tasks.players.local.server.api import Api

    api = Api(params, secret, 1)
    try:
        api.greet()
    except (StageFailed, CallFailed) as failed:
        raise base.BadInput(str(failed)) from None
    finally:
        api.close()
