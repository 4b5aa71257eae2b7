"""By hand, a vocabulary of two, the data's token x first, logits (log 3, 0): p = (3/4, 1/4), beta = -0.1.

The cost is -(3/4 log(3/4) - 0.1 * 1/4 log(1/4)). Its gradient by the first logit is -(q_x R_x - p_x sum_a q_a R_a) =
-(3/4 - 3/4 (3/4 - 1/40)) = -33/160; that of dynamic fine-tuning is -p_x (1 - p_x) = -3/16 = -30/160: 1.1 times as much. At
kappa 2 draws come from (sqrt 3, 1) / (sqrt 3 + 1).
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tasks.sft import Inputs
from tasks.sft.dynamic_sft import Dft
from tasks.sft.otr import Otr, Params
from tests.base.test_tiny_qwen3 import same
from tests.sft.test_hooks import step_of, toy
from tests.sft.test_sft import inputs as inputs
from tests.sft.test_sft import tune

SMOKE = {"k": 8}


def tokens(logits: list[list[float]], targets: list[int], dtype: torch.dtype = torch.float32) -> Any:
    values = torch.tensor(logits, dtype=dtype, requires_grad=True)
    wanted = torch.tensor(targets)
    return SimpleNamespace(
        logits=values, targets=wanted, nll=torch.nn.functional.cross_entropy(values.float(), wanted, reduction="none")
    )


def gradient(given: Any, loss: Any) -> Any:
    return torch.autograd.grad(loss.sum(), given.logits)[0]


def test_by_hand() -> None:
    given = tokens([[math.log(3), 0.0]], [0])
    loss = Otr("exact", 1.0, -0.1).token_loss(given)
    assert loss.item() == pytest.approx(-(3 / 4 * math.log(3 / 4) - 0.1 / 4 * math.log(1 / 4)))
    assert gradient(given, loss)[0].tolist() == pytest.approx([-33 / 160, 33 / 160])
    warmer = math.sqrt(3) / (math.sqrt(3) + 1)
    wanted = -(warmer - 3 / 4 * (warmer - 0.1 * (1 - warmer)))
    assert gradient(given, Otr("exact", 2.0, -0.1).token_loss(given))[0, 0].item() == pytest.approx(wanted)


@pytest.mark.parametrize("beta", [0.0, -0.1, -0.3])
def test_exact_at_kappa_1_is_dynamic_fine_tuning_times_one_minus_beta(beta: float) -> None:
    torch.manual_seed(0)
    given = tokens((3 * torch.randn(50, 17)).tolist(), torch.randint(0, 17, (50,)).tolist())
    dft = gradient(given, Dft().token_weight(given).detach() * given.nll)
    otr = gradient(given, Otr("exact", 1.0, beta).token_loss(given))
    assert dft.abs().max() > 0.1 and torch.allclose(otr, (1 - beta) * dft, atol=1e-6)


def test_so_it_is_through_a_step_of_the_room() -> None:
    """By hand: at p = 1/2 DFT's gradient of a token is -p (1 - p) = -0.25, OTR's -0.275. Per token of row weight 1: a fifth of it."""
    even = math.log(2)
    dft, otr = (step_of(hooks, model=toy(even, even, even))[1] for hooks in (Dft(), Otr("exact", 1.0, -0.1)))
    assert dft == pytest.approx([-0.25 / 5, -0.25 / 5, -0.75 / 5]) and otr == pytest.approx([1.1 * one for one in dft])
    assert step_of(Otr("exact", 1.0, -0.1))[1] == pytest.approx([1.1 * one for one in step_of(Dft())[1]])


def test_draws_are_right_on_average_and_carry_no_gradient() -> None:
    """The mean gradient of 4,000 times 16 draws lies within five standard errors of the exact one; a share is a multiple of 1/16."""
    torch.manual_seed(0)
    logits, target = [2.0, 0.5, -1.0, 0.0], 2
    given = tokens([logits] * 4000, [target] * 4000)
    found = gradient(given, Otr(16, 1.3, -0.1).token_loss(given))
    one = tokens([logits], [target])
    exact = gradient(one, Otr("exact", 1.3, -0.1).token_loss(one))[0]
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / math.sqrt(4000)).all() and found.std(0).min() > 0.01
    shares = Otr(16, 1.3, -0.1).shares(one.logits.detach())
    assert shares.sum().item() == pytest.approx(1) and torch.equal(shares * 16, (shares * 16).round())


def test_what_the_model_never_says_teaches_nothing() -> None:
    """Plain fine-tuning pulls hardest where the data's token is unlikely, this one does not at all: by hand, p = exp(-20)."""
    given = tokens([[20.0, 0.0]], [1])
    assert gradient(given, given.nll)[0, 1].item() == pytest.approx(-1)
    assert gradient(given, Otr(64, 1.0, 0.0).token_loss(given)).abs().max() == 0


def test_half_precision_is_widened_first() -> None:
    given = tokens([[math.log(3), 0.0]], [0], torch.bfloat16)
    assert Otr("exact", 1.0, -0.1).token_loss(given).dtype == Otr(4, 1.0, -0.1).token_loss(given).dtype == torch.float32


def test_a_killed_run_goes_on_with_the_draws_that_it_would_have_made(inputs: Inputs, tmp_path: Path) -> None:
    hooks = Otr(8, 1.3, -0.1)
    tune(inputs, tmp_path / "a", tmp_path / "sa", hooks, max_steps=8)
    with pytest.raises(KeyboardInterrupt):
        tune(inputs, tmp_path / "b", tmp_path / "sb", hooks, max_steps=8, stop=6)
    tune(inputs, tmp_path / "c", tmp_path / "sb", hooks, max_steps=8)
    assert same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(("wrong", "message"), [({"beta": 0.1}, "less than or equal to 0"), ({"k": 0}, "greater than or equal to 1")])
def test_rewards_for_wrong_tokens_and_no_draws_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Params(**wrong)  # type: ignore[arg-type]
