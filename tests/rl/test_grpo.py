"""GRPO's hooks: advantages within a group, the clipped ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.contract.params import BadInput
from tasks.rl.core.batch import Scored
from tasks.rl.grpo import Grpo, Params, check
from tests.rl.micro import batch


def test_advantages_by_hand() -> None:
    """Group 0 has rewards 1, 0, 0, 0: mean 0.25, standard deviation 0.5, so the advantages are 1.5 and -0.5 (the 1e-4 in the
    denominator moves the fourth digit). Group 1 has 2, 4: mean 3, deviation 1.414, advantages -0.707 and 0.707."""
    got = Grpo(params=Params()).advantages(batch([1.0, 0, 0, 0, 2, 4], groups=[0, 0, 0, 0, 1, 1]))
    assert got.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, -0.7071, 0.7071], abs=1e-3)


def test_without_scaling_it_is_the_centred_reward() -> None:
    """The limit that is Dr. GRPO's, and RLOO's up to the factor G / (G - 1)."""
    got = Grpo(params=Params(scale="none")).advantages(batch([1.0, 0, 0, 1], groups=[0, 0, 1, 1]))
    assert got.tolist() == [0.5, -0.5, -0.5, 0.5]


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    """When the ratio is 1, d loss / d logp = -A for every token of the model, and 0 for the others."""
    import torch

    logp = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    one = replace(batch([1.0]), mask=torch.tensor([[1, 0, 1]]), old_logp=logp.detach(), advantages=torch.tensor([[0.7]]))
    losses = Grpo(params=Params()).token_loss(Scored(logp, torch.zeros(1, 3)), one)
    (losses * one.mask).sum().backward()
    assert logp.grad is not None and logp.grad[0].tolist() == pytest.approx([-0.7, 0.0, -0.7])


def test_the_clip_by_hand() -> None:
    """Ratios 1.5 and 0.5 with epsilon 0.2. A = 1: losses -1.2 and -0.5. A = -1: losses 1.5 and 0.8 (the pessimistic
    side)."""
    import torch

    logp, old = torch.log(torch.tensor([[1.5, 0.5]])), torch.zeros(1, 2)
    hooks, now = Grpo(params=Params()), Scored(logp, old)
    for advantage, wanted in ((1.0, [-1.2, -0.5]), (-1.0, [1.5, 0.8])):
        one = replace(batch([1.0]), mask=torch.ones(1, 2, dtype=torch.long), old_logp=old, advantages=torch.tensor([[advantage]]))
        assert hooks.token_loss(now, one)[0].tolist() == pytest.approx(wanted)


def test_bad_params() -> None:
    with pytest.raises(BadInput, match=r"clip_high = 0.1 is below clip_low = 0.2"):
        check(Params(clip_high=0.1))
