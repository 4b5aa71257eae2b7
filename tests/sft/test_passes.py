"""However a step's rows are passed through the model, its loss and gradient are those of the rows alone."""

from __future__ import annotations

import random
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.sft import Inputs
from tasks.sft.core import trainer
from tasks.sft.core.data import IGNORED, Row, collate
from tasks.sft.core.hooks import Hooks, Step
from tasks.sft.core.params import Loop, check
from tasks.sft.core.passes import parts
from tasks.sft.core.scoring import prepare_scoring, rows_of
from tasks.training import packs
from tests.sft.test_sft import inputs as inputs
from tests.sft.test_sft import tune
from tests.training.test_packs import model


@cache
def rows() -> list[Row]:
    """Ten conversations behind two system prompts of 40 tokens; in each some tokens of the middle and the last one train."""
    rng = random.Random(0)
    prompts = [[rng.randint(1, 63) for _ in range(40)] for _ in range(2)]
    made = []
    for index in range(10):
        own = [rng.randint(1, 63) for _ in range(rng.randint(6, 20))]
        ids = prompts[index % 2] + own
        labels = [token if at >= 42 and (at % 3 or at == len(ids) - 1) else IGNORED for at, token in enumerate(ids)]
        made.append(Row(f"r{index}", ids, labels, 1.0 + index % 3))
    return made


class Distance(Hooks):
    """A term that is a mean over tokens, as a distance from a teacher is."""

    def loss_term(self, model: Any, tokens: Any) -> Any:
        return tokens.logits.square().mean()


def step_of(loop: Loop, batches: list[list[Row]], hooks: Hooks, kernel: str = "sdpa") -> tuple[float, Any, int]:
    """Loss, gradients and number of passes of a step."""
    import torch

    subject = model(kernel).train()
    if loop.packing != "none":
        packs.prepare_model(subject, 60, "sft")
    prepare_scoring(subject)
    if loop.checkpointing:
        subject.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    passed = [0]

    def counted(batch: Any) -> Any:
        found = parts(batch, loop)
        passed[0] += len(found)
        return found

    given = [collate(some, 0) for some in batches]
    loss = hooks.step(Step(subject, given, hooks, None, nullcontext, lambda loss: loss.backward(), counted))
    return float(loss), torch.cat([weight.grad.flatten() for weight in subject.parameters()]), passed[0]


@pytest.mark.parametrize("hooks", [Hooks(), Distance()])
@pytest.mark.parametrize(
    ("how", "passes"),
    [
        ({"pass_tokens": 130}, 5),  # two lines of up to 60 tokens
        ({"pass_tokens": 1}, 10),
        ({"pass_tokens": 130, "packing": "rows"}, 5),
        ({"pass_tokens": 130, "packing": "shared_prompt"}, 2),  # 40 + 5 rows of up to 20: one pack a prompt
        ({"pass_tokens": 1000, "packing": "shared_prompt"}, 2),
        ({"pass_tokens": 90, "packing": "shared_prompt", "checkpointing": True}, 4),
        ({"checkpointing": True}, 1),
    ],
)
def test_loss_and_gradient_are_the_whole_batchs(how: dict[str, Any], passes: int, hooks: Hooks) -> None:
    wanted, gradient, _ = step_of(Loop(), [rows()], hooks)
    found, passed, count = step_of(Loop(**how), [rows()], hooks)
    assert found == pytest.approx(wanted, abs=1e-5) and count == passes
    assert float((passed - gradient).abs().max()) < 1e-5


def test_eager_attention_and_several_batches_a_step() -> None:
    how = Loop(pass_tokens=130, packing="shared_prompt")
    wanted, gradient, _ = step_of(Loop(), [rows()[:4], rows()[4:]], Hooks(), "eager")
    found, passed, _ = step_of(how, [rows()[:4], rows()[4:]], Hooks(), "eager")
    assert found == pytest.approx(wanted, abs=1e-5) and float((passed - gradient).abs().max()) < 1e-5


def test_a_pack_trains_exactly_the_tokens_of_its_rows() -> None:
    """The mask proof holds for rows; what is trained in packs is, row by row, the same tokens, and every pack stays within pass_tokens."""
    made = parts(collate(rows(), 0), Loop(pass_tokens=130, packing="shared_prompt"))
    found = []
    for pack in made:
        labels, owners = pack["labels"][:, 1:], rows_of(pack)
        trained = labels[labels != IGNORED]
        assert pack["input_ids"].shape[1] <= 130 and bool((pack["labels"][pack["segments"] == 0] == IGNORED).all())
        found += [(trained[owners == row].tolist(), float(pack["row_weights"][row])) for row in range(len(pack["row_weights"]))]
    assert sorted(found) == sorted(([label for label in row.labels if label != IGNORED], row.weight) for row in rows())


def test_a_training_in_packs_is_the_same_training(inputs: Inputs, tmp_path: Path) -> None:
    """The whole loop: the curve and the validation loss agree, whichever way the rows are passed. All rows are in each batch, since
    with shared_prompt smaller ones are made up otherwise."""
    same = {"max_steps": 4, "epochs": 4, "batch_tokens": 100_000}
    wanted = tune(inputs, tmp_path / "a", tmp_path / "sa", **same)
    for index, how in enumerate(({"pass_tokens": 200, "packing": "shared_prompt"}, {"pass_tokens": 100, "checkpointing": True})):
        found = tune(inputs, tmp_path / f"b{index}", tmp_path / f"s{index}", **same, **how)
        assert found["final_loss"] == pytest.approx(wanted["final_loss"], abs=1e-4)
        assert found["final_validation_loss"] == pytest.approx(wanted["final_validation_loss"], abs=1e-4)


def test_packs_need_a_size() -> None:
    with pytest.raises(BadInput, match=r"packing: rows needs pass_tokens"):
        check(Loop(packing="rows"))


def test_out_of_memory_says_what_to_lower(inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes."
        )

    monkeypatch.setattr(trainer, "parts", full)
    message = r"sft: out of memory. Of the params of its loop, in this order: lower pass_tokens \(now 64\); set dtype: bfloat16."
    with pytest.raises(StageFailed, match=message):
        tune(inputs, tmp_path / "a", tmp_path / "s", pass_tokens=64, checkpointing=True)


def test_bfloat16_learns_as_float32_does_and_leaves_float32(inputs: Inputs, tmp_path: Path) -> None:
    """An adapter over a base that is held in bfloat16: the curve is the one of float32 up to that rounding, and the base's weights are
    the same in the merged checkpoint wherever no adapter sits."""
    import torch
    from safetensors.torch import load_file

    from tasks.checkpoints import folders, saving

    base, words = folders.load(inputs.base / "model")
    saving.save(base.bfloat16().float(), words, tmp_path / "coarse" / "model")
    coarse = Inputs(inputs.worlds, tmp_path / "coarse", inputs.rows)
    found, lora = {}, {"kind": "lora", "r": 2, "targets": ["q_proj", "v_proj"], "save": "full"}
    for dtype in ("float32", "bfloat16"):
        found[dtype] = tune(coarse, tmp_path / dtype, tmp_path / f"s{dtype}", max_steps=8, dtype=dtype, adapter=lora)
    assert found["bfloat16"]["final_loss"] == pytest.approx(found["float32"]["final_loss"], rel=0.01)
    assert found["bfloat16"]["final_loss"] != found["float32"]["final_loss"]
    merged, start = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "bfloat16", tmp_path / "coarse"))
    assert {value.dtype for value in merged.values()} == {torch.float32}
    moved = {name for name in start if not start[name].equal(merged[name])}
    assert moved and all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in moved)
