"""What plays and what trains are compared at every step: a wrong adapter, prompt or dtype is named before anything is learned from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from tasks.contract.params import StageFailed
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own
from tasks.players.local.generation import Engine, Sampling
from tasks.rl import Inputs
from tasks.rl.core.loop import run
from tasks.rl.core.mismatch import corrected
from tasks.rl.grpo import Params
from tests.rl.micro import SHORT, Brief, batch, context, frozen


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return frozen(tmp_path_factory.mktemp("rl"))


class Adapted(Brief):
    """With a LoRA adapter that changes what the base says from the start."""

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from peft import LoraConfig, get_peft_model

        made: PreTrainedModel = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))  # type: ignore[arg-type]
        return made


class Changed:
    """An engine elsewhere that does something else with what it is given."""

    elsewhere = True

    def __init__(self, engine: Engine, change: Callable[[Sequence[int], Sampling], tuple[Sequence[int], Sampling]]) -> None:
        self.engine, self.change = engine, change
        self.rows, self.most = engine.rows, engine.most

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        self.engine.submit(conversation, *self.change(ids, sampling))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def half(model: Any, **sizes: Any) -> Engine:
    """In bfloat16, while float32 trains."""
    import copy

    import torch

    return own.opened(copy.deepcopy(model).to(torch.bfloat16), **sizes)


def without_adapter(model: Any, **sizes: Any) -> Engine:
    return Changed(own.opened(model, **sizes), lambda ids, sampling: (ids, replace(sampling, adapter="")))  # type: ignore[return-value]


def other_template(model: Any, **sizes: Any) -> Engine:
    """The prompt's first tokens are others than those that training sees."""
    return Changed(own.opened(model, **sizes), lambda ids, sampling: ([7, 8, 9, *ids[6:]], sampling))  # type: ignore[return-value]


def at_one(model: Any, **sizes: Any) -> Engine:
    return Changed(own.opened(model, **sizes), lambda ids, sampling: (ids, replace(sampling, temperature=1.0)))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        (without_adapter, "the engine plays the base without the adapter"),
        (other_template, "reads other tokens .a chat template that is rendered anew"),
        (half, "of the size of bfloat16's rounding .*: the engine's dtype is a half precision"),
        (at_one, "at temperature 1 and not at 1.3"),
    ],
)
def test_what_another_model_played_is_named_before_anything_is_learned(inputs: Inputs, tmp_path: Path, engine: Any, cause: str) -> None:
    ctx = context(tmp_path, of_checkpoint=partial(CheckpointAgent, engine=engine))
    loop = SHORT.model_copy(update={"temperature": 1.3})
    with pytest.raises(StageFailed, match=rf"rl: step 1 of 2: the engine's log-probabilities are not the trainer's.*{cause}"):
        run(inputs, loop, Adapted(params=Params()), ctx)


def test_the_difference_is_logged_each_step_and_is_rounding(inputs: Inputs, tmp_path: Path) -> None:
    told: dict[str, list[float]] = {}
    run(inputs, SHORT, Brief(params=Params()), context(tmp_path, log=lambda name, value, _: told.setdefault(name, []).append(value)))
    assert len(told["rl/mismatch_mean"]) == 2 and 0 < max(told["rl/mismatch_mean"]) < 1e-5
    assert max(told["rl/mismatch_max"]) < 1e-4 and told["rl/mismatch_far"] == [0.0, 0.0]


def test_a_half_precision_engine_is_corrected_where_it_is_meant(inputs: Inputs, tmp_path: Path) -> None:
    """The ratio starts from the trainer's own log-probabilities, so that it is 1 before the first update; the weights are not."""
    seen: list[Any] = []

    class Sees(Brief):
        def token_loss(self, now: Any, batch: Any) -> Any:
            seen.append((float(((now.logp.detach() - batch.old_logp) * batch.mask).abs().max()), batch.correction))
            return super().token_loss(now, batch)

    loop = SHORT.model_copy(update={"max_mismatch": 0.2, "importance_cap": 1.01})
    run(inputs, loop, Sees(params=Params()), context(tmp_path, of_checkpoint=partial(CheckpointAgent, engine=half)))
    assert len(seen) == 2 and all(apart < 1e-5 for apart, _ in seen)
    assert all(weights.max() <= 1.0101 and weights.min() < 0.9999 for _, weights in seen)


def test_the_weights_by_hand() -> None:
    """p_trainer / p_engine = e^0.5 capped at 1.5, e^-1 as it is; a stored row keeps weight 1 and its own log-probabilities."""
    import torch

    rows = replace(batch([1.0, 1.0]), played=torch.tensor([1, 0]))
    found = corrected(rows, torch.tensor([[-0.5, -2.0], [-9.0, -9.0]]), 1.5)
    assert found.correction[0].tolist() == pytest.approx([1.5, 0.36788], abs=1e-4) and found.correction[1].tolist() == [1.0, 1.0]
    assert found.old_logp.tolist() == [[-0.5, -2.0], [-1.0, -1.0]]
