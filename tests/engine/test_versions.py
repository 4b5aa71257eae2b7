"""What is installed and fixed here against params/versions.yaml, and both in the key by value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contract.params import BadInput
from tasks.engine import dvc_lock, start, versions
from tasks.engine.dvc_yaml import listed
from tasks.engine.hashes import Hashes
from tasks.engine.key import Key, key_of
from tasks.engine.settings import load
from tests.conftest import ROOT


def said(folder: Path, text: str) -> Path:
    (folder / "params").mkdir()
    (folder / "params/versions.yaml").write_text(text)
    return folder


def test_this_environment_is_the_one_of_the_file() -> None:
    assert versions.differences(ROOT) == []


def test_other_versions_stop_before_anything_computes(tmp_path: Path) -> None:
    project = said(tmp_path, "numpy: '1.0.0'\nno-such-package: '3'\nkernels: {MKL_CBWR: 'SSE'}\n")
    with pytest.raises(BadInput) as caught:
        versions.check(project)
    for part in (
        "numpy is",
        "and 1.0.0 in",
        "no-such-package is not installed",
        "MKL_CBWR is fixed to AVX2",
        "`make setup`",
        "`make lock`",
    ):
        assert part in str(caught.value)


def test_a_build_tag_is_no_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda name: "2.13.0+cpu")
    assert versions.differences(said(tmp_path, "torch: '2.13.0'\n")) == []


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"])
def test_what_start_fixes_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings, hashes = load(ROOT), Hashes(tmp_path)
    about = listed(settings)["worlds"]
    before, real = key_of(settings, about, {}, hashes).digest, start.kernels
    monkeypatch.setattr(start, "kernels", lambda threads: {**real(threads), name: "other"})
    assert key_of(settings, about, {}, hashes).digest != before


def test_threads_are_in_the_key_of_stages_that_have_a_say_in_them(tmp_path: Path) -> None:
    one, two, hashes = load(ROOT, overrides=[("threads", 1)]), load(ROOT, overrides=[("threads", 2)]), Hashes(tmp_path)
    for stage, inputs, moves in (("worlds", {}, False), ("base", {"worlds": "w.dir"}, True)):
        keys = [key_of(settings, listed(settings)[stage], inputs, hashes).digest for settings in (one, two)]
        assert (keys[0] != keys[1]) is moves, stage


def test_instructions_for_bfloat16_are_in_the_key_of_what_computes_in_it(tmp_path: Path) -> None:
    """And they alone change: what is computed in float32 is the same with either."""
    slow, fast = start.kernels(2), start.kernels(2, "avx512_bf16")
    assert {name for name in slow if slow[name] != fast[name]} == {"ONEDNN_MAX_CPU_ISA"}
    one, two, hashes = load(ROOT), load(ROOT, overrides=[("instructions", "avx512_bf16")]), Hashes(tmp_path)
    names = {"generate": "g", "filter": "f", "base": "b", "worlds": "w", "sft": "s", "rl": "r", "merge": "m", "bank": "k"}
    for stage, moves in (("worlds", False), ("base", False), ("sft", True), ("rl", True)):
        keys = [key_of(settings, listed(settings)[stage], names, hashes).digest for settings in (one, two)]
        assert (keys[0] != keys[1]) is moves, stage


def test_nothing_is_taken_over_from_dvc_with_other_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC knows the kernels by params/versions.yaml alone."""
    about = listed(load(ROOT))["worlds"]
    monkeypatch.setattr(dvc_lock, "stages", lambda project: {"worlds": {"outs": [{"path": about.out, "md5": "x.dir"}]}})
    monkeypatch.setattr(dvc_lock, "_same_deps", lambda *_: True)
    monkeypatch.setattr(dvc_lock, "_same_params", lambda *_: True)
    for fixed, found in (("avx2", "x.dir"), ("avx512", None)):
        key = Key({"versions": {"kernels": {"ATEN_CPU_CAPABILITY": "avx2"}}, "kernels": {"ATEN_CPU_CAPABILITY": fixed}})
        assert dvc_lock.held(tmp_path, about, key, {}) == found


@pytest.mark.parametrize("text", ["5\n", "text\n", "[numpy]\n", "kernels: 3\n", "'': '1'\n"])
def test_a_file_of_another_shape_is_refused_in_words(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"expected the version of each package.*git checkout HEAD"):
        versions.check(said(tmp_path, text))
