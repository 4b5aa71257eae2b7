"""Opening a checkpoint folder and serving it, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.serving.app import Served
from flows.serving.engine_thread import EngineThread
from tasks.checkpoints import folders, source
from tasks.checkpoints.adapters import is_adapter
from tasks.contract.params import BadInput
from tasks.players.local import own

ROWS = 64
"""Requests decoded together; others wait."""


def opened(folder: Path, adapters: Mapping[str, Path], name: str, device: str, dtype: str, most: int) -> Served:
    """A checkpoint folder with the engine `own`, ready to be asked. BadInput for what cannot be served."""
    source.check_folder(folder, str(folder))
    if is_adapter(folder):
        raise BadInput(f"{folder}: an adapter alone. Serve its base, with --adapter NAME={folder}.")
    engine = own.opened(folder, rows=ROWS, most=most, device=device, dtype=dtype or None)
    tokenizer = folders.load_tokenizer(folder) if source.has_tokenizer(folder) else None
    served = Served(name, EngineThread(engine), tokenizer)
    for one, where in adapters.items():
        if one == name or not is_adapter(where):
            raise BadInput(f"--adapter {one}={where}: {'the name of the base' if one == name else 'no adapter_config.json in it'}")
        served.thread.call(lambda engine, one=one, where=where: served.load(engine, one, where)).result()  # type: ignore[misc]
    return served


def serve(served: Served, host: str, port: int) -> None:
    """Answer until the process is told to end."""
    import uvicorn

    from flows.serving.app import make

    uvicorn.run(make(served), host=host, port=port, log_level="warning")
