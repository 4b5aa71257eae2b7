"""What every merge method can be told: weights by expert, layer and name pattern; params by name pattern; limits and layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tasks.contract.params import BadInput, Params, nearest, validate

Curve = float | list[float]
"""One number for all layers, or anchors: spread evenly over the layers, first to last, and interpolated linearly between."""

_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")
OUTSIDE = 0.5
"""Where a tensor stands on a curve that belongs to no layer (embeddings, last norm, output): in the middle."""


Own = TypeVar("Own", bound="MergeParams")
"""The params of one method."""


class Override(BaseModel):
    """For the tensors whose name `match` finds: other weights, other params of the method, or nothing of the experts at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(description="regular expression, searched for in a tensor's name")
    weights: dict[str, Curve] = Field({}, description="as the method's own weights, for these tensors")
    params: dict[str, Any] = Field({}, description="params of the method, for these tensors")
    exclude: bool = Field(False, description="leave these tensors as they are in the base")


class MergeParams(Params):
    """Params that all methods of the room share."""

    weights: dict[str, Curve] = Field({}, description="weight of an expert by name, or its anchors over the layers; 1 if not named")
    overrides: list[Override] = Field([], description="exceptions by tensor name; the first that matches counts")
    max_relative_delta: float = Field(
        0.5, gt=0, description="refuse an expert that moved farther, as a share of the base's norm; unrelated models: 1.4"
    )
    tokenizer: Literal["base", "union"] = Field(
        "base", description="union: added tokens of the experts are taken over by name, with the mean of their embeddings"
    )
    settle: dict[str, str] = Field(
        {},
        description="from whom (`base` or an expert) what differs is taken: a key of config.json, chat_template, tokenizer or dtype",
    )
    adapter_base: str | list[str] | dict[str, str] = Field(
        "", description="the name by which LoRA adapters call the base, if that is no folder here; several, or one for each expert"
    )
    max_shard_bytes: int = Field(5_000_000_000, ge=1, description="largest weight file, bytes; a larger tensor stands alone")

    def called(self, label: str) -> set[str]:
        """Names by which an expert's adapter may call the base."""
        if isinstance(self.adapter_base, dict):
            return {self.adapter_base[label]} if label in self.adapter_base else set()
        return {self.adapter_base} - {""} if isinstance(self.adapter_base, str) else set(self.adapter_base)

    def override(self, name: str) -> Override | None:
        """The exception that counts for a tensor."""
        return next((one for one in self.overrides if re.search(one.match, name)), None)

    def excludes(self, name: str) -> bool:
        """Whether a tensor stays as it is in the base."""
        found = self.override(name)
        return found is not None and found.exclude

    def at(self, name: str) -> Self:
        """The params that hold for a tensor."""
        found = self.override(name)
        return self if found is None or not found.params else _with(self, self.overrides.index(found))

    def weights_at(self, name: str, labels: Sequence[str], position: float) -> list[float]:
        """The experts' weights for a tensor, in the order of labels."""
        found = self.override(name)
        own = {**self.weights, **(found.weights if found else {})}
        return [at(own.get(label, 1.0), position) for label in labels]


def variants(params: Own) -> list[tuple[str, Own]]:
    """The params outside the overrides, and in each override that has some: with words for the place, for error messages."""
    found: list[tuple[str, Own]] = [("", params)]
    found += [(f"overrides[{index}]: ", _with(params, index)) for index, one in enumerate(params.overrides) if one.params]
    return found


def _with(params: Own, index: int) -> Own:
    found = params.overrides[index]
    return validate(type(params), {**params.model_dump(), **found.params}, f"overrides[{index}] ({found.match!r})")


def at(curve: Curve, position: float) -> float:
    """A curve's value at a layer's position, 0 (first) to 1 (last)."""
    if isinstance(curve, (int, float)):
        return float(curve)
    place = position * (len(curve) - 1)
    left = min(int(place), len(curve) - 1)
    right = min(left + 1, len(curve) - 1)
    return curve[left] + (place - left) * (curve[right] - curve[left])


def layer_positions(names: Sequence[str]) -> dict[str, float]:
    """Tensor -> position of its layer among the layers, 0 to 1; OUTSIDE where there is none."""
    layers = {name: int(found[1]) for name in names if (found := _LAYER.search(f".{name}"))}
    last = max(layers.values(), default=0)
    return {name: layers[name] / last if name in layers and last else OUTSIDE for name in names}


def check_merge(params: MergeParams) -> None:
    """Refuse what is no number, no pattern or no curve, and overrides that would be refused as params."""
    curves: list[tuple[str, Mapping[str, Curve]]] = [("weights", params.weights)]
    curves += [(f"overrides[{index}].weights", one.weights) for index, one in enumerate(params.overrides)]
    for where, given in curves:
        for label, curve in given.items():
            values = curve if isinstance(curve, list) else [curve]
            if not values or not all(math.isfinite(value) for value in values):
                raise BadInput(f"{where}.{label} = {curve}: allowed are finite numbers, or a list of them")
    for index, one in enumerate(params.overrides):
        try:
            re.compile(one.match)
        except re.error as error:
            raise BadInput(f"overrides[{index}].match = {one.match!r} is no regular expression: {error}") from None
        shared = sorted(one.params.keys() & MergeParams.model_fields.keys())
        if shared:
            raise BadInput(f"overrides[{index}].params.{shared[0]}: this cannot differ from tensor to tensor")
        if one.params:
            _with(params, index)


def check_experts(name: str, params: MergeParams, labels: Sequence[str]) -> None:
    """Refuse weights of experts that are not there, and what is taken from or said of one that is not."""
    own = list(params.adapter_base) if isinstance(params.adapter_base, dict) else []
    for where, named, known in (("settle", list(params.settle.values()), ["base", *labels]), ("adapter_base", own, list(labels))):
        for label in named:
            if label not in known:
                raise BadInput(f"{name}: {where}: no {label!r}.{nearest(label, known)} Allowed: {', '.join(known)}.")
    for given in (params.weights, *(one.weights for one in params.overrides)):
        for label in given:
            if label not in labels:
                raise BadInput(f"{name}: weights: no expert {label!r}.{nearest(label, labels)} Experts: {', '.join(labels)}.")


def check_labels(name: str, params: MergeParams, labels: Sequence[str], tensors: Sequence[str]) -> None:
    """Refuse weights of experts that are not there, weights that are all 0, and patterns that no tensor matches."""
    check_experts(name, params, labels)
    places = {tensor: place for tensor, place in layer_positions(tensors).items() if not params.excludes(tensor)}
    if not any(any(params.weights_at(tensor, labels, place)) for tensor, place in places.items()):
        raise BadInput(
            f"{name}: every weight is 0 or every tensor excluded: the result would be the base. Experts: {', '.join(labels)}."
        )
    for index, one in enumerate(params.overrides):
        if not any(re.search(one.match, tensor) for tensor in tensors):
            raise BadInput(f"{name}: overrides[{index}].match = {one.match!r} matches no tensor, for example not {tensors[0]!r}")
