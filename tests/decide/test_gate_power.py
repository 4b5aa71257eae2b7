"""How often the gate errs, by 5,000 simulated comparisons a case, with the sizes that it asks for itself."""

from __future__ import annotations

import numpy as np
import pytest

from infra.bench_gate import COMPARISONS, FAMILIES, MARGIN, collapse_caught, drifts, promoted
from tasks.decide.core.reach import problems_for, seen, smallest_fall

LEVEL = 0.05 / FAMILIES


def test_sizes_by_hand() -> None:
    """A collapse of nine problems has p = 2^-9 < 0.05 / 14 < 2^-8, so eight are too few whatever happens."""
    assert smallest_fall(8, LEVEL, 0.9) is None and smallest_fall(9, LEVEL, 0.9) == pytest.approx(0.98)
    assert problems_for(1.0, LEVEL, 0.9) == 9 and seen(9, 1.0, LEVEL) == pytest.approx(1.0)
    assert [problems_for(0.3, 0.05 / count, 0.9) for count in (7, 14)] == [45, 52]


@pytest.mark.parametrize(("better", "least", "most"), [(0.0, 0.0, 0.06), (-0.02, 0.0, 0.03), (-0.05, 0.0, 0.01), (0.1, 0.9, 1.0)])
def test_superiority(better: float, least: float, most: float) -> None:
    """An equal model is promoted in at most 6 of 100 cases, a worse one less often, and a gain of 0.1 is seen."""
    assert least <= promoted(better, np.random.default_rng(1)) <= most


@pytest.mark.parametrize("fall", [0.3, 1.0])
def test_a_family_that_falls_is_caught(fall: float) -> None:
    assert COMPARISONS == 5000 and collapse_caught(fall, problems_for(0.3, LEVEL, 0.9), np.random.default_rng(2)) >= 0.9


def test_an_anchor_ends_the_drift() -> None:
    """30 nights of candidates each 0.01 to 0.02 worse than the champion, a hundred times: without an anchor quality goes, with one it
    stays within little more than the margin."""
    without, held = (drifts(np.random.default_rng(3), margin) for margin in (None, MARGIN))
    assert without.mean() > 0.2 and without.min() > 2 * MARGIN
    assert held.mean() < MARGIN and held.max() < MARGIN + 0.03
