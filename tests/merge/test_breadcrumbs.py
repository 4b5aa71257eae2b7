"""Model Breadcrumbs by hand, at its limits, on files, and on input that must be refused.

Worked example (keep 0.5, trim_top 0.1, one tensor of ten entries):
    delta   .01 -.02  .03 -.04  .05 -.06  .07 -.08  .09  -1
    ranks    10   9    8    7    6    5    4    3    2    1
    floor(0.1 x 10) = 1 is trimmed (-1); round(0.5 x 10) = 5 are kept (ranks 2 to 6); four small ones are zeroed.
    With alpha 0.3 on a zero base: 0 0 0 0 .015 -.018 .021 -.024 .027 0.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tasks.context import Context
from tasks.merge import Inputs
from tasks.merge.breadcrumbs import Params, check, combiner, counts, equivalents, mask, run
from tasks.merge.core.engine import COLUMNS, merge
from tasks.merge.core.plan import make_plan
from tasks.params import BadInput
from tests.merge.folders import family, save, weights

DELTA = [0.01, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07, -0.08, 0.09, -1.0]


def f32(values: Any) -> Any:
    """A float32 array."""
    return np.array(values, dtype=np.float32)


def context(folder: Path, threads: int = 1) -> Context:
    """A context with an empty out folder."""
    folder.mkdir(parents=True)
    return Context(seed=0, out=folder, scratch=folder, threads=threads)


def digests(folder: Path) -> dict[str, str]:
    """File name -> sha256 of everything under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_worked_example() -> None:
    deltas = [f32(DELTA)]
    combined = combiner(Params(keep=0.5, trim_top=0.1, alpha=0.3), [1.0])("w", np.zeros(10, np.float32), deltas)
    np.testing.assert_allclose(combined.delta, [0, 0, 0, 0, 0.015, -0.018, 0.021, -0.024, 0.027, 0], rtol=1e-6)
    np.testing.assert_array_equal(deltas[0], f32([0, 0, 0, 0, 0.05, -0.06, 0.07, -0.08, 0.09, 0]))
    (stats,) = combined.stats
    assert (stats["kept_n"], stats["trimmed_n"]) == (5, 1)
    assert (stats["thr_lo"], stats["thr_hi"]) == (pytest.approx(0.05), pytest.approx(0.09))


def test_keep_everything_is_task_arithmetic_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 30)).astype(np.float32)
    deltas = [rng.normal(size=(40, 30)).astype(np.float32) for _ in range(3)]
    arithmetic = np.float32(0.7) * (np.float32(1.0) * deltas[0] + np.float32(0.5) * deltas[1] + np.float32(2.0) * deltas[2])
    params = Params(keep=1.0, trim_top=0.0, alpha=0.7)
    combined = combiner(params, [1.0, 0.5, 2.0])("w", base, [delta.copy() for delta in deltas])
    assert combined.delta.tobytes() == arithmetic.tobytes()


def test_without_trimming_the_top_it_is_the_trim_step_of_ties() -> None:
    delta = np.random.default_rng(1).normal(size=(20, 50)).astype(np.float32)
    trimmed = np.where(np.abs(delta) >= np.sort(np.abs(delta).ravel())[-200], delta, np.float32(0))
    mask(delta, Params(keep=0.2, trim_top=0.0))
    np.testing.assert_array_equal(delta, trimmed)


def test_small_tensor_keeps_its_share_though_nothing_is_trimmed() -> None:
    """64 entries, trim_top 0.01: floor(0.64) = 0 trimmed, round(0.15 x 64) = 10 kept. A [a:-0] slice would keep none."""
    said = mask(np.random.default_rng(2).normal(size=64).astype(np.float32), Params(keep=0.15, trim_top=0.01))
    assert (said["kept_n"], said["trimmed_n"]) == (10, 0)


def test_rows_are_ranked_on_their_own() -> None:
    """keep 0.5 and trim_top 0.25 of rows of 4: rank 1 of a row goes, ranks 2 and 3 stay. Per tensor row two loses all."""
    rows = f32([[1, 2, 3, 4], [0.1, 0.4, 0.3, 0.2]])
    whole = rows.copy()
    mask(rows, Params(keep=0.5, trim_top=0.25, granularity="row"))
    np.testing.assert_array_equal(rows, f32([[0, 2, 3, 0], [0, 0, 0.3, 0.2]]))
    mask(whole, Params(keep=0.25, trim_top=0.25, granularity="tensor"))
    np.testing.assert_array_equal(whole, f32([[1, 2, 0, 0], [0, 0, 0, 0]]))


