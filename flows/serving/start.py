"""From what `cairn serve` was told to engines that answer: as few weights in memory as the agents need, and each agent told what it
was told when it was evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from flows.serving.shadow import Shadow
from flows.serving.source import Named, named
from flows.serving.world_changes import card_for_now
from tasks.contract.params import BadInput
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.opened import by_engine, opened, with_chat, with_own_chat
from tasks.serving.endpoint.served import Engine, Served

GIB = 1 << 30
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""


@dataclass(frozen=True)
class How:
    """device: cpu or cuda. dtype: of the weights, "" for a folder's own. most: tokens of the longest conversation. changed: whether an
    agent is served whose worlds have changed. vllm: whether vLLM computes; server: the address of one that runs, "" starts one. kept:
    where chats are written."""

    device: str = "cpu"
    dtype: str = ""
    most: int = 8192
    changed: bool = False
    vllm: bool = False
    server: str = ""
    kept: Kept = field(default_factory=lambda: Kept(None))


def agents(texts: Sequence[str], name: str = "") -> list[Named]:
    """What the command names: one agent or two. name: of the first in requests, "" for its own. BadInput for more, and for two that
    are the same."""
    if len(texts) > 2:
        raise BadInput(f"{len(texts)} agents ({', '.join(texts)}): one or two can be served, such as champion challenger")
    found = [named(one) for one in texts]
    if len(found) == 2 and found[0].folder.resolve() == found[1].folder.resolve():
        raise BadInput(f"{texts[0]} and {texts[1]} are the same model, {found[0].folder}: serve one of them")
    if len({one.name for one in found}) < len(found):
        found = [replace(one, name=text) for one, text in zip(found, texts, strict=True)]
    return [replace(found[0], name=name or found[0].name), *found[1:]]


def open_agents(found: Sequence[Named], adapters: Mapping[str, Path], how: How) -> list[Served]:
    """The engines of some agents: those with the same base share one. adapters: name -> folder, of others on the first base. BadInput
    for what cannot be served, or not together."""
    bases: dict[Path, list[Named]] = {}
    for one in found:
        bases.setdefault((one.base or one.folder).resolve(), []).append(one)
    check_memory(bases, how)
    if how.vllm and len(bases) > 1:
        raise BadInput("--engine vllm: one server has one base, and these agents stand on two. Serve one, or take --engine own.")
    engines: list[Served] = []
    for folder, here in bases.items():
        engines.append(
            _engine(folder, here, {} if engines else adapters, "base" if len(bases) == 1 else f"base of {here[0].name}", how)
        )
        for one in here:
            if one.base is None:
                with_chat(engines[-1], partial(card_for_now, one, how.changed), how.kept)
            else:
                with_own_chat(engines[-1], one.name, one.folder, card_for_now(one, how.changed), how.kept)
    return engines


def _engine(folder: Path, here: Sequence[Named], adapters: Mapping[str, Path], base: str, how: How) -> Served:
    """An engine on a base. here: the agents on it, one of which may be the base itself. base: its name where none is."""
    whole = next((one.name for one in here if one.base is None), "")
    worn = {one.name: one.folder for one in here if one.base is not None}
    if how.vllm:
        served = by_engine(vllm(folder, [*adapters.values(), *worn.values()], how), folder, {**adapters, **worn}, whole or base)
    else:
        served = opened(folder, {**adapters, **worn}, whole or base, how.device, how.dtype, how.most)
    if not whole:
        served.no_chat = f"it is what {' and '.join(worn)} stand on, and no agent itself"
    return served


def vllm(folder: Path, adapters: Sequence[Path], how: How) -> Engine:
    """vLLM with a base: one that runs, or one that is started. adapters: folders of those that it must have room for."""
    from flows.serving import vllm_server
    from tasks.checkpoints import source

    source.check_folder(folder, str(folder))
    if how.server:
        return vllm_server.running(how.server, folder)
    return vllm_server.started(folder, adapters, how.device, how.dtype, how.most)


def check_memory(bases: Mapping[Path, Sequence[Named]], how: How) -> None:
    """BadInput where the weights of several bases do not fit into the memory that is free, with the numbers."""
    if len(bases) < 2:
        return
    sizes = {" and ".join(one.name for one in here): _bytes(folder, how.dtype) / GIB for folder, here in bases.items()}
    if (wanted := sum(sizes.values())) > (free := _free(how.device) / GIB):
        each = ", ".join(f"{name} {size:.2f} GiB" for name, size in sizes.items())
        raise BadInput(
            f"the two stand on different weights, which are in memory both: {each}, {wanted:.2f} GiB in all, and {free:.2f} GiB of "
            f"{how.device} memory are free. Serve one of them, or two adapters of one base (loop.adapter.save: adapter)."
        )


def _bytes(folder: Path, dtype: str) -> float:
    """Of a checkpoint's weights in a dtype, "" for the folder's own."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    config = json.loads((folder / "config.json").read_text("utf-8")) if (folder / "config.json").is_file() else {}
    own = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return size * (WIDTHS.get(dtype or own, 4) / WIDTHS.get(own, 4))


def _free(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)


def with_shadow(engines: Sequence[Served], found: Sequence[Named]) -> tuple[list[Served], Shadow]:
    """(the engines that requests may name, the second of two agents as the shadow of the first). BadInput where it cannot chat."""
    first, second = (one.name for one in found)
    served = next(one for one in engines if second in one.names)
    chat = served.chats.pop(second, None) or served.chat
    if chat is None:
        raise BadInput(f"--shadow: {second} cannot chat: {served.no_chat}")
    adapter = served.adapters.pop(second, "")
    if not adapter:
        served.chat, served.no_chat = None, f"it is the shadow of {first}"
    asked = [one for one in engines if one.name != second or first in one.names]
    return asked, Shadow(first, served.thread, adapter, second, chat)
