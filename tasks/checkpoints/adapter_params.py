"""Params of an adapter, `<stage>.loop.adapter`: the rooms that train have the same ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tasks.contract.params import BadInput, Params

TABLES = ("embed_tokens", "lm_head")
"""The vocabulary's layers, by the end of their names; they are trained whole or not at all."""

_LASTING = ("kind", "r", "alpha", "targets", "modules_to_save")


class AdapterParams(Params):
    """What is trained in place of the weights, by PEFT: low-rank changes of matrices, https://arxiv.org/abs/2106.09685."""

    kind: Literal["none", "lora", "dora", "rslora", "qlora"] = Field(
        "none",
        description="none: all weights train. dora: with lengths of their own (2402.09353). rslora: scaled by alpha / sqrt(r) "
        "(2312.03732). qlora: the base in 4 bits (2305.14314; needs a GPU and bitsandbytes)",
    )
    r: int = Field(16, ge=1, le=4096, description="rank of a matrix's change")
    alpha: float = Field(32.0, gt=0, le=10_000, description="the change is scaled by alpha / r; twice r is usual")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a change's inputs that is dropped in training")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="ends of names of the linear layers that are changed; all-linear: all but the output layer"
    )
    modules_to_save: list[str] = Field(
        [], description="ends of names of modules that train whole beside it; embeddings are added where tokens were"
    )
    init: Literal["kaiming", "gaussian", "orthogonal"] = Field(
        "kaiming", description="how it starts, always without a change: beginnings that alter the base (pissa, olora) are not offered"
    )
    save: Literal["adapter", "full"] = Field(
        "adapter", description="what is left as the checkpoint: the adapter with the name of its base, or a whole one (and the adapter)"
    )


def check_adapter(params: AdapterParams) -> None:
    """Raise BadInput for what cannot be trained, or could be and not be played."""
    if params.model_fields_set and "kind" not in params.model_fields_set:
        beside = ", ".join(sorted(params.model_fields_set))
        raise BadInput(
            f"adapter.kind is missing: beside {beside} alone all weights would train. Write adapter.kind: lora; or kind: none."
        )
    if params.kind == "none" and (idle := sorted(params.model_fields_set - {"kind", "save"})):
        raise BadInput(
            f"adapter.kind: none beside {', '.join(idle)}: all weights train, and nothing reads that. Leave it out (adapter: "
            "{kind: none}), or write adapter.kind: lora."
        )
    if not params.targets:
        raise BadInput("adapter.targets is empty, so no layer would be changed. Allowed: all-linear, or ends of layers' names.")
    if wrong := [name for name in params.targets if isinstance(params.targets, list) and name.endswith(TABLES)]:
        raise BadInput(
            f"adapter.targets names {', '.join(wrong)}: the vocabulary's layers get no low-rank change. To train them whole write "
            f"adapter.modules_to_save: [{', '.join(wrong)}]."
        )
    if params.init == "orthogonal" and params.r % 2:
        raise BadInput(f"adapter.r = {params.r} with init: orthogonal, which halves the rank. Allowed: an even r.")
    if params.kind == "qlora" and params.save == "full":
        raise BadInput("adapter.save: full with kind: qlora, whose base is held in 4 bits. Write save: adapter.")
    if params.kind == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput("adapter.kind: qlora needs the package bitsandbytes, which is not installed here. Install it, or write lora.")


def lasting(params: AdapterParams) -> dict[str, Any]:
    """What must not change where a training goes on with an adapter."""
    return params.model_dump(mode="json", include={*_LASTING})


def another(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why a training cannot go on with an adapter. there, now: what is `lasting` of it ({}: unknown) and of the training."""
    return (
        f"the training begins with an adapter ({dict(there) or 'of unknown params'}), and loop.adapter says {dict(now)}: one "
        "adapter cannot become another. Write the same, or kind: none (it is merged, and all weights train), or adapter.save: full "
        "in the step before."
    )