def test_one_row_is_one_tensor() -> None:
    a = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    b = a.copy()
    assert mask(a, Params(granularity="row")) == mask(b, Params(granularity="tensor"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_no_change_stays_no_change(granularity: str) -> None:
    delta = np.zeros((6, 10), dtype=np.float32)
    said = mask(delta, Params(keep=0.5, granularity=granularity))  # type: ignore[arg-type]
    assert not delta.any() and said["kept_n"] == 30 and said["thr_hi"] == 0.0


def test_scalar_is_kept_whole() -> None:
    delta = f32(0.5)
    assert mask(delta, Params())["kept_n"] == 1 and delta == np.float32(0.5)


def test_counts_are_exact_decimals() -> None:
    assert counts(100, Params(keep=0.29, trim_top=0.07)) == (
        7,
        29,
    )  # as floats 0.29 x 100 = 28.999..., 0.07 x 100 = 7.000...1
    assert counts(10, Params(keep=0.95, trim_top=0.05)) == (0, 10)


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    keep=st.integers(1, 99),
    trim=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_exactly_so_many_survive_and_they_are_the_middle(values: list[int], keep: int, trim: int) -> None:
    params = Params(keep=keep / 100, trim_top=trim / 100)
    delta = f32(values)
    trimmed, kept = counts(len(values), params)
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    wanted = set(order[trimmed : trimmed + kept])
    said = mask(delta, params)
    assert said["kept_n"] == kept == len(wanted)
    np.testing.assert_array_equal(delta, f32([value if i in wanted else 0 for i, value in enumerate(values)]))


def test_names_of_the_other_conventions() -> None:
    same = equivalents(Params(keep=0.09, trim_top=0.01))
    assert same["paper"] == {"beta": 0.9, "gamma": 0.99}
    assert same["mergekit"] == {"density": 0.09, "gamma": 0.01}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (Params(keep=1.0, trim_top=0.0), "removes nothing"),
        (Params(keep=0.95, trim_top=0.1), "add up to more than 1"),
        (Params(weights={"a": float("inf")}), "weights.a = inf"),
    ],
)
def test_combinations_without_sense_are_refused(params: Params, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(params)


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
    rows = list(csv.DictReader((ctx.out / "report.csv").open()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 8
    assert {row["model"] for row in rows} == {"expert_0", "expert_1"}
    assert figures["tensors"] == 4 and figures["weights"] == {"expert_0": 1.0, "expert_1": 0.5}
    assert 0.05 < figures["experts"]["expert_0"]["relative_delta"] < 0.15
    assert figures["experts"]["expert_0"]["kept_frac"] == pytest.approx(0.2, abs=1e-3)

    start, one, two = (load_file(folder / "model.safetensors") for folder in (base, *experts.values()))
    merged = load_file(ctx.out / "model" / "model.safetensors")
    for name, theta in start.items():
        deltas = [one[name] - theta, two[name] - theta]
        for delta in deltas:
            mask(delta, Params(keep=0.2))
        total = np.float32(0.5) * (deltas[0] + np.float32(0.5) * deltas[1])
        np.testing.assert_array_equal(merged[name], theta + total)
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
    assert not list(ctx.out.iterdir())


@pytest.mark.parametrize("broken", ["base", "expert_1"])
def test_nan_is_refused_by_model_and_tensor(tmp_path: Path, broken: str) -> None:
    base, experts = family(tmp_path)
    folder = {"base": base, **experts}[broken]
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = np.nan
    save(folder, tensors)
    ctx = context(tmp_path / "out")
    with pytest.raises(BadInput, match=rf"{broken}: tensor 'model\.norm\.weight' has 1 values that are NaN"):
        run(Inputs(base, experts), Params(), ctx)
    assert not list(ctx.out.iterdir())


def test_merging_the_base_with_itself_gives_the_base(tmp_path: Path) -> None:
    base, _ = family(tmp_path)
    plan = make_plan(base, {"same": base})
    report = merge(plan, combiner(Params(), [1.0]), tmp_path / "m", metadata={}, max_relative_delta=0.5)
    start, merged = load_file(base / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert all(merged[name].tobytes() == value.tobytes() for name, value in start.items())
    assert report.norms == {"same": 0.0}


def test_a_merged_checkpoint_loads_and_is_the_same_model(tmp_path: Path) -> None:
    """Two real checkpoints with a tied head: the merged one loads with transformers, in the same format as its parents."""
    import torch

    from tasks import models
    from tests.rollout import tiny

    model = tiny.model(seed=0)
    models.save(model, tiny.tokenizer(), tmp_path / "base")
    experts = {}
    for number in range(2):
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        models.save(model, tiny.tokenizer(), tmp_path / f"rl_{number}")
        experts[f"rl_{number}"] = tmp_path / f"rl_{number}"
    ctx = context(tmp_path / "out")
    run(Inputs(tmp_path / "base", experts), Params(alpha=1.0), ctx)
    merged, tokenizer = models.load(ctx.out / "model")
    assert tokenizer.chat_template == tiny.tokenizer().chat_template
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    stored = load_file(ctx.out / "model" / "model.safetensors")
    for name, weight in merged.named_parameters():
        np.testing.assert_array_equal(weight.detach().numpy(), stored[name])
    assert {path.name for path in (ctx.out / "model").iterdir()} == {path.name for path in (tmp_path / "base").iterdir()}
