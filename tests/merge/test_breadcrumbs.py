"""Model Breadcrumbs by hand, at its limits, on files, and on input that must be refused.

Worked example (keep 0.5, trim_top 0.1, one tensor of ten entries):
    delta   .01 -.02  .03 -.04  .05 -.06  .07 -.08  .09  -1
    ranks    10   9    8    7    6    5    4    3    2    1
    floor(0.1 x 10) = 1 is trimmed (-1); round(0.5 x 10) = 5 are kept (ranks 2 to 6); four small ones are zeroed.
    With alpha 0.3 on a zero base: 0 0 0 0 .015 -.018 .021 -.024 .027 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.breadcrumbs import Params, check, equivalents, formula, run
from tasks.merge.core.headers import Array
from tasks.merge.core.masks import middle_counts
from tasks.merge.core.tally import COLUMNS
from tests.merge.arithmetic import digests, merged
from tests.merge.folders import family, save, weights
from tests.merge.formulas import blend, f32, stats

DELTA = [0.01, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07, -0.08, 0.09, -1.0]


def masked(change: Any, params: Params, **about: Any) -> Array:
    """One expert's change as the mask leaves it."""
    return blend(formula(params), np.zeros_like(f32(change)), [change], **about)[1][0]


def said(change: Any, params: Params) -> dict[str, Any]:
    """What the method reports of one expert's change, and how many entries it kept."""
    (own,) = stats(formula(params), np.zeros_like(f32(change)), [change])
    return {**own, "kept_n": int(np.count_nonzero(masked(change, params)))}


def context(folder: Path, threads: int = 1) -> Context:
    """A context with an empty out folder, and a scratch folder beside it."""
    for part in (folder, scratch(folder)):
        part.mkdir(parents=True)
    return Context(seed=0, out=folder, scratch=scratch(folder), threads=threads)


def scratch(out: Path) -> Path:
    """Where `context` lets a method work."""
    return out.with_name(f"{out.name}.scratch")


def test_worked_example() -> None:
    params = Params(keep=0.5, trim_top=0.1, alpha=0.3)
    added, (left,) = blend(formula(params), np.zeros(10), [DELTA])
    np.testing.assert_allclose(added, [0, 0, 0, 0, 0.015, -0.018, 0.021, -0.024, 0.027, 0], rtol=1e-6)
    np.testing.assert_array_equal(left, f32([0, 0, 0, 0, 0.05, -0.06, 0.07, -0.08, 0.09, 0]))
    found = said(DELTA, params)
    assert (found["kept_n"], found["trimmed_n"]) == (5, 1)
    assert (found["thr_lo"], found["thr_hi"]) == (pytest.approx(0.05), pytest.approx(1.0)), "ties with the trimmed one may stay"


def test_keep_everything_is_task_arithmetic_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 30)).astype(np.float32)
    deltas = [rng.normal(size=(40, 30)).astype(np.float32) for _ in range(3)]
    arithmetic = np.float32(0.7) * (np.float32(1.0) * deltas[0] + np.float32(0.5) * deltas[1] + np.float32(2.0) * deltas[2])
    added, left = blend(formula(Params(keep=1.0, trim_top=0.0, alpha=0.7)), base, deltas, weights=[1.0, 0.5, 2.0])
    assert added.tobytes() == arithmetic.tobytes()
    assert all(one.tobytes() == delta.tobytes() for one, delta in zip(left, deltas, strict=True))


def test_without_trimming_the_top_it_is_the_trim_step_of_ties() -> None:
    delta = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    trimmed = np.where(np.abs(delta) >= np.sort(np.abs(delta).ravel())[-200], delta, np.float32(0))
    np.testing.assert_array_equal(masked(delta, Params(keep=0.2, trim_top=0.0)), trimmed)


def test_small_tensor_keeps_its_share_though_nothing_is_trimmed() -> None:
    """64 entries, trim_top 0.01: floor(0.64) = 0 trimmed, round(0.15 x 64) = 10 kept. A [a:-0] slice would keep none."""
    found = said(np.random.default_rng(2).normal(size=64), Params(keep=0.15, trim_top=0.01))
    assert (found["kept_n"], found["trimmed_n"], found["thr_hi"]) == (10, 0, None)


