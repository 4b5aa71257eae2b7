"""Two processes train as one does: the same curve and weights within rounding, also when they were killed between two steps."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.engine import process
from tasks.sft import Inputs
from tasks.sft.core.hooks import Hooks, Phase
from tasks.sft.core.loop import check_shared
from tasks.sft.core.params import Loop, check
from tasks.training.distributed import take_gpu
from tests.conftest import ROOT
from tests.sft.test_hooks import Fomaml
from tests.sft.test_sft import SMALL
from tests.sft.test_sft import inputs as inputs

TWO = {"distributed": {"kind": "fsdp2", "processes": 2}}


def trained(inputs: Inputs, folder: Path, stop: int = 0, **more: Any) -> dict[str, Any]:
    """A training in processes of its own; stop: kill them all at this step."""
    spec = {
        **{
            "stage": "sft",
            "room": "sft",
            "method": "sft",
            "params": {},
            "seed": 5,
            "device": "cpu",
            "threads": 1,
            "instructions": "avx2",
            "roles": {},
            "run": "",
        },
        "prompt": {"tools": "none", "policy": "none"},
        "loop": Loop(**{**SMALL, "max_steps": 10, "pass_tokens": 100, "validate_every": 4, **more}).model_dump(),
        "inputs": {"worlds": str(inputs.worlds), "base": str(inputs.base), "filter": str(inputs.rows), "unfiltered": False},
        **{name: str(folder / name) for name in ("out", "scratch")},
    }
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def progress(done: int, total: int, note: str) -> None:
        if stop and done >= stop:
            for child in process._children:
                os.killpg(child.pid, signal.SIGKILL)

    return process.run(spec, ROOT, lambda *_: None, progress)


def curve(folder: Path) -> list[float]:
    return [float(cell) for line in list(csv.reader((folder / "out" / "curves.csv").open()))[1:] for cell in line if cell]


@pytest.mark.long
def test_two_processes_give_the_curve_of_one_and_go_on_after_a_kill(inputs: Inputs, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    alone = trained(inputs, tmp_path / "one")
    both = trained(inputs, tmp_path / "two", **TWO)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-3) and both["steps"] == alone["steps"] == 10
    wanted, found = (load_file(tmp_path / name / "out" / "model" / "model.safetensors") for name in ("one", "two"))
    assert wanted.keys() == found.keys() and all(float((wanted[name] - found[name]).abs().max()) < 2e-3 for name in wanted)
    with pytest.raises(process.ProcessFailed, match="SIGKILL"):
        trained(inputs, tmp_path / "cut", stop=6, **TWO)
    assert list(tmp_path.glob("cut/scratch/process-1/scratch/phase-0/states/checkpoint-*")), (
        "the 4th step's, or the 8th's if it came late"
    )
    assert trained(inputs, tmp_path / "cut", **TWO) == both
    assert (tmp_path / "cut/out/model/model.safetensors").read_bytes() == (tmp_path / "two/out/model/model.safetensors").read_bytes()


@pytest.mark.long
def test_two_processes_train_the_adapter_of_one(inputs: Inputs, tmp_path: Path) -> None:
    """As profile gpu_8x does: LoRA on a base held in bfloat16, activations computed again, packs that share a prompt."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(inputs.base, tmp_path / "base")
    coarse = tmp_path / "base/model/model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(coarse).items()}, coarse, {"format": "pt"})
    given = replace(inputs, base=tmp_path / "base")
    how = {"max_steps": 3, "log_every": 1, "dtype": "bfloat16", "checkpointing": True, "packing": "shared_prompt"}
    found = []
    for name, more in (("one", {}), ("two", TWO)):
        trained(given, tmp_path / name, adapter={"kind": "lora", "r": 4}, **how, **more)
        found.append(load_file(tmp_path / name / "out/model/adapter_model.safetensors"))
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-3)
    assert all(float((value - found[1][name]).abs().max()) < 2e-3 for name, value in found[0].items())
    assert any(bool(value.any()) for name, value in found[1].items() if "lora_B" in name)


@pytest.mark.parametrize(("seen", "wanted"), [(None, "2"), ("", "2"), ("4,5,7", "7"), ("GPU-a, GPU-b, GPU-c", "GPU-c")])
def test_each_process_sees_its_own_gpu_alone(seen: str | None, wanted: str) -> None:
    """Else the Trainer of each would take the first and spread its batches over all."""
    environment = {"LOCAL_RANK": "2", **({} if seen is None else {"CUDA_VISIBLE_DEVICES": seen})}
    take_gpu(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == wanted


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"distributed": {"kind": "fsdp2"}}, "kind: fsdp2 with processes: 1. Allowed: fsdp2 with 2 and more, none with 1"),
        ({"distributed": {"processes": 2}}, "kind: none with processes: 2"),
        (TWO, "so it needs pass_tokens"),
        ({**TWO, "pass_tokens": 100, "optimizer": "muon"}, "which optimizer: muon needs whole. Allowed: adamw"),
    ],
)
def test_what_cannot_be_shared_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Loop(**how))


def test_a_method_with_steps_of_its_own_needs_one_process() -> None:
    with pytest.raises(StageFailed, match=r"sft: the method has step and phases of its own, .*Set loop.distributed: \{kind: none"):
        check_shared(Fomaml(), [Phase("a", []), Phase("b", [])])
    check_shared(Hooks(), [Phase("", [])])
