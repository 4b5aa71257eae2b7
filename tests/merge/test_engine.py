"""The merge engine: what it reads, refuses, copies and writes, independent of any method.

Worked example (report): d1 = [3, 4], d2 = [4, -3]: norms 5 and 5, cosine (12 - 12) / 25 = 0; both change both entries and
disagree on the second, so sign_conflict_frac = 1/2.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tasks.merge.core.engine import Combined, dot, merge
from tasks.merge.core.headers import Array, narrow, open_checkpoint, widen
from tasks.merge.core.plan import make_plan
from tasks.merge.core.selection import kth_largest, middle, middle_rows
from tasks.params import BadInput
from tests.merge.folders import family, save, weights


def add_all(name: str, base: Array, deltas: list[Array]) -> Combined:
    """Task arithmetic: the plainest formula."""
    total = np.zeros_like(base)
    for delta in deltas:
        total += delta
    return Combined(total)


def merged(base: Path, experts: dict[str, Path], out: Path, **options: Any) -> Any:
    """Merge with task arithmetic."""
    return merge(make_plan(base, experts), add_all, out, metadata={"k": "v"}, max_relative_delta=9.0, **options)


def test_report_by_hand(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.zeros((1, 2), np.float32) + 1})
    one = save(tmp_path / "one", {"w": np.array([[4, 5]], np.float32)})
    two = save(tmp_path / "two", {"w": np.array([[5, -2]], np.float32)})
    first, second = merged(base, {"one": one, "two": two}, tmp_path / "m").rows
    assert (first["delta_l2"], second["delta_l2"], first["masked_l2"]) == (5.0, 5.0, 5.0)
    assert first["mean_pairwise_cos"] == 0.0 and first["sign_conflict_frac"] == 0.5
    np.testing.assert_array_equal(load_file(tmp_path / "m" / "model.safetensors")["w"], [[8, 2]])


def test_metadata_and_alignment_are_read_by_the_safetensors_library(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "b": np.ones(3, np.float16),
        "a": np.ones(5, np.float32),
        "i": np.arange(3, dtype=np.int64),
        "f": np.array([True]),
    }
    base = save(tmp_path / "base", tensors)
    merged(base, {"x": base}, tmp_path / "m")
    with safe_open(tmp_path / "m" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "k": "v"}
    assert {key: value.tolist() for key, value in load_file(tmp_path / "m" / "model.safetensors").items()} == {
        key: value.tolist() for key, value in tensors.items()
    }


def test_integers_are_copied_from_the_base(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.ones(2, np.float32), "position": np.arange(4)})
    other = save(tmp_path / "other", {"w": np.ones(2, np.float32), "position": np.arange(4) + 7})
    report = merged(base, {"other": other}, tmp_path / "m")
    np.testing.assert_array_equal(load_file(tmp_path / "m" / "model.safetensors")["position"], np.arange(4))
    assert report.copied == 1 and [row["tensor"] for row in report.rows] == ["w"]


def test_tied_head_is_merged_once_and_not_written(tmp_path: Path) -> None:
    base, experts = family(tmp_path, experts=1)
    tensors = load_file(experts["expert_0"] / "model.safetensors")
    save(experts["expert_0"], {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]})
    merged(base, experts, tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")


def test_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    base, experts = family(tmp_path, experts=1)
    tensors = load_file(experts["expert_0"] / "model.safetensors")
    save(experts["expert_0"], {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1})
    with pytest.raises(BadInput, match=r"expert_0: config.json ties lm_head.weight to model.embed_tokens.weight"):
        make_plan(base, experts)


def test_shards_go_in_and_out(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    merged(base, experts, tmp_path / "one")
    merged(base, experts, tmp_path / "many", max_shard_bytes=1000)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 3
    back = open_checkpoint("many", tmp_path / "many")
    single = load_file(tmp_path / "one" / "model.safetensors")
    assert sorted(back.tensors) == sorted(single)
    merged(tmp_path / "many", {"x": tmp_path / "many"}, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(again[name].tobytes() == value.tobytes() for name, value in single.items())


def test_float32_arithmetic_keeps_what_bfloat16_arithmetic_loses() -> None:
    """Around 1 bfloat16 steps by 1/128. A change of 3/1024 rounds away; two of them, 6/1024, round to one step."""
    base, step = np.float32(1.0), np.float32(3 / 1024)

    def rounded(value: Any) -> float:
        return float(widen(narrow(np.array([value], np.float32), "BF16"), "BF16")[0])

    assert rounded(rounded(base + step) + step) == 1.0
    assert rounded(base + step + step) == 1.0 + 1 / 128


def test_bfloat16_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=4096).astype(np.float32) * np.float32(1e3)
    values[:3] = [1 + 1 / 256, 1 + 3 / 256, -(1 + 1 / 256)]  # ties go to even
    wanted = torch.from_numpy(values).to(torch.bfloat16)
    ours = narrow(values, "BF16")
    np.testing.assert_array_equal(ours.view(np.int16), wanted.view(torch.int16).numpy())
    np.testing.assert_array_equal(widen(ours, "BF16"), wanted.float().numpy())


def test_overflow_of_the_stored_dtype_is_refused(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.full((1, 2), 40000, np.float16)})
    other = save(tmp_path / "other", {"w": np.full((1, 2), 60000, np.float16)})
    with pytest.raises(BadInput, match="the merged model: tensor 'w' has 2 values"):
        merged(base, {"a": other, "b": other}, tmp_path / "m")


def test_every_difference_is_listed(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.ones((2, 3), np.float32), "v": np.ones(2, np.float32), "x": np.ones(2, np.float32)})
    other = save(
        tmp_path / "other",
        {"w": np.ones((2, 4), np.float32), "v": np.ones(2, np.float16), "y": np.ones(1, np.float32)},
        vocab_size=9,
    )
    (other / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 1}}}))
    (other / "chat_template.jinja").write_text("other")
    with pytest.raises(BadInput) as caught:
        make_plan(base, {"other": other})
    for line in (
        "other: config.json has vocab_size = 9, the base's has 8",
        "other: the tokenizer's 'chat_template' is not the base's",
        "other: the tokenizer's 'model' is not the base's",
        "other: tensor 'x' is missing",
        "other: tensor 'y' is not in the base",
        "other: tensor 'v' has dtype F16, the base's has F32",
        "other: tensor 'w' has shape [2, 4], the base's has [2, 3]",
    ):
        assert line in str(caught.value)


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 10)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "not a readable safetensors file"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04nonsense"),
            "not a readable safetensors file",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../x.safetensors"}}'),
            "names the shard '../x.safetensors'",
        ),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    base, experts = family(tmp_path)
    spoil(experts["expert_1"])
    with pytest.raises(BadInput, match=said):
        make_plan(base, experts)


def test_no_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no expert is given"):
        make_plan(save(tmp_path / "base", weights(0)), {})


def test_histograms_partition_and_sort_agree() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=200_001)).astype(np.float32)
    values[:5000] = values[6000]  # ties
    ordered = np.sort(values)[::-1]
    ranks = [1, 2, 777, 100_000, 200_001]
    assert kth_largest(values, ranks) == [ordered[rank - 1] for rank in ranks]
    assert int(middle(values, 300, 5000).sum()) == 5000
    np.testing.assert_array_equal(middle(values, 300, 5000), middle_rows(values[None], 300, 5000)[0])
    with pytest.raises(ValueError, match=r"not in 1\.\.200001"):
        kth_largest(values, [0])


def test_all_equal_magnitudes_keep_the_first_ones() -> None:
    for n in (10, 70_000):
        mask = middle(np.ones(n, np.float32), 2, 3)
        assert np.flatnonzero(mask).tolist() == [2, 3, 4]


def test_dot_is_exact_enough() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=150_000).astype(np.float32) * np.float32(1e-20) for _ in range(2))
    assert dot(a, b) == pytest.approx(float(np.dot(a.astype(np.float64), b.astype(np.float64))), rel=1e-12)
