"""Params of the room's training loop (`rl.loop`): all its methods share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tasks.checkpoints.adapter_params import AdapterParams, check_adapter
from tasks.contract.params import BadInput, Cap, Params
from tasks.training import distributed, optimizers, packs
from tasks.training.distributed import Distributed
from tasks.training.fitting import CHECKPOINTING, DTYPE, Dtype
from tasks.training.packs import PACKING, Packing

if TYPE_CHECKING:
    from tasks.contract.planned import Planned

SCREEN_SHARD = 32
"""Problems of one screening shard: found again after a kill."""


class Loop(Params):
    """Params of the training loop. "measured" means: on the two built-in worlds with the 0.66 M model."""

    steps: int = Field(40, ge=1, description="batches of conversations; measured: 40 to 50 move the sampled score")
    groups: int = Field(8, ge=1, description="problems a step; measured: 8 groups of 8")
    group_size: int = Field(8, ge=2, description="conversations of one problem, G in GRPO")
    lr: float = Field(1e-4, gt=0, le=1e-2, description="learning rate of AdamW; measured: 1e-4 to 2e-4, 3e-4 gained nothing")
    schedule: Literal["linear", "constant", "cosine"] = Field("linear", description="learning rate over the steps; TRL's default")
    max_grad_norm: float = Field(1.0, gt=0, description="clip of the gradient's norm; TRL's default")
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="adamw_8bit: its states in 8 bits (bitsandbytes)")
    pass_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="tokens of one forward and backward pass, which bounds memory; the gradient stays the step's; 0: all",
    )
    packing: Packing = Field("none", description=PACKING)
    temperature: float = Field(
        1.0,
        gt=0,
        le=2,
        description="of the sampled conversations and the scored log-probabilities; measured: 1.2 for a policy sure of itself",
    )
    dtype: Dtype = Field("float32", description=DTYPE)
    checkpointing: bool = Field(False, description=CHECKPOINTING)
    distributed: Distributed = Field(
        Distributed(), description="several processes that train together; the first alone plays, or asks the engine's server"
    )
    max_turns: int = Field(30, ge=1, description="assistant turns of a conversation; tau-bench's limit")
    max_turn_tokens: int = Field(96, ge=4, description="produced tokens of one turn")
    max_episode_tokens: int = Field(448, ge=32, description="tokens of a conversation; measured: keeps one babbler from padding all")
    rows: int = Field(128, ge=1, description="conversations played at once; measured: 128 to 256 are fastest")
    screen_problems: int = Field(300, ge=1, description="training problems that are played to know their difficulty")
    screen_trials: int = Field(4, ge=1, description="conversations a screened problem")
    pool: int = Field(132, ge=1, description="problems kept for training, in equal shares of the families; measured: 130")
    validate_every: int = Field(10, ge=1, description="steps between validations; the state to resume from is saved as often")
    validation_temperature: float = Field(0.7, ge=0, le=2, description="of the sampled validation; evaluate's own default")
    validation_problems: int = Field(96, ge=1, description="problems of the validation split, one sampled conversation each")
    max_family_fall: float = Field(
        0.35, ge=0, le=1, description="a checkpoint whose pass^1 in some family fell by more cannot become the best"
    )
    max_lost: float = Field(
        0.9,
        ge=0,
        le=1,
        description="stop when a larger share of the screening's or a validation's conversations ends for one technical reason",
    )
    min_trained: float = Field(
        0.1, ge=0, le=1, description="least share of the steps in which some group trains; stop when out of reach; 0: none need"
    )
    max_mismatch: float | None = Field(
        None,
        gt=0,
        description="stop when the engine's log-probabilities are further from the trainer's, in nats, mean of a step's tokens; empty: "
        "0.001 where float32 trains, 0.05 in half precision",
    )
    importance_cap: float = Field(
        0.0,
        ge=0,
        le=100,
        description="truncated importance sampling: a token's loss times trainer's / engine's probability, at most this (2); 0: off",
    )
    entropy_floor: float = Field(
        0.2, ge=0, le=1, description="alarm when the entropy of the policy falls below this share of its first value"
    )
    entropy_stop: bool = Field(False, description="stop training at the entropy alarm")
    adapter: AdapterParams = Field(AdapterParams(), description="what trains in place of the weights (PEFT)")


def caps(params: Loop) -> tuple[Cap, ...]:
    """What the loop limits in tokens."""
    least = 1 - params.max_lost
    return (
        Cap("max_episode_tokens", params.max_episode_tokens, "conversation", least),
        Cap("max_turn_tokens", params.max_turn_tokens, "turn", least),
    )


def conversations(params: Loop, step: Planned) -> int:
    """How many conversations are played at most in the step's worlds: screening, steps, validations before, between and after."""
    screened, trained = params.screen_problems * params.screen_trials, params.steps * params.groups * params.group_size
    return len(step.worlds) * (screened + trained + _validations(params) * params.validation_problems)


def by_checkpoints(params: Loop, step: Planned) -> tuple[int, int]:
    """(conversations that checkpoints play, engines that are opened for them): all, anew for each shard, step and validation."""
    opened = -(-params.screen_problems // SCREEN_SHARD) + params.steps + _validations(params)
    return conversations(params, step), len(step.worlds) * opened


def _validations(params: Loop) -> int:
    return 1 + params.steps // params.validate_every + (params.steps % params.validate_every > 0)


def check(params: Loop) -> None:
    """Raise BadInput for combinations that make no sense."""
    if params.adapter.kind == "qlora":
        raise BadInput("adapter.kind: qlora: conversations are sampled from the weights that train, and 4 bits hide them. Write lora.")
    check_adapter(params.adapter)
    shared = distributed.check(params.distributed, params.pass_tokens, params.optimizer)
    if wrong := packs.check(params.packing, params.pass_tokens) or optimizers.check(params.optimizer) or shared:
        raise BadInput(wrong)
    if params.max_turn_tokens >= params.max_episode_tokens:
        raise BadInput(
            f"max_turn_tokens = {params.max_turn_tokens} leaves no room for a second turn in max_episode_tokens = "
            f"{params.max_episode_tokens}. Allowed: less than max_episode_tokens."
        )
