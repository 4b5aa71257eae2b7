"""By hand: a token of probability 1/4 costs 1/4 log 4, one of probability 1/2 costs 1/2 log 2. A model that is sure of all tokens
(probability 1) gets the weights of plain fine-tuning, which are ones.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.sft.core.hooks import Hooks
from tasks.sft.dynamic_sft import Dft
from tests.sft.test_hooks import ROWS, step_of, toy


def tokens(*probabilities: float) -> Any:
    return SimpleNamespace(nll=-torch.tensor(probabilities).log())


def test_by_hand() -> None:
    """Row a, of weight 1, has the two tokens, row b, of weight 3, one of probability 1/2."""
    loss, _ = step_of(Dft(), [ROWS], toy(math.log(4), math.log(2), math.log(2)))
    assert loss == pytest.approx((math.log(4) / 4 + math.log(2) / 2 + 3 * math.log(2) / 2) / 5)


def test_a_sure_model_is_trained_plainly() -> None:
    assert Dft().token_weight(tokens(1.0, 1.0)).tolist() == [1.0, 1.0]
    mine, plain = (step_of(hooks, model=toy(1e-4, 1e-4, 1e-4))[1] for hooks in (Dft(), Hooks()))
    assert mine == pytest.approx(plain, rel=1e-3)


def test_shuffled_weights_are_the_same_ones_dealt_otherwise() -> None:
    torch.manual_seed(0)
    given = tokens(*(n / 101 for n in range(1, 101)))
    own, dealt = Dft().token_weight(given), Dft(shuffled=True).token_weight(given)
    assert torch.equal(own, dealt.sort().values) and not torch.equal(own, dealt)
    assert abs(torch.corrcoef(torch.stack([own, dealt]))[0, 1].item()) < 0.3
