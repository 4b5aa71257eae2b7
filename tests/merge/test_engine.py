"""The merge engine: what it reads, refuses, copies, writes and reports, independent of any method.

Worked example (report): d1 = [3, 4], d2 = [4, -3]: norms 5 and 5, cosine (12 - 12) / 25 = 0; both change both entries and
disagree on the second, so sign_conflict_frac = 1/2.
"""

from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from tasks.contract.params import BadInput
from tasks.merge.core import tensors
from tasks.merge.core.engine import Look, Report
from tasks.merge.core.headers import Array, narrow, open_checkpoint, widen
from tasks.merge.core.plan import make_plan
from tasks.merge.core.room import figures
from tasks.merge.core.tally import COLUMNS, dot, write_report
from tasks.merge.core.tensors import Block, Tensor
from tests.merge import formulas
from tests.merge.arithmetic import add_all, digests, merged, scratch_of
from tests.merge.folders import family, save, weights


def test_report_by_hand(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.zeros((1, 2), np.float32) + 1})
    one = save(tmp_path / "one", {"w": np.array([[4, 5]], np.float32)})
    two = save(tmp_path / "two", {"w": np.array([[5, -2]], np.float32)})
    report = merged(base, {"one": one, "two": two}, tmp_path / "m")
    first, second = report.rows
    assert (first["model"], second["model"], first["tensor"], first["numel"], first["weight"]) == ("one", "two", "w", 2, 1.0)
    assert (first["delta_l2"], second["delta_l2"], first["masked_l2"], first["base_l2"]) == (5.0, 5.0, 5.0, 2**0.5)
    assert (first["changed_n"], first["kept_n"]) == (2, 2)
    assert first["mean_pairwise_cos"] == 0.0 and first["sign_conflict_frac"] == 0.5
    assert report.norms == {"one": pytest.approx(5 / 2**0.5), "two": pytest.approx(5 / 2**0.5)}
    assert (report.tensors, report.copied, report.parameters) == (1, 0, 2)
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
    merged(base, experts, tmp_path / "many", max_shard_bytes=1000)  # the matrix alone is larger: it stands alone
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
    with pytest.raises(BadInput, match="the merged model: tensor 'w' holds NaN or infinity: the sum leaves the range of F16"):
        merged(base, {"a": other, "b": other}, tmp_path / "m")
    assert not (tmp_path / "m").exists() and not list(scratch_of(tmp_path / "m").iterdir())


def test_every_difference_is_listed(tmp_path: Path) -> None:
    base = save(tmp_path / "base", {"w": np.ones((2, 3), np.float32), "v": np.ones(2, np.float32), "x": np.ones(2, np.float32)})
    other = save(
        tmp_path / "other",
        {"w": np.ones((2, 4), np.float32), "v": np.ones(2, np.int16), "y": np.ones(1, np.float32)},
        vocab_size=9,
    )
    (other / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 1}}}))
    (other / "chat_template.jinja").write_text("other")
    with pytest.raises(BadInput) as caught:
        make_plan(base, {"other": other})
    for line in (
        "other: config.json has vocab_size = 9, the base's has 8",
        "other: the chat template is not the base's",
        "other: the tokenizer's 'model' is not the base's",
        "other: tensor 'x' is missing",
        "other: tensor 'y' is not in the base",
        "other: tensor 'v' has dtype I16, the base's has F32",
        "other: tensor 'w' has shape [2, 4], the base's has [2, 3]",
    ):
        assert line in str(caught.value)


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 10)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "not a readable safetensors file"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04nonsense"),
            "not a readable safetensors file",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected a JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "peft_type is None; only LORA adapters are merged"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../x.safetensors"}}'),
            "names the shard '../x.safetensors'",
        ),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    base, experts = family(tmp_path)
    spoil(experts["expert_1"])
    with pytest.raises(BadInput, match=message):
        make_plan(base, experts)


def test_no_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no expert is given"):
        make_plan(save(tmp_path / "base", weights(0)), {})


def test_dot_adds_up_float32_products() -> None:
    """Pairwise summation of n float32 products is off by at most about log2(n) half steps of 2^-24, here 17 x 6e-8 = 1e-6."""
    rng = np.random.default_rng(0)
    a, b = (np.abs(rng.normal(size=150_000)).astype(np.float32) for _ in range(2))
    assert dot(a, b) == pytest.approx(float(np.dot(a.astype(np.float64), b.astype(np.float64))), rel=1e-6)


