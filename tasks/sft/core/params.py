"""Params of the room's training loop, `sft.loop`: all methods of the room share them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.checkpoints.adapter_params import AdapterParams, check_adapter
from tasks.contract.params import BadInput, Cap, Params
from tasks.training import distributed, optimizers, packs
from tasks.training.distributed import Distributed
from tasks.training.fitting import CHECKPOINTING, DTYPE, Dtype
from tasks.training.packs import PACKING, Packing


class Loop(Params):
    """The knobs of the loop. "ours" means: measured on the built-in worlds with the 0.66 M model."""

    epochs: int = Field(1, ge=1, le=100, description="passes over the rows")
    control: bool = Field(False, description="train on as many unfiltered rows too, side by side, for comparison alone")
    optimizer: Literal["adamw", "muon", "adamw_8bit"] = Field(
        "adamw", description="muon: Muon for the layers' matrices, AdamW for the rest; adamw_8bit: states in 8 bits (bitsandbytes)"
    )
    learning_rate: float = Field(2e-3, gt=0, le=0.1, description="AdamW's peak rate, then a cosine to 0; ours, for a tiny model")
    muon_rate: float = Field(2e-3, gt=0, le=0.1, description="Muon's peak rate in AdamW's units; 5e-3 was worse, ours")
    beta2: float = Field(0.97, gt=0, lt=1, description="AdamW's second decay: 0.97 learns faster in 1,400 steps than 0.999; ours")
    warmup: int = Field(20, ge=0, le=100_000, description="steps of linear warm-up; ours")
    batch_tokens: int = Field(
        1024,
        ge=16,
        le=10_000_000,
        description="tokens a batch, padding included, or with packing: shared_prompt as packed; ours: steps are scarce",
    )
    pass_tokens: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="tokens passed through the model at once, which bounds memory; the gradient stays the batch's; 0: all",
    )
    packing: Packing = Field("none", description=PACKING)
    accumulate: int = Field(1, ge=1, le=10_000, description="batches a step; the loss is one mean over all their tokens")
    max_length: int = Field(2048, ge=16, le=1_000_000, description="tokens; a longer row is left out and named, never cut")
    min_trained: float = Field(
        0.5, ge=0, le=1, description="stop when a smaller share of the kept rows, or of their trained tokens, fits max_length; ours"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decay of matrices; ours")
    max_norm: float = Field(1.0, gt=0, le=1000, description="gradients are clipped to this norm; the usual value")
    max_steps: int = Field(0, ge=0, le=10_000_000, description="steps at most; 0 = all that the epochs give")
    dtype: Dtype = Field("float32", description=DTYPE)
    checkpointing: bool = Field(False, description=CHECKPOINTING)
    distributed: Distributed = Field(Distributed(), description="several processes that train together")
    log_every: int = Field(25, ge=1, le=10_000, description="steps between points of the loss curve")
    save_every: int = Field(200, ge=1, le=1_000_000, description="steps between resume states, a multiple of log_every")
    validate_every: int = Field(400, ge=1, le=1_000_000, description="steps between validation losses; the last step always")
    validation_rows: int = Field(100, ge=0, le=1_000_000, description="rows of the validation split that are scored")
    adapter: AdapterParams = Field(AdapterParams(), description="what trains in place of the weights (PEFT)")


def check(params: Loop) -> None:
    """Raise BadInput for a resume state that would fall between two points of the curve, for packs of no size, for an adapter that
    cannot be trained, and for what several processes cannot share."""
    check_adapter(params.adapter)
    shared = distributed.check(params.distributed, params.pass_tokens, params.optimizer)
    if wrong := packs.check(params.packing, params.pass_tokens) or optimizers.check(params.optimizer) or shared:
        raise BadInput(wrong)
    if params.save_every % params.log_every:
        raise BadInput(
            f"save_every {params.save_every} is not a multiple of log_every {params.log_every}; a resumed run could "
            "not give the same curve."
        )


def caps(params: Loop) -> tuple[Cap, ...]:
    """What the loop limits in tokens."""
    return (Cap("max_length", params.max_length, "row", params.min_trained),)
