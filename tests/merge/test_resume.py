"""A killed merge goes on where it was: the same bytes, nothing done twice, and never on the strength of another merge's journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tasks.contract.params import BadInput
from tasks.merge.core.engine import SLACK, Look
from tasks.merge.core.tally import write_report
from tasks.merge.core.tensors import Tensor
from tests.conftest import ROOT
from tests.merge.arithmetic import add_all, digests, merged, scratch_of
from tests.merge.folders import save

TENSORS = 24
MERGED = TENSORS - 1
"""One is of integers: copied, without a look of the method; it is the smallest, so it comes last."""
THREADS = 2


class Killed(BaseException):
    """What a test raises where a machine would stop."""


def many(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A base and two experts of TENSORS matrices of different sizes; one is of integers."""

    def tensors(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        made = {f"w{number:02d}": rng.normal(size=(8 + number, 64)).astype(np.float32) for number in range(MERGED)}
        return {**made, "position": np.arange(9)}

    return save(folder / "base", tensors(0)), {name: save(folder / name, tensors(seed)) for seed, name in enumerate(("a", "b"), 1)}


def run(folder: Path, most: int = TENSORS) -> None:
    """Merge what lies in `folder` into its m; every tensor that a method looks at becomes a line of looked.txt. After `most` of them
    it stands still, to be killed."""
    before = len(looked(folder))

    def slow(tensor: Tensor) -> Look:
        if len(looked(folder)) - before >= most:
            time.sleep(60)
        with (folder / "looked.txt").open("a") as stream:
            stream.write(tensor.name + "\n")
        time.sleep(0.01)
        return add_all(tensor)

    report = merged(folder / "base", {name: folder / name for name in "ab"}, folder / "m", slow, THREADS, max_shard_bytes=50_000)
    write_report(folder / "report.parquet", report.rows)


def finished(out: Path) -> list[str]:
    """Names in the journal of a merge into `out`, whole lines only."""
    journal = scratch_of(out) / "merge/done.jsonl"
    lines = journal.read_text().split("\n")[1:-1] if journal.exists() else []
    return [json.loads(line)["name"] for line in lines]


def looked(folder: Path) -> list[str]:
    return (folder / "looked.txt").read_text().split() if (folder / "looked.txt").exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    many(folder)
    run(folder)
    return folder


def test_killed_again_and_again_it_comes_to_the_same_bytes(tmp_path: Path, undisturbed: Path) -> None:
    many(tmp_path)
    random = Random(0)
    for last in (False, False, False, True):
        done, before = finished(tmp_path / "m"), len(looked(tmp_path))
        some = random.randrange(1, 5)
        most = TENSORS if last else some + random.randrange(3)
        child = subprocess.Popen(
            [sys.executable, "-c", f"from tests.merge.test_resume import *; run(Path({str(tmp_path)!r}), {most})"], cwd=ROOT
        )
        if not last:
            while child.poll() is None and len(finished(tmp_path / "m")) < len(done) + some:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
        assert child.wait() == (0 if last else -signal.SIGKILL)
        assert (tmp_path / "m").exists() == last, "half a model is never called a model"
        assert not set(looked(tmp_path)[before:]) & set(done), "what was finished is not done again"
    assert len(looked(tmp_path)) <= MERGED + 3 * THREADS, "at most what was under way is done twice"
    assert digests(tmp_path / "m") == digests(undisturbed / "m")
    assert pq.read_table(tmp_path / "report.parquet") == pq.read_table(undisturbed / "report.parquet")
    assert not list(scratch_of(tmp_path / "m").iterdir())


def stopped(folder: Path, after: int, **params: Any) -> list[str]:
    """Merge into folder/m and stop after so many tensors; returns their names."""

    def stop(done: int, total: int, note: str) -> None:
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        merged(folder / "base", {name: folder / name for name in "ab"}, folder / "m", progress=stop, **params)
    assert len(finished(folder / "m")) == after
    return finished(folder / "m")


def goes_on(folder: Path, **params: Any) -> list[str]:
    """Merge into folder/m; returns the tensors that were still looked at, and checks the bytes against a merge from nothing."""
    seen: list[str] = []

    def look(tensor: Tensor) -> Look:
        seen.append(tensor.name)
        return add_all(tensor)

    experts = {name: folder / name for name in "ab"}
    report = merged(folder / "base", experts, folder / "m", look, **params)
    fresh = merged(folder / "base", experts, folder / "fresh", **params)
    assert digests(folder / "m") == digests(folder / "fresh")
    assert (report.rows, report.norms, report.tensors, report.copied, report.parameters) == (
        *(fresh.rows, fresh.norms, fresh.tensors, fresh.copied, fresh.parameters),
    )
    assert not list(scratch_of(folder / "m").iterdir())
    return seen


def test_what_is_left_is_done_with_any_number_of_threads(tmp_path: Path) -> None:
    many(tmp_path)
    done = stopped(tmp_path, 10)
    assert sorted([*goes_on(tmp_path, threads=4), *done, "position"]) == sorted(load_file(tmp_path / "base/model.safetensors"))


def test_a_merge_that_lacks_only_its_name_is_not_done_again(tmp_path: Path) -> None:
    many(tmp_path)
    stopped(tmp_path, TENSORS)
    assert goes_on(tmp_path) == []


def _half_a_line(journal: Path) -> None:
    with journal.open("a") as stream:
        stream.write('{"name": "w05", "rows": [{"ten')


def _cut_line(journal: Path) -> None:
    os.truncate(journal, journal.stat().st_size - 7)


def _no_newline(journal: Path) -> None:
    os.truncate(journal, journal.stat().st_size - 1)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("tear", "lost"), [(_half_a_line, 0), (_cut_line, 1), (_no_newline, 0)])
