"""`cairn serve --engine vllm` on a real vLLM (`make test-vllm`): it says what the engine `own` says, and two adapters chat by their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import openai
import pytest

from flows.serving import source, start, vllm_server
from flows.serving.source import Named, named
from tasks.checkpoints.adapter_params import AdapterParams
from tasks.checkpoints.starting import begin
from tasks.engine.artifact import Store
from tasks.serving.endpoint.kept import Kept
from tests.flows.test_serve_chat import lines
from tests.flows.test_serve_two import USER, client
from tests.rollout import tiny
from tests.vllm.test_vllm import SETTINGS

pytestmark = pytest.mark.vllm


def agents(place: Path) -> list[Named]:
    """Two adapters of one base whose heads are of 32, the least that vLLM's CPU kernels take."""
    import torch

    store = Store(place / "state")
    tiny.saved(place / "base/model", width=64, loudness=1.5)
    base = store.put(place / "base")
    found = []
    for seed, name in enumerate(("champion", "challenger")):
        start_ = begin(store.view(base) / "model", AdapterParams(kind="lora", r=8, save="adapter"), {base: store.view(base)})
        worn = start_.wear(start_.model)
        torch.manual_seed(seed)
        with torch.no_grad():
            for key, weight in worn.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.1)
        start_.keep(worn, place / name / "model", place / name / "beside")
        folder = store.view(store.put(place / name)) / "model"
        found.append(Named(folder, name, "", named(str(folder)).base))
    return found


def test_it_says_what_the_own_engine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and streamed, at temperature 0; a stop text ends a turn, and an adapter by its name is not the other one."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(vllm_server, "STATE", Path(os.environ["CAIRN_VLLM"]).parent)
    monkeypatch.setattr(source, "STATE", tmp_path / "state")
    found = agents(tmp_path)
    ids: dict[bool, list[Any]] = {}
    for vllm in (False, True):
        how = start.How(dtype="float32", most=400, vllm=vllm, kept=Kept(tmp_path / f"kept {vllm}"))
        engines = start.open_agents(found, {}, how)
        with client(engines) as api:
            create = api.chat.completions.create
            for name in ("champion", "challenger"):
                whole = create(model=name, messages=USER, temperature=0, max_tokens=12).choices[0].message.content or ""
                chunks = create(model=name, messages=USER, temperature=0, max_tokens=12, stream=True)
                assert "".join(one.choices[0].delta.content or "" for one in chunks) == whole
                stop = whole[2:4]
                cut = create(model=name, messages=USER, temperature=0, max_tokens=12, stop=[stop]).choices[0]
                assert cut.finish_reason == "stop" and cut.message.content == whole[: whole.index(stop)]
            with pytest.raises(openai.NotFoundError):
                create(model="king", messages=USER)
        ids[vllm] = [one["ids"] for one in lines(tmp_path / f"kept {vllm}") if not one["sampling"]["stop"]]
    assert ids[True] == ids[False] and ids[True][0] != ids[True][2]
