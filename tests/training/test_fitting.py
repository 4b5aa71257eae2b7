"""Numbers of 16 bits where they lose nothing, states of 8 bits where a package gives them, and words when memory runs out."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tasks.checkpoints import folders, memory, saving
from tasks.contract.params import BadInput, StageFailed
from tasks.rl.core.params import Loop as RlLoop
from tasks.rl.core.params import check as check_rl
from tasks.sft.core.params import Loop as SftLoop
from tasks.sft.core.params import check as check_sft
from tasks.training import fitting, optimizers
from tests.playing import checkpoint_agent
from tests.rollout import tiny
from tests.training.test_packs import model


def test_frozen_weights_are_held_in_bfloat16_only_where_that_changes_none() -> None:
    import torch

    subject = model().requires_grad_(False)
    layer = subject.model.layers[0]
    layer.mlp.requires_grad_(True)
    coarse = layer.self_attn.q_proj.weight
    coarse.data = coarse.data.bfloat16().float()
    kept = {name: value.clone() for name, value in subject.state_dict().items()}
    fitting.narrow(subject, "bfloat16")
    assert coarse.dtype == torch.bfloat16
    assert {weight.dtype for weight in (layer.self_attn.k_proj.weight, *layer.mlp.parameters())} == {torch.float32}
    fitting.widen(subject)
    assert all(value.equal(kept[name]) and value.dtype == torch.float32 for name, value in subject.state_dict().items())
    fitting.narrow(subject, "float32")
    assert {weight.dtype for weight in subject.parameters()} == {torch.float32}


def test_weights_that_begin_to_train_are_float32_again() -> None:
    import torch

    subject = model().bfloat16().requires_grad_(False)
    subject.lm_head.requires_grad_(True)
    fitting.narrow(subject, "bfloat16")
    assert {weight.dtype for weight in subject.parameters() if weight.requires_grad} == {torch.float32}


def test_a_model_that_cannot_compute_again_is_refused() -> None:
    subject = model()
    type(subject).supports_gradient_checkpointing, before = False, type(subject).supports_gradient_checkpointing
    try:
        with pytest.raises(StageFailed, match=r"rl: LlamaForCausalLM cannot compute activations again. Set loop.checkpointing: false"):
            fitting.checkpoint(subject, "rl")
    finally:
        type(subject).supports_gradient_checkpointing = before


@pytest.mark.parametrize(("check", "loop"), [(check_sft, SftLoop), (check_rl, RlLoop)])
def test_states_of_8_bits_need_their_package(check: Any, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"optimizer: adamw_8bit needs bitsandbytes, which is not there.*pip install bitsandbytes"):
        check(loop(optimizer="adamw_8bit"))
    monkeypatch.setattr(optimizers, "find_spec", lambda name: name)
    check(loop(optimizer="adamw_8bit"))


def test_states_of_8_bits_come_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as bitsandbytes 0.50 has it: AdamW8bit(params, lr, betas, eps, weight_decay, ...)."""
    made: list[Any] = []
    package = ModuleType("bitsandbytes.optim")
    package.AdamW8bit = lambda params, lr, betas=(0.9, 0.999), weight_decay=0.01: made.append((params, lr, betas, weight_decay))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", package)
    optimizers.adamw(["groups"], "adamw_8bit", lr=0.1, weight_decay=0.0)
    assert made == [(["groups"], 0.1, (0.9, 0.999), 0.0)]


LOOP = SimpleNamespace(pass_tokens=0, checkpointing=False, dtype="float32")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError("Unable to allocate"),
    ],
)
def test_out_of_memory_names_every_param_that_helps(error: Exception) -> None:
    message = (
        r"rl: out of memory. Of the params of its loop, in this order: lower pass_tokens \(now 0, so that 64 conversations are passed at once\); "
        r"set checkpointing: true; set dtype: bfloat16. \("
    )
    with pytest.raises(StageFailed, match=message), memory.advised("rl", fitting.advice(LOOP, "64 conversations")):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.advised("rl", fitting.advice(LOOP, "")):
        raise RuntimeError("shapes do not match")
    with pytest.raises(StageFailed, match=r"^why$"), memory.advised("rl", fitting.advice(LOOP, "")):
        raise StageFailed("why")


def test_out_of_memory_while_a_checkpoint_plays_or_is_loaded_names_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    saving.save(made := tiny.model(), tiny.tokenizer(), tmp_path / "model")
    agent = checkpoint_agent(made, tiny.tokenizer(), {"tools": "none", "policy": "none"}, rows=3, max_episode_tokens=50)
    monkeypatch.setattr(agent._engine, "poll", full)
    said = (
        r"the checkpoint checkpoint plays: out of memory. .* lower rows \(now 3 conversations at once\), max_episode_tokens \(now 50\)"
    )
    with pytest.raises(StageFailed, match=said):
        agent.poll()
    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(StageFailed, match=r"model is loaded to cpu: out of memory. Its weights alone do not fit: take a smaller"):
        folders.load_model(tmp_path / "model")
