"""The table of `make bench-merge` on runs made by hand, its checkpoints, and how it watches a command.

By hand, breadcrumbs in three rounds: mergekit 60, 50, 70 s, ours 6, 5, 10 s: 60 / 6 = 10 (rounds 10, 10, 7). Memory: ours 100 MiB,
mergekit 1,000. The copy takes 2, 4, 3 s: 6 / 3 = 2 (rounds 3, 1.25, 3.3).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from infra import bench_merge, checkpoints
from infra.bench_merge import CASES, MIB, Run, Size, copy, growth, lines, parse, timed
from infra.bench_quickstart import Line
from tasks.merge.core.headers import open_checkpoint, read, widen

SMALL = checkpoints.Model(width=64, inner=256, layers=2, vocab=96)


def runs(seconds: Sequence[float], mib: float) -> list[Run]:
    return [Run(one, 1.5 * one, int(mib * MIB), int(2 * mib * MIB)) for one in seconds]


def size(label: str = "125M", scale: float = 1.0, mib: float = 100, against: bool = True) -> Size:
    """Both methods alike; ours takes `scale` times as long."""
    found = {}
    for case in CASES:
        found[case.method, "ours"] = runs([6 * scale, 5 * scale, 10 * scale], mib)
        if against:
            found[case.method, "mergekit"] = runs([60, 50, 70], 1000)
    split = {case.method: {"read": 2.0, "select": 4.0, "combine": 1.0, "write": 0.5, "wall": 5.0} for case in CASES}
    return Size(label, checkpoints.of_size(parse(label)), found, [2, 4, 3], split)


def by_label(table: list[Line]) -> dict[str, Line]:
    return {line.label: line for line in table if not line.label.startswith("  ")}


def test_worked_example() -> None:
    found = by_label(lines(size()))
    wall = found["breadcrumbs: wall time, mergekit / ours"]
    assert wall.figure and (wall.figure.mean, wall.figure.spread) == (10, (7, 10)) and wall.verdict == "met, aim met"
    assert wall.figure.note == "mergekit 60.00 s, ours 6.00 s"
    memory = found["breadcrumbs: peak anonymous memory, ours / mergekit"]
    assert memory.figure and memory.figure.mean == 0.1 and memory.verdict == "met, aim met"
    copied = found["ties: wall time, ours / plain copy"]
    assert copied.figure and (copied.figure.mean, copied.figure.spread) == (2, (1.25, 10 / 3)) and copied.verdict == "met, aim met"
    assert found["ties: cores busy, of 2"].cells()[3] == "1.5"


def test_what_is_missed_is_said() -> None:
    slow = by_label(lines(size(scale=3, mib=600)))
    assert slow["ties: wall time, mergekit / ours"].verdict == "missed, aim missed"
    assert slow["ties: peak anonymous memory, ours / mergekit"].verdict == "missed, aim missed"
    assert slow["ties: wall time, ours / plain copy"].verdict == "missed, aim missed"
    assert by_label(lines(size(scale=1.5, mib=300)))["ties: wall time, mergekit / ours"].verdict == "met, aim missed"


def test_the_split_adds_up_to_both_threads_time() -> None:
    """Wall 5 s on 2 threads: 10 s, of which 7.5 are known. The whole process took 6 s, 1 more."""
    parts = [line for line in lines(size()) if line.label.startswith("  ")]
    seconds = {line.label.strip(): line.figure.mean for line in parts[: len(parts) // 2] if line.figure}
    assert seconds.pop("start and end of the process, s") == 1
    assert seconds["rest (waits, fsync), thread seconds"] == 2.5 and sum(seconds.values()) == 10
    shares = [line.figure.note for line in parts if line.figure and line.label.startswith("  select")]
    assert shares == ["40%"] * len(CASES)


def test_without_mergekit_there_is_the_copy_alone() -> None:
    assert not [label for label in by_label(lines(size(against=False))) if "mergekit" in label]
    assert len(lines(size(against=False))) == len(lines(size())) - 3 * len(CASES)


def test_growth_is_judged_from_the_smallest_to_the_largest() -> None:
    parameters = [checkpoints.of_size(parse(label)).parameters for label in ("125M", "500M")]
    linear = parameters[1] / parameters[0]
    found = by_label(growth([size(), size("500M", linear, 110)]))
    steady = found["breadcrumbs: seconds a parameter, 500M / 125M"]
    assert steady.figure and steady.figure.mean == pytest.approx(1) and steady.verdict == "met"
    assert found["breadcrumbs: peak anonymous memory, 500M / 125M"].verdict == "met"
    assert "largest tensor 133 MiB" in found["ties, 500M: peak anonymous memory, MiB"].cells()[4]
    worse = by_label(growth([size(), size("500M", 1.3 * linear, 130)]))
    assert worse["ties: seconds a parameter, 500M / 125M"].verdict == "missed"
    assert worse["ties: peak anonymous memory, 500M / 125M"].verdict == "missed"


@pytest.mark.parametrize("label", ["125M", "250M", "500M", "1B"])
def test_sizes_are_about_what_they_are_called(label: str) -> None:
    model = checkpoints.of_size(parse(label))
    assert model.parameters == pytest.approx(parse(label), rel=0.02)
    assert model.width % checkpoints.HEAD == 0 and model.inner == 4 * model.width
    assert model.parameters == sum(math.prod(shape) for shape in model.shapes().values())


@pytest.mark.parametrize("label", ["125", "M", "1e9", "-1M", "125m"])
def test_other_sizes_are_refused(label: str) -> None:
    with pytest.raises(SystemExit, match="allowed are numbers of parameters such as 125M or 1B"):
        parse(label)


def test_a_family_is_sharded_and_its_experts_start_from_the_base(tmp_path: Path) -> None:
    checkpoints.family(tmp_path, SMALL, 2, shards=4)
    base, first, second = (open_checkpoint(name, tmp_path / name) for name in ("base", "expert_0", "expert_1"))
    assert {name: spec.shape for name, spec in base.tensors.items()} == SMALL.shapes()
    assert len({spec.file for spec in base.tensors.values()}) == len(list((tmp_path / "base").glob("*.safetensors"))) == 4
    index = json.loads((tmp_path / "base" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * SMALL.parameters and index["weight_map"].keys() == SMALL.shapes().keys()
    name = "model.layers.1.mlp.up_proj.weight"
    start, *moved = (read(one.tensors[name]).astype(np.float64) for one in (base, first, second))
    changes = [(one - start).reshape(-1) for one in moved]
    assert start.std() == pytest.approx(checkpoints.SPREAD, rel=0.05)
    assert [change.std() for change in changes] == pytest.approx([checkpoints.STEP] * 2, rel=0.05)
    assert abs(np.corrcoef(*changes)[0, 1]) < 0.05, "experts moved apart from each other"


def test_bfloat16_checkpoints_hold_the_rounded_values(tmp_path: Path) -> None:
    checkpoints.family(tmp_path / "wide", SMALL, 0)
    checkpoints.family(tmp_path / "half", SMALL, 0, dtype="BF16")
    wide, half = (open_checkpoint("base", tmp_path / kind / "base") for kind in ("wide", "half"))
    assert half.config["torch_dtype"] == "bfloat16"
    for name, spec in half.tensors.items():
        assert spec.dtype == "BF16"
        np.testing.assert_allclose(widen(read(spec), "BF16"), read(wide.tensors[name]), rtol=2**-8)


def test_the_copy_writes_the_base_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    checkpoints.family(folder, SMALL, 2, shards=2)
    assert copy(folder, tmp_path / "out") > 0
    files = sorted(path.name for path in (folder / "base").glob("*.safetensors"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    assert all((tmp_path / "out" / name).read_bytes() == (folder / "base" / name).read_bytes() for name in files)


def test_memory_is_that_of_all_processes_of_a_command() -> None:
    """A child of the command holds 64 MiB of its own and maps nothing."""
    child = "held = bytearray(64 << 20); held[::4096] = bytes([1]) * len(held[::4096]); import time; time.sleep(0.3)"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"]
    run = timed(command, os.environ)
    assert 64 * MIB < run.anonymous < 128 * MIB and run.resident > run.anonymous
    assert 0.3 < run.seconds < 60 and 0 < run.cpu < run.seconds + 1


def test_a_command_that_fails_ends_the_benchmark_with_its_last_words() -> None:
    with pytest.raises(SystemExit, match="ended with 3:\nno such recipe"):
        timed([sys.executable, "-c", "print('no such recipe'); raise SystemExit(3)"], os.environ)


def test_a_full_disk_is_said_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**10))
    with pytest.raises(SystemExit, match=r"11 GB are needed below \.cairn/tmp, 10 GB are free"):
        bench_merge.measure("500M", 1, True, bench_merge.ROOT / ".cairn" / "tmp")


def test_sides_take_turns() -> None:
    sides = [(case, side) for case in CASES for side in ("ours", "mergekit")]
    assert bench_merge._turned(sides, 0) == sides and bench_merge._turned(sides, 1) == sides[::-1]