def test_tensors_of_every_shape_and_dtype_are_what_numpy_makes_of_them(tmp_path: Path) -> None:
    """A scalar, an empty tensor, a row longer than a block, a tensor of many blocks; each in three storage dtypes."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as store

    shapes = {"scalar": (), "empty": (0, 3), "long": (2, tensors.BLOCK + 5), "tall": (tensors.BLOCK // 2, 5), "deep": (3, 4, 5)}
    made: dict[str, dict[str, Any]] = {}
    for number, folder in enumerate(("base", "one", "two")):
        generator = torch.Generator().manual_seed(number)
        made[folder] = {
            f"{name}.{dtype}": torch.randn(shape, generator=generator).to(getattr(torch, dtype))
            for name, shape in shapes.items()
            for dtype in ("float32", "float16", "bfloat16")
        }
        store(made[folder], save(tmp_path / folder, {}) / "model.safetensors")
    merged(tmp_path / "base", {name: tmp_path / name for name in ("one", "two")}, tmp_path / "m", weights={"two": 0.5})
    found = load(tmp_path / "m" / "model.safetensors")
    assert sorted(found) == sorted(made["base"])
    for name, theta in made["base"].items():
        start = theta.float().numpy()
        changes = [made[expert][name].float().numpy() - start for expert in ("one", "two")]
        wanted = torch.from_numpy(np.asarray(start + (changes[0] + np.float32(0.5) * changes[1]))).to(theta.dtype)
        assert found[name].dtype == theta.dtype and found[name].shape == theta.shape
        assert torch.equal(found[name], wanted), name


@given(rows=st.integers(0, 9), row=st.integers(0, 9), block=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_blocks_are_whole_rows_in_flat_order(rows: int, row: int, block: int) -> None:
    base, change = np.arange(rows * row, dtype=np.float32), np.arange(rows * row, dtype=np.float32) * 2
    subject = formulas.tensor(base, [change], shape=(rows, row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "BLOCK", block)
        blocks = list(subject.blocks())
        again = [*subject.changes(0)]
        magnitudes = [*subject.magnitudes(0)]
    assert all(len(one.base) % row == 0 and (len(one.base) <= block or len(one.base) == row) for one in blocks)
    assert [one.start for one in blocks] == [one.indices.start for one in blocks]
    for parts, wanted in (
        ([one.base for one in blocks], base),
        ([one.changes[0] for one in blocks], change),
        (again, change),
        (magnitudes, change),
    ):
        np.testing.assert_array_equal(np.concatenate([*parts, np.empty(0, np.float32)]), wanted)
    np.testing.assert_array_equal(subject.whole(0).reshape(-1), change)
    np.testing.assert_array_equal(subject.whole_base().reshape(-1), base)


def test_same_bytes_for_any_threads_order_and_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, experts = family(tmp_path, experts=3)
    found = []
    for number, (threads, block) in enumerate([(1, 1 << 15), (2, 1 << 15), (4, 1 << 15), (1, 100), (3, 1 << 20)]):
        monkeypatch.setattr(tensors, "BLOCK", block)
        turned = dict(sorted(experts.items(), reverse=bool(number % 2)))
        merged(base, turned, tmp_path / f"m{number}", threads=threads, max_shard_bytes=1000)
        found.append(digests(tmp_path / f"m{number}"))
    assert all(one == found[0] for one in found) and len(found[0]) == 7  # three shards, their index, config, tokenizer, template


def test_large_finite_values_are_not_taken_for_infinity() -> None:
    """Two values of 3e38 are finite, their sum is not."""
    (block,) = formulas.tensor([3e38, 3e38], [[1.0, 1.0]]).blocks()
    assert np.isfinite(block.base).all()
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadInput, match="base: tensor 'w' holds NaN or infinity"):
            list(formulas.tensor([1.0, wrong], [[1.0, 1.0]]).blocks())
        with pytest.raises(BadInput, match="b: tensor 'w' holds NaN or infinity"):
            list(formulas.tensor([1.0, 1.0], [[1.0, 1.0], [wrong, -wrong]]).magnitudes(1))


def test_an_error_in_the_middle_waits_for_the_threads_before_the_files_are_closed(tmp_path: Path) -> None:
    """A tensor that is still being merged writes into files of its own, not into whatever has got their numbers since."""
    base, experts = family(tmp_path)
    begun, failed, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(tensor: Tensor) -> Look:
        look = add_all(tensor)

        def blend(block: Block) -> Array:
            if tensor.name == "scale":
                begun.set()
                failed.wait(10)
                time.sleep(0.1)
                ended.set()
            return look.blend(block)

        return Look(blend)

    def full(done: int, total: int, note: str) -> None:
        begun.wait(10)
        failed.set()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as caught:
        merged(base, experts, tmp_path / "m", slow, threads=4, progress=full)
    assert caught.tb is not None, "held, so that nothing is tidied up for want of a reader"
    assert ended.is_set() and not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())
    merged(base, experts, tmp_path / "m")
    merged(base, experts, tmp_path / "undisturbed")
    assert digests(tmp_path / "m") == digests(tmp_path / "undisturbed")


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A four times larger checkpoint (4 and 16 MiB a model, three models): what numpy and Python allocate may grow by 1 MiB, which
    is less than a tenth of the 12 MiB that one larger model would cost. Files are mapped, and not counted."""

    def peak(name: str, rows: int) -> int:
        rng = np.random.default_rng(0)
        start = rng.normal(size=(rows, 1024)).astype(np.float32)
        folders = {part: save(tmp_path / name / part, {"w": start + 0.01 * number}) for number, part in enumerate(("base", "a", "b"))}
        tracemalloc.start()
        merged(folders.pop("base"), folders, tmp_path / name / "m")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small = peak("small", 1024)
    assert peak("large", 4096) - small < 1 << 20
    assert small < 4 << 20


