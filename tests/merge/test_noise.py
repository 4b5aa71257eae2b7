"""Random masks: SplitMix64's own numbers, uniform, independent, and a function of seed, expert, tensor and index alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merge.core import tensors
from tasks.merge.core.noise import RandomMask, stream, uniforms
from tests.merge.formulas import f32, tensor

START = stream(0, "expert", "w")
N = 1 << 20


def test_it_is_splitmix64() -> None:
    """The first outputs of SplitMix64 for the seed 1234567, as its public test vectors have them; their 24 high bits are used."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    drawn = uniforms(np.uint64(1234567), slice(0, 5))
    assert drawn.dtype == np.float32 and drawn.tolist() == [(out >> 40) * 2.0**-24 for out in known]


@given(cuts=st.lists(st.integers(0, 5000), max_size=8), offset=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_blocks_do_not_matter(cuts: list[int], offset: int) -> None:
    edges = [offset, *(offset + cut for cut in sorted(cuts)), offset + 5000]
    pieces = [uniforms(START, slice(low, high)) for low, high in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(pieces), uniforms(START, slice(offset, offset + 5000)))


@pytest.mark.parametrize("names", [(0, "expert", "w"), (1, "expert", "w"), (0, "expert", "model.layers.0.mlp.weight"), (2**62, "", "")])
def test_uniform(names: tuple[int, str, str]) -> None:
    """2**20 draws in 256 bins: chi-square has 255 degrees of freedom, mean 255, standard deviation 22.6; 4 of those are allowed.
    Mean and variance of the draws: 1/2 and 1/12, with standard errors 2.8e-4 and 7.3e-5."""
    drawn = uniforms(stream(*names), slice(0, N))
    assert drawn.min() >= 0 and drawn.max() < 1
    bins = np.bincount((drawn * 256).astype(np.int64), minlength=256)
    chi_square = float(((bins - N / 256) ** 2 / (N / 256)).sum())
    assert abs(chi_square - 255) < 4 * 22.6
    assert abs(drawn.mean(dtype=np.float64) - 0.5) < 4 * 2.8e-4
    assert abs(drawn.var(dtype=np.float64) - 1 / 12) < 4 * 7.3e-5


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 257, 4096])
def test_neighbours_are_not_correlated(lag: int) -> None:
    """A correlation of n independent pairs has the standard error 1 / sqrt(n)."""
    drawn = uniforms(START, slice(0, N)).astype(np.float64)
    assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 4 / N**0.5


@pytest.mark.parametrize("other", [(1, "expert", "w"), (0, "expert_1", "w"), (0, "expert", "v")])
def test_seed_expert_and_tensor_make_streams_of_their_own(other: tuple[int, str, str]) -> None:
    one, two = (uniforms(start, slice(0, N)).astype(np.float64) for start in (START, stream(*other)))
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / N**0.5


def test_a_mask_is_a_function_of_seed_expert_tensor_and_index() -> None:
    """Blocks backwards, of other sizes and twice, give what one piece gives; so does another expert before it."""
    ones = np.ones(1000, np.float32)
    mask = RandomMask(tensor(ones, [ones, ones]), 1, 7, 0.3, "none")
    whole = ones.copy()
    mask.apply(slice(0, 1000), whole)
    parts = ones.copy()
    for low, high in ((600, 1000), (1, 600), (0, 1)):
        mask.apply(slice(low, high), parts[low:high])
    again = ones.copy()
    mask.apply(slice(0, 1000), again)
    assert whole.tobytes() == parts.tobytes() == again.tobytes()
    other = ones.copy()
    RandomMask(tensor(ones, [ones, ones]), 0, 7, 0.3, "none").apply(slice(0, 1000), other)
    assert other.tobytes() != whole.tobytes()


@pytest.mark.parametrize("keep", [0.001, 0.1, 0.5, 0.999])
def test_the_share_that_stays(keep: float) -> None:
    """A count of n draws has the standard deviation sqrt(n keep (1 - keep))."""
    ones = np.ones(N, np.float32)
    RandomMask(tensor(ones, [ones]), 0, 0, keep, "none").apply(slice(0, N), ones)
    assert abs(np.count_nonzero(ones) - N * keep) < 4 * (N * keep * (1 - keep)) ** 0.5


def test_probability_one_keeps_all() -> None:
    ones = np.ones(N, np.float32)
    RandomMask(tensor(ones, [ones]), 0, 0, 1.0, "inverse").apply(slice(0, N), ones)
    assert ones.all()


def test_the_norm_is_that_of_the_whole_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`l1` over 7 blocks: the masked tensor has the L1 norm of the whole, though no block has its own."""
    monkeypatch.setattr(tensors, "BLOCK", 150)
    change = f32(np.random.default_rng(0).normal(size=(100, 10)))
    mask = RandomMask(tensor(np.zeros_like(change), [change]), 0, 3, 0.4, "l1")
    masked = change.reshape(-1).copy()
    mask.apply(slice(0, 1000), masked)
    assert np.abs(masked).sum() == pytest.approx(np.abs(change).sum(), rel=1e-6)
    assert np.abs(masked[:150]).sum() != pytest.approx(np.abs(change.reshape(-1)[:150]).sum(), rel=1e-3)
    assert mask.figures["rescale"] == pytest.approx(1 / 0.4, rel=0.2)


def test_nothing_left_to_scale() -> None:
    zeros = np.zeros(50, np.float32)
    assert RandomMask(tensor(zeros, [zeros]), 0, 0, 0.5, "l1").figures == {"rescale": 1.0}