def test_rows_are_ranked_on_their_own() -> None:
    """keep 0.5 and trim_top 0.25 of rows of 4: rank 1 of a row goes, ranks 2 and 3 stay. Per tensor row two loses all."""
    rows = f32([[1, 2, 3, 4], [0.1, 0.4, 0.3, 0.2]])
    by_row = masked(rows, Params(keep=0.5, trim_top=0.25, granularity="row"))
    np.testing.assert_array_equal(by_row, f32([[0, 2, 3, 0], [0, 0, 0.3, 0.2]]))
    assert said(rows, Params(keep=0.5, trim_top=0.25, granularity="row"))["trimmed_n"] == 2, "one in each row"
    whole = masked(rows, Params(keep=0.25, trim_top=0.25, granularity="tensor"))
    np.testing.assert_array_equal(whole, f32([[1, 2, 0, 0], [0, 0, 0, 0]]))


def test_one_row_is_one_tensor() -> None:
    change = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    assert said(change, Params(granularity="row")) == said(change, Params(granularity="tensor"))
    np.testing.assert_array_equal(masked(change, Params(granularity="row")), masked(change, Params(granularity="tensor")))


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_no_change_stays_no_change(granularity: str) -> None:
    delta = np.zeros((6, 10), dtype=np.float32)
    params = Params(keep=0.5, trim_top=0.1, granularity=granularity)  # type: ignore[arg-type]
    added, (left,) = blend(formula(params), delta, [delta])
    assert not added.any() and not left.any() and said(delta, params)["trimmed_n"] == 6


def test_scalar_is_kept_whole() -> None:
    for granularity in ("tensor", "row"):
        params = Params(keep=0.1, trim_top=0.9, granularity=granularity)  # type: ignore[arg-type]
        assert masked(0.5, params) == np.float32(0.5)
        assert said(0.5, params)["trimmed_n"] == 0


def test_counts_are_exact_decimals() -> None:
    assert middle_counts(100, 0.29, 0.07) == (
        7,
        29,
    )  # as floats 0.29 x 100 = 28.999..., 0.07 x 100 = 7.000...1
    assert middle_counts(10, 0.95, 0.05) == (0, 10)


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    keep=st.integers(1, 99),
    trim=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_exactly_so_many_survive_and_they_are_the_middle(values: list[int], keep: int, trim: int) -> None:
    params = Params(keep=keep / 100, trim_top=trim / 100)
    delta = f32(values)
    trimmed, kept = middle_counts(len(values), params.keep, params.trim_top)
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    wanted = set(order[trimmed : trimmed + kept])
    assert kept == len(wanted)
    np.testing.assert_array_equal(masked(delta, params), f32([value if i in wanted else 0 for i, value in enumerate(values)]))


