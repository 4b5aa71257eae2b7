"""Two processes reinforce as one does: the same curve and weights within rounding, also when they were killed between two steps."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.rl import Loop, check
from tasks.rl.core.models import check_shared
from tasks.rl.grpo import Grpo, Params
from tests.conftest import ROOT
from tests.rl.micro import frozen

TWO = {"distributed": {"kind": "fsdp2", "processes": 2}}
WHOLE = {"pass_tokens": 300, "validate_every": 1}
ADAPTER = {
    **WHOLE,
    "packing": "shared_prompt",
    "dtype": "bfloat16",
    "checkpointing": True,
    "importance_cap": 2.0,
    "max_mismatch": 0.2,
    "adapter": {"kind": "lora", "r": 2},
}


def trained(root: Path, name: str, loop: dict[str, Any], stop: int = 0) -> subprocess.CompletedProcess[str]:
    """A training of one or two processes; stop: the first one is interrupted at this step."""
    count = loop.get("distributed", {}).get("processes", 1)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
    argv = [sys.executable, *torchrun, "-m", "tests.rl.process", str(root), name, json.dumps(loop), str(stop)]
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False)


def curve(folder: Path) -> list[dict[str, float]]:
    lines = csv.DictReader((folder / "out" / "curves.csv").open())
    return [{name: float(cell) for name, cell in line.items() if cell} for line in lines]


@pytest.mark.long
@pytest.mark.parametrize(("loop", "file"), [(WHOLE, "model.safetensors"), (ADAPTER, "adapter_model.safetensors")])
def test_two_processes_give_the_curve_of_one_and_go_on_after_a_kill(tmp_path: Path, loop: dict[str, Any], file: str) -> None:
    from safetensors.torch import load_file

    frozen(tmp_path)
    for name, how in (("one", loop), ("two", {**loop, **TWO})):
        assert not (ended := trained(tmp_path, name, how)).returncode, ended.stderr
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == 3 and all(wanted == pytest.approx(found, abs=1e-3) for wanted, found in zip(one, two, strict=True))
    assert any(line["tokens"] for line in one[1:])
    wanted, found = (load_file(tmp_path / name / "scratch/best/2/model" / file) for name in ("one", "two"))
    assert wanted.keys() == found.keys() and all(float((wanted[name] - found[name]).abs().max()) < 2e-3 for name in wanted)
    killed = trained(tmp_path, "cut", {**loop, **TWO}, stop=2)
    assert killed.returncode and (tmp_path / "cut/process-1/scratch/steps/1/learners.pt").is_file(), killed.stderr
    assert not (ended := trained(tmp_path, "cut", {**loop, **TWO})).returncode, ended.stderr
    assert (tmp_path / "cut/figures.json").read_bytes() == (tmp_path / "two/figures.json").read_bytes()
    kept = [tmp_path / name / "scratch/best/2/model" / file for name in ("cut", "two")]
    assert kept[0].read_bytes() == kept[1].read_bytes()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"distributed": {"kind": "fsdp2"}}, "kind: fsdp2 with processes: 1. Allowed: fsdp2 with 2 and more, none with 1"),
        (TWO, "so it needs pass_tokens"),
        ({**TWO, "pass_tokens": 100, "optimizer": "adamw_8bit"}, "adamw_8bit"),
    ],
)
def test_what_cannot_be_shared_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Loop(**how))


def test_a_method_with_a_critic_needs_one_process() -> None:
    class Judged(Grpo):
        def critic(self, model: Any) -> Any:
            return None

    with pytest.raises(StageFailed, match=r"rl: the method has a critic, .*Set loop.distributed: \{kind: none"):
        check_shared(Judged(params=Params()))
    check_shared(Grpo(params=Params()))
