"""What trains, brought to the server: an adapter by /load_lora_adapter, or the whole model as a folder that it reads anew.

An adapter's name there is made of its bytes, so that a name never stands for other weights than before: vLLM's cache of prompts goes by
name and path, and who asks for a name that is gone is told so.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import adapters
from tasks.contract.params import BadInput, StageFailed
from tasks.players.local.server.api import Api, words
from tasks.players.local.server.params import Params

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "cairn-"
"""With this begins the name of every adapter that is loaded."""
START = "vLLM: --enable-lora with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; SGLang: --enable-lora"
"""How a server is started that takes adapters."""


def pushed(api: Api, model: PreTrainedModel, params: Params, folder: Path | None) -> dict[str, str]:
    """Bring a model's adapters, or all of it, to the server; adapter's name here -> its name there.

    folder: for files that the server reads, unless the params name one, in which each training then has a folder of its own."""
    root = folder or Path(tempfile.mkdtemp(prefix="cairn-engine-"))
    if params.folder:
        root = Path(params.folder) / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    if params.push == "weights":
        if adapters.has_adapter(model):
            raise BadInput("engine server: push: weights pushes a whole model, and an adapter trains here. Write push: adapter.")
        _push_weights(api, model, root)
        return {}
    if not adapters.has_adapter(model):
        raise BadInput(
            "engine server: push: adapter brings LoRA adapters to the server, and here the whole model trains or plays. Train an "
            "adapter (adapter: {kind: lora}), or write push: weights."
        )
    saved = {name: _saved(model, name, root) for name in model.peft_config}
    _unload_others(api, root, set(saved.values()))
    return {name: _load(api, folder) for name, folder in saved.items()}


def of_folder(api: Api, folders: Mapping[str, Path]) -> dict[str, str]:
    """Load adapters that lie in folders; name here -> name there."""
    return {name: _load(api, folder) for name, folder in folders.items()}


def _saved(model: PreTrainedModel, name: str, root: Path) -> Path:
    """A folder of its own for an adapter as it is now, named by its bytes."""
    staging = root / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(str(staging), selected_adapters=[name], save_embedding_layers=False)
    found = staging if name == "default" else staging / name
    target = root / _digest(found)
    if not target.exists():
        shutil.copytree(found, target)
    shutil.rmtree(staging)
    return target


def _load(api: Api, folder: Path) -> str:
    name = NAME + _digest(folder)
    if name in (api.models() or ()):
        return name
    path = "/load_lora_adapter" if api.params.kind == "sglang" else "/v1/load_lora_adapter"
    answer = api.send("POST", path, {"lora_name": name, "lora_path": str(folder.resolve())})
    if answer.status_code == 404 and "adapter" not in words(answer).lower():
        raise BadInput(f"engine server: {api.url} takes no adapters ({path} is not there). Start it so that it does. {START}.")
    if answer.status_code != 200 and "already been loaded" not in answer.text:
        raise StageFailed(
            f"engine server: the adapter in {folder} was not loaded: {words(answer)}. Is it an adapter of its base? {START}."
        )
    return name


def _unload_others(api: Api, root: Path, kept: set[Path]) -> None:
    """Take from the server what this training had there before; one that is gone already is no fault."""
    path = "/unload_lora_adapter" if api.params.kind == "sglang" else "/v1/unload_lora_adapter"
    for folder in sorted(folder for folder in root.iterdir() if adapters.is_adapter(folder) and folder not in kept):
        api.send("POST", path, {"lora_name": NAME + folder.name}, tries=1)
        shutil.rmtree(folder)


def _push_weights(api: Api, model: PreTrainedModel, root: Path) -> None:
    """Let the server read the whole model anew, and forget what it computed with the old one."""
    folder = root / "weights"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder))
    where = str(folder.resolve())
    if api.params.kind == "sglang":
        api.done("/update_weights_from_disk", {"model_path": where}, "SGLang reads weights anew from a folder that it sees.")
        return
    hint = "vLLM reads weights anew when it is started with VLLM_SERVER_DEV_MODE=1, without --enable-lora, on a disk that it shares."
    api.done("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": where}}, hint)
    api.done("/reset_prefix_cache", {}, hint)


def _digest(folder: Path) -> str:
    """Of an adapter's bytes: its weights and what scales them."""
    found: Any = hashlib.sha256()
    for name in (adapters.CONFIG, adapters.WEIGHTS):
        found.update((folder / name).read_bytes())
    return str(found.hexdigest()[:16])