def test_names_of_the_other_conventions() -> None:
    same = equivalents(Params(keep=0.09, trim_top=0.01))
    assert same["paper"] == {"beta": 0.9, "gamma": 0.99}
    assert same["mergekit"] == {"density": 0.09, "gamma": 0.01}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (Params(keep=1.0, trim_top=0.0), "removes nothing"),
        (Params(keep=0.95, trim_top=0.1), "add up to more than 1"),
        (Params(weights={"a": float("inf")}), "weights.a = inf"),
        (
            Params(overrides=[{"match": "norm", "params": {"keep": 0.95, "trim_top": 0.1}}]),
            r"^overrides\[0\]: keep = 0.95 and trim_top = 0.1 add up to more than 1",
        ),
        (Params(keep=1.0, trim_top=0.0, overrides=[{"match": "norm", "params": {"alpha": 1.0}}]), "removes nothing"),
    ],
)
def test_combinations_without_sense_are_refused(params: Params, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(params)


def test_keeping_all_of_some_tensors_and_masking_others_is_no_mistake() -> None:
    check(Params(keep=1.0, trim_top=0.0, overrides=[{"match": "mlp", "params": {"keep": 0.1}}]))
    check(Params(overrides=[{"match": "norm", "params": {"keep": 1.0, "trim_top": 0.0}}]))


def test_a_run_leaves_a_model_and_a_report(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    ctx = context(tmp_path / "out")
    figures = run(Inputs(base, experts), Params(keep=0.2, alpha=0.5, weights={"expert_1": 0.5}), ctx)
    assert sorted(path.name for path in (ctx.out / "model").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    table = pq.read_table(ctx.out / "report.parquet")
    rows = table.to_pylist()
    assert tuple(table.column_names) == COLUMNS and len(rows) == 8
    assert {(row["model"], row["weight"]) for row in rows} == {("expert_0", 1.0), ("expert_1", 0.5)}
    matrix = next(row for row in rows if row["tensor"] == "model.layers.0.mlp.weight")
    assert (matrix["numel"], matrix["kept_n"], matrix["trimmed_n"]) == (77100, 15420, 462)
    assert 0 < matrix["thr_lo"] < matrix["thr_hi"] and 0 < matrix["masked_l2"] < matrix["delta_l2"]
    assert figures["tensors"] == 4 and figures["same_as"] == equivalents(Params(keep=0.2))
    assert not list(ctx.scratch.iterdir()), "nothing is left of the work"
    assert 0.05 < figures["experts"]["expert_0"]["relative_delta"] < 0.15
    assert figures["experts"]["expert_0"]["kept_frac"] == pytest.approx(0.2, abs=1e-3)

    start, one, two = (load_file(folder / "model.safetensors") for folder in (base, *experts.values()))
    found = load_file(ctx.out / "model" / "model.safetensors")
    for name, theta in start.items():
        first, second = (masked(expert[name] - theta, Params(keep=0.2), shape=theta.shape) for expert in (one, two))
        total = np.float32(0.5) * (first + np.float32(0.5) * second)
        np.testing.assert_array_equal(found[name], theta + total)
    json.dumps(figures)


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    base, experts = family(tmp_path, experts=3)
    outs = []
    for number, (threads, names) in enumerate([(1, sorted(experts)), (2, sorted(experts)), (4, sorted(experts, reverse=True))]):
        ctx = context(tmp_path / f"out{number}", threads)
        run(Inputs(base, {name: experts[name] for name in names}), Params(), ctx)
        outs.append(digests(ctx.out))
    assert outs[0] == outs[1] == outs[2]


def test_unknown_weight_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    with pytest.raises(BadInput, match=r"no expert 'expert1'\. Did you mean 'expert_1'"):
        run(Inputs(base, experts), Params(weights={"expert1": 2.0}), context(tmp_path / "out"))
    with pytest.raises(BadInput, match="every weight is 0"):
        run(Inputs(base, experts), Params(weights={"expert_0": 0, "expert_1": 0}), context(tmp_path / "out2"))


def test_a_base_that_is_not_the_base_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base = save(tmp_path / "base", weights(0))
    stranger = save(tmp_path / "stranger", weights(9))
    ctx = context(tmp_path / "out")
    with pytest.raises(BadInput, match=r"stranger: its weights differ from the base's by 1\.4"):
        run(Inputs(base, {"stranger": stranger}), Params(), ctx)
    assert not list(ctx.out.iterdir()) and not list(ctx.scratch.iterdir())


@pytest.mark.parametrize("broken", ["base", "expert_1"])
def test_nan_is_refused_by_model_and_tensor(tmp_path: Path, broken: str) -> None:
    base, experts = family(tmp_path)
    folder = {"base": base, **experts}[broken]
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save(folder, tensors)
    ctx = context(tmp_path / "out")
    with pytest.raises(BadInput, match=rf"{broken}: tensor 'model\.norm\.weight' holds NaN or infinity"):
        run(Inputs(base, experts), Params(), ctx)
    assert not list(ctx.out.iterdir()) and not list(ctx.scratch.iterdir())


def test_merging_the_base_with_itself_gives_the_base(tmp_path: Path) -> None:
    base, _ = family(tmp_path)
    report = merged(base, {"same": base}, tmp_path / "m", formula(Params()))
    start, found = load_file(base / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert all(found[name].tobytes() == value.tobytes() for name, value in start.items())
    assert report.norms == {"same": 0.0}


def test_a_merged_checkpoint_loads_and_is_the_same_model(tmp_path: Path) -> None:
    """Two real checkpoints with a tied head: the merged one loads with transformers, in the same format as its parents."""
    import torch

    from tasks.checkpoints import folders, saving
    from tests.rollout import tiny

    model = tiny.model(seed=0)
    saving.save(model, tiny.tokenizer(), tmp_path / "base")
    experts = {}
    for number in range(2):
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        saving.save(model, tiny.tokenizer(), tmp_path / f"rl_{number}")
        experts[f"rl_{number}"] = tmp_path / f"rl_{number}"
    ctx = context(tmp_path / "out")
    run(Inputs(tmp_path / "base", experts), Params(alpha=1.0), ctx)
    found, tokenizer = folders.load(ctx.out / "model")
    assert tokenizer.chat_template == tiny.tokenizer().chat_template
    assert found.get_input_embeddings().weight is found.get_output_embeddings().weight
    stored = load_file(ctx.out / "model" / "model.safetensors")
    for name, weight in found.named_parameters():
        np.testing.assert_array_equal(weight.detach().numpy(), stored[name])
    assert {path.name for path in (ctx.out / "model").iterdir()} == {path.name for path in (tmp_path / "base").iterdir()}