def test_report_as_parquet(tmp_path: Path) -> None:
    """Columns in their order, the method's own behind them; what a method does not say is null."""
    row = {"tensor": "w", "model": "a", "numel": 4, "weight": 1.0, "base_l2": 2.0, "delta_l2": 1.0, "masked_l2": 0.5}
    write_report(tmp_path / "r.parquet", [{**row, "changed_n": 3, "kept_n": 1, "odd": 0.25}, {**row, "changed_n": 0, "kept_n": 0}])
    table = pq.read_table(tmp_path / "r.parquet")
    assert tuple(table.column_names) == (*COLUMNS, "odd")
    assert [str(table.schema.field(name).type) for name in ("tensor", "numel", "kept_n", "trimmed_n", "thr_lo", "odd")] == [
        *("string", "int64", "int64", "int64", "double", "double")
    ]
    assert table["odd"].to_pylist() == [0.25, None] and table["trimmed_n"].null_count == 2
    write_report(tmp_path / "none.parquet", [])
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_figures_by_hand() -> None:
    """Two tensors of 3 and 5 entries: norms 3 and 4 make 5, masked 0 and 2 make 2; 4 of 8 entries are kept, 1 of 8 trimmed."""
    rows = [
        {"model": "a", "numel": 3, "delta_l2": 3.0, "masked_l2": 0.0, "kept_n": 0, "trimmed_n": 1},
        {"model": "a", "numel": 5, "delta_l2": 4.0, "masked_l2": 2.0, "kept_n": 4},
        {"model": "b", "numel": 8, "delta_l2": 0.0, "masked_l2": 0.0, "kept_n": 0},
    ]
    said = figures(Report(rows=rows, norms={"a": 0.1, "b": 0.0}, tensors=3, copied=1, parameters=9))
    assert said["experts"]["a"] == {
        "relative_delta": 0.1,
        "delta_l2": 5.0,
        "masked_l2": 2.0,
        "kept_frac": 0.5,
        "trimmed_frac": 0.125,
        "unchanged": False,
    }
    assert said["experts"]["b"]["unchanged"] and (said["tensors"], said["copied"], said["parameters"]) == (3, 1, 9)


def test_signs_conflict_only_where_two_keep_an_entry(tmp_path: Path) -> None:
    """Changes [1, 1, 0, -1], [-1, 1, 1, 0], [0, 1, 1, 0]: two or more hold entries 0, 1 and 2; on the first they disagree: 1/3."""
    base = save(tmp_path / "base", {"w": np.zeros((1, 4), np.float32)})
    changes = {"a": [1, 1, 0, -1], "b": [-1, 1, 1, 0], "c": [0, 1, 1, 0]}
    experts = {name: save(tmp_path / name, {"w": np.array([values], np.float32)}) for name, values in changes.items()}
    rows = merged(base, experts, tmp_path / "m").rows
    assert [row["sign_conflict_frac"] for row in rows] == [1 / 3] * 3
    assert [(row["changed_n"], row["kept_n"]) for row in rows] == [(3, 3), (3, 3), (2, 2)]
    cosines = [0 / 3, 1 / 6**0.5, 2 / 6**0.5]
    assert rows[0]["mean_pairwise_cos"] == pytest.approx(sum(cosines) / 3)
