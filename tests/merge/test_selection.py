"""Exact ranks against a plain sort: with ties, with brackets that miss, in blocks of any size.

Worked example: magnitudes 5 1 3 3 0 3, n_top 1, n_keep 2. In order (equal ones by flat index): 5, 3 (index 2), 3 (index 3), 3
(index 5), 1, 0. Rank 1 goes, ranks 2 and 3 stay: indices 2 and 3; the equal one at index 5 comes too late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merge.core import selection
from tasks.merge.core.headers import Array
from tasks.merge.core.masks import MiddleMask
from tasks.merge.core.selection import SAMPLE, SMALL, Cut, Middle, cuts, middle_rows, share, step_of
from tests.merge.formulas import f32, tensor

FEW = st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5, 1e30]), min_size=1, max_size=80)
"""Magnitudes with many ties."""
MANY = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=80)


class Blocks:
    """Values in blocks of the given sizes, over and over; counts the passes."""

    def __init__(self, values: Array, sizes: Sequence[int]) -> None:
        self.parts = [values[start : start + size] for start, size in _ranges(len(values), sizes)]
        self.passes = 0

    def __call__(self) -> Iterator[Array]:
        self.passes += 1
        yield from self.parts


def _ranges(n: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = number = 0
    while start < n:
        size = sizes[number % len(sizes)]
        yield start, size
        start, number = start + size, number + 1


def sorted_mask(values: Array, n_top: int, n_keep: int) -> Array:
    """The mask by a plain sort: larger first, equal ones by flat index."""
    order = np.argsort(-values, kind="stable")
    mask = np.zeros(len(values), dtype=bool)
    mask[order[n_top : n_top + n_keep]] = True
    return mask


def mask_of(middle: Middle, blocks: Blocks) -> Array:
    return np.concatenate([middle.keep(part) for part in blocks.parts])


def test_worked_example() -> None:
    values = f32([5, 1, 3, 3, 0, 3])
    middle = Middle(Blocks(values, [6]), lambda: values, 6, n_top=1, n_keep=2)
    assert np.flatnonzero(middle.keep(values)).tolist() == [2, 3]
    assert (middle.top, middle.bottom) == (Cut(1, np.float32(5), 1), Cut(3, np.float32(3), 2))
    assert middle.bounds == {"thr_lo": 3.0, "thr_hi": 5.0}


@given(data=st.data(), values=FEW | MANY)
@settings(max_examples=400, deadline=None)
def test_the_mask_is_the_sorted_one_whatever_the_sample_and_the_blocks(data: st.DataObject, values: list[float]) -> None:
    """Small data are made to go the way of large ones; the sample is any numbers at all. No bracket costs more than two passes."""
    n_top = data.draw(st.integers(0, len(values)), "n_top")
    n_keep = data.draw(st.integers(0, len(values) - n_top), "n_keep")
    sample = f32(data.draw(st.lists(st.sampled_from(values) | st.floats(0, 2.0**101, width=32), min_size=1, max_size=40), "sample"))
    magnitudes = f32(values)
    found = []
    for number in range(2):
        sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=4), f"sizes {number}")
        blocks = Blocks(magnitudes, sizes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "SMALL", data.draw(st.sampled_from([0, 10]), f"small {number}"))
            middle = Middle(blocks, lambda: sample, len(values), n_top, n_keep)
        assert blocks.passes <= 2
        found.append(mask_of(middle, blocks))
    wanted = sorted_mask(magnitudes, n_top, n_keep)
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(found[1], wanted)
    low, high = (middle.bounds[key] for key in ("thr_lo", "thr_hi"))
    kept = magnitudes[wanted]
    assert low is None or (kept >= np.float32(low)).all()
    assert high is None or (kept <= np.float32(high)).all()


@given(data=st.data(), values=FEW | MANY)
@settings(max_examples=200, deadline=None)
def test_cuts_at_any_ranks(data: st.DataObject, values: list[float]) -> None:
    magnitudes, n = f32(values), len(values)
    ranks = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=5), "ranks")
    sample = f32(data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=20), "sample"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "SMALL", 0)
        found = cuts(Blocks(magnitudes, [7]), sample, n, ranks)
    ordered = np.sort(magnitudes)[::-1]
    for rank, cut in zip(ranks, found, strict=True):
        value = ordered[rank - 1]
        assert (cut.rank, cut.value) == (rank, value)
        assert cut.ties == rank - np.count_nonzero(magnitudes > value)


@pytest.mark.parametrize("wrong", [0, 4, -1])
def test_ranks_outside_are_refused(wrong: int) -> None:
    values = f32([1, 2, 3])
    with pytest.raises(ValueError, match=rf"ranks \[1, {wrong}\] are not in 1\.\.3"):
        cuts(Blocks(values, [3]), values, 3, [1, wrong])


def test_a_large_vector_takes_one_pass_and_a_misleading_sample_one_more() -> None:
    """200,001 normal magnitudes, 5,000 of them equal. An even sample brackets every rank; one of the largest entries alone does not."""
    values = np.abs(np.random.default_rng(0).normal(size=200_001)).astype(np.float32)
    values[:5000] = values[6000]
    ordered = np.sort(values)[::-1]
    ranks = [1, 2, 777, 100_000, 200_001]
    even, misleading = values[:: step_of(len(values), 1)], ordered[:SAMPLE]
    for sample, passes in ((even, 1), (misleading, 2)):
        blocks = Blocks(values, [32768])
        assert [cut.value for cut in cuts(blocks, sample, len(values), ranks)] == [ordered[rank - 1] for rank in ranks]
        assert blocks.passes == passes
    blocks = Blocks(values, [32768])
    mask = mask_of(Middle(blocks, lambda: even, len(values), 300, 5000), blocks)
    assert np.count_nonzero(mask) == 5000
    np.testing.assert_array_equal(mask, middle_rows(values[None], 300, 5000)[0])


def test_a_bracket_holds_few_entries() -> None:
    """Of a million, an even sample leaves at most 3 % of them in the bracket of a middle rank (the docstring's 2 %, and luck)."""
    values = np.abs(np.random.default_rng(1).normal(size=1_000_000)).astype(np.float32)
    low, high = selection._bracket(np.sort(values[:: step_of(len(values), 1)]), 500_000, len(values))
    inside = np.count_nonzero((values >= low) & (values <= high))
    assert low < np.sort(values)[500_000] < high and inside < 30_000


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("n", [10, SMALL + 1])
def test_all_equal_magnitudes_keep_the_first_ones(value: float, n: int) -> None:
    values = np.full(n, value, np.float32)
    blocks = Blocks(values, [4, 4000])
    middle = Middle(blocks, lambda: values[:100], n, 2, 3)
    assert np.flatnonzero(mask_of(middle, blocks)).tolist() == [2, 3, 4]


@pytest.mark.parametrize(("n_top", "n_keep", "kept"), [(0, 1, [3]), (1, 3, [0, 1, 2]), (0, 4, [0, 1, 2, 3]), (3, 1, [0])])
def test_first_and_last_rank(n_top: int, n_keep: int, kept: list[int]) -> None:
    values = f32([1, 2, 3, 4])
    middle = Middle(Blocks(values, [4]), lambda: values, 4, n_top, n_keep)
    assert np.flatnonzero(middle.keep(values)).tolist() == kept
    assert (middle.bounds["thr_lo"] is None) == (n_top + n_keep == 4) and (middle.bounds["thr_hi"] is None) == (n_top == 0)


@pytest.mark.parametrize("n_top", [0, 1, 3, 6])
def test_nothing_kept_is_nothing_kept(n_top: int) -> None:
    """Both ends are the same cut then, and must not count its ties for each other."""
    values = f32([2, 2, 2, 2, 2, 1])
    blocks = Blocks(values, [4])
    assert not mask_of(Middle(blocks, lambda: values, 6, n_top, 0), blocks).any()


@given(data=st.data(), rows=st.integers(1, 5), width=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_rows_are_each_a_sorted_mask(data: st.DataObject, rows: int, width: int) -> None:
    values = f32(data.draw(st.lists(st.integers(0, 4), min_size=rows * width, max_size=rows * width))).reshape(rows, width)
    n_top = data.draw(st.integers(0, width))
    n_keep = data.draw(st.integers(0, width - n_top))
    wanted = np.stack([sorted_mask(row, n_top, n_keep) for row in values])
    np.testing.assert_array_equal(middle_rows(values, n_top, n_keep), wanted)


def test_the_mask_of_a_large_tensor_reads_it_once_for_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor's own sample and blocks: 300 rows of 1000 entries whose sizes grow along the row, the worst for a careless step."""
    change = np.random.default_rng(2).normal(size=(300, 1000)).astype(np.float32) * np.linspace(0.001, 1, 1000, dtype=np.float32)
    subject = tensor(np.zeros_like(change), [change])
    passes = []
    original = type(subject).magnitudes
    monkeypatch.setattr(type(subject), "magnitudes", lambda self, expert: passes.append(expert) or original(self, expert))
    mask = MiddleMask(subject, 0, trimmed=100, kept=30_000)
    wanted = sorted_mask(np.abs(change).reshape(-1), 100, 30_000)
    for block in subject.blocks():
        mask.apply(block.indices, block.changes[0])
        np.testing.assert_array_equal(block.changes[0] != 0, wanted[block.indices])
    assert passes == [0] and mask.figures["trimmed_n"] == 100


@given(n=st.integers(SMALL + 1, 1 << 34), row=st.integers(1, 1 << 20))
@settings(max_examples=200, deadline=None)
def test_a_sample_is_large_enough_and_prefers_no_column(n: int, row: int) -> None:
    """A step that shares no factor with the row length visits every column. A number up to 2^20 has at most 7 prime factors, so of
    26 numbers in a row one shares none with it (Jacobsthal's function): with the smallest n, 2 SAMPLE, the step is 27 at most."""
    step = step_of(n, row)
    assert math.gcd(step, row) == 1 and n // SAMPLE <= step < n // SAMPLE + 26
    assert n // step >= 2 * SAMPLE // 27


def test_shares_are_exact_decimals() -> None:
    assert [math.floor(share(0.29, 100)), round(share(0.07, 100)), share(0.1, 3) * 10] == [29, 7, 3]