def test_a_torn_last_line_costs_its_tensor_alone(tmp_path: Path, tear: Callable[[Path], None], lost: int, again: bool) -> None:
    """And the journal is whole again: stopped once more, it still says what was done before the tear and after it."""
    many(tmp_path)
    stopped(tmp_path, 10)
    tear(scratch_of(tmp_path / "m") / "merge/done.jsonl")
    if again:
        stopped(tmp_path, 12)
    assert len(goes_on(tmp_path)) == MERGED - (12 if again else 10 - lost)


def _weights_of_an_expert(folder: Path) -> None:
    values = load_file(folder / "b/model.safetensors")
    save(folder / "b", {**values, "w03": values["w03"] + 1})


def _other_file(folder: Path) -> None:
    os.utime(folder / "base/model.safetensors", (1, 1))


def _tokenizer(folder: Path) -> None:
    for part in ("base", "a", "b"):
        (folder / part / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"c": 0}}}))


def _torn_first_line(folder: Path) -> None:
    journal = scratch_of(folder / "m") / "merge/done.jsonl"
    journal.write_text(journal.read_text()[5:])


def _no_folder(folder: Path) -> None:
    shutil.rmtree(scratch_of(folder / "m") / "merge/model")


@pytest.mark.parametrize("change", [_weights_of_an_expert, _other_file, _tokenizer, _torn_first_line, _no_folder])
def test_another_merges_journal_is_not_used(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    many(tmp_path)
    stopped(tmp_path, 10)
    change(tmp_path)
    assert len(goes_on(tmp_path)) == MERGED


@pytest.mark.parametrize(
    "params", [{"weights": {"a": 0.5}}, {"max_shard_bytes": 50_000}, {"overrides": [{"match": "w1", "exclude": True}]}]
)
def test_other_params_start_anew(tmp_path: Path, params: dict[str, Any]) -> None:
    many(tmp_path)
    stopped(tmp_path, 10)
    excluded = 10 if "overrides" in params else 0
    assert len(goes_on(tmp_path, **params)) == MERGED - excluded


def test_a_refusal_in_the_middle_leaves_nothing_and_forgets_what_was_done(tmp_path: Path) -> None:
    many(tmp_path)
    values = load_file(tmp_path / "b/model.safetensors")
    values["w00"][0, 0] = np.inf
    save(tmp_path / "b", values)
    stopped(tmp_path, 10)
    with pytest.raises(BadInput, match="b: tensor 'w00' holds NaN or infinity"):
        merged(tmp_path / "base", {"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "m")
    assert not (tmp_path / "m").exists() and not list(scratch_of(tmp_path / "m").iterdir())


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights and SLACK must fit; what an earlier attempt wrote already counts as room."""
    base, experts = many(tmp_path)
    wanted = sum(values.nbytes for values in load_file(base / "model.safetensors").values())

    def free(size: int) -> None:
        def usage(path: Any) -> SimpleNamespace:
            return SimpleNamespace(free=1 << 40 if "fresh" in str(path).removeprefix(str(tmp_path)) else size)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    free(wanted + SLACK - 1)
    with pytest.raises(BadInput, match=r"the merged model needs 0\.00 GB, .*/model has 0\.07 GB free\. Make room\."):
        merged(base, experts, tmp_path / "m")
    assert not (tmp_path / "m").exists() and not list(scratch_of(tmp_path / "m").iterdir())
    free(wanted + SLACK)
    stopped(tmp_path, 20)
    free(wanted + SLACK - 4096)
    assert len(goes_on(tmp_path)) == MERGED - 20
