"""Opening a checkpoint folder for the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.chat.local.format import ChatRefused
from tasks.checkpoints import folders, source
from tasks.checkpoints.adapters import is_adapter
from tasks.contract.params import BadInput
from tasks.players.local import own
from tasks.serving.endpoint.chat import Chat
from tasks.serving.endpoint.engine_thread import EngineThread
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.prompting import Prompting
from tasks.serving.endpoint.served import Engine, Served

ROWS = 64
"""Requests decoded together; others wait."""


def opened(folder: Path, adapters: Mapping[str, Path], name: str, device: str, dtype: str, most: int) -> Served:
    """A checkpoint folder with the engine `own`, ready to be asked. BadInput for what cannot be served."""
    source.check_folder(folder, str(folder))
    if is_adapter(folder):
        raise BadInput(f"{folder}: an adapter alone. Serve its base, with --adapter NAME={folder}.")
    engine = EngineThread(own.opened(folder, rows=ROWS, most=most, device=device, dtype=dtype or None))
    return by_engine(engine, folder, adapters, name)


def by_engine(engine: Engine, folder: Path, adapters: Mapping[str, Path], name: str) -> Served:
    """A checkpoint folder that an engine holds already, with adapters of it. BadInput for what is none."""
    served = Served(name, engine, folders.load_tokenizer(folder) if source.has_tokenizer(folder) else None)
    for one, where in adapters.items():
        if one == name or not is_adapter(where):
            raise BadInput(f"--adapter {one}={where}: {'the name of the base' if one == name else 'no adapter_config.json in it'}")
        served.load(one, where)
    return served


def with_own_chat(served: Served, name: str, folder: Path, card: Mapping[str, Any], kept: Kept) -> Served:
    """Let one of its adapters chat by a card of its own, with the tokenizer that lies beside it."""
    served.chats[name] = Chat(Prompting(folders.load_tokenizer(folder), card), kept, of_adapter=True)
    return served


def with_chat(served: Served, card: Callable[[], Mapping[str, Any]], kept: Kept) -> Served:
    """Let what is served chat by an agent's card too; where it cannot, it says so to whoever tries."""
    if served.tokenizer is None:
        served.no_chat = "its folder has no tokenizer"
        return served
    try:
        served.chat = Chat(Prompting(served.tokenizer, card()), kept)
    except ChatRefused as error:
        served.no_chat = str(error)
    return served
