"""Slerp: models are interpolated along the arc between them instead of the chord, tensor by tensor.

Paper: "Fine-tuning large language models for domain adaptation: exploration of training strategies, scaling, model merging and
synergistic capabilities", https://arxiv.org/abs/2409.03444, which merges the domain's model with the general one this way; the formula
is Shoemake's ("Animating rotation with quaternion curves", SIGGRAPH 1985). With the flattened tensors v0 and v1 and phi the angle
between them:

    slerp(v0, v1, t) = sin((1 - t) phi) / sin(phi) v0 + sin(t phi) / sin(phi) v1
    lerp(v0, v1, t)  = (1 - t) v0 + t v1                                                where |cos phi| > 0.9995

`t` 0 is the origin (the base unless `origin` names an expert), 1 the other models. `space: changes` takes the arc between the task
vectors and adds the base to the result.

Fine-tunings of one base are nearly parallel, so in weight space slerp mostly IS lerp: the figures say the share of tensors that fell
back, and any gain must be held against that arm (`task_arithmetic` with alpha = t for the base and one expert; `linear` for experts).

More than two models are joined by a balanced tree: the origin first, then the others by name, split in halves (the left one smaller
when odd) down to single models. The origin has the share 1 - t, the others t w_i / sum_j w_j of their weights; at a node, t is its
right side's part of the shares below it. So where every node falls back, the result is the average with these shares.

The paper's anchors (self-attention and MLP opposed, all else 0.5; for tiny models use one number, two layers see only the ends):

    t: 0.5
    overrides: [{match: self_attn, params: {t: [0, 0.5, 0.3, 0.7, 1]}}, {match: mlp, params: {t: [1, 0.5, 0.7, 0.3, 0]}}]

Departures:
1. More than two models, as above; the paper's merges take two.
2. A tensor without a direction (all 0) is interpolated by lerp.
3. Coefficients are found from inner products and applied to the changes in float32, rounded once to the stored dtype; the paper's
   merges compute in bfloat16.

Cost: two reads of each checkpoint, the first for m (m + 1) / 2 inner products of m models; no forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput, nearest
from tasks.contract.planned import Planned
from tasks.merge import Inputs, labels
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.params import Curve, MergeParams, at, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tally import dot
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Slerp"
PAPER = "https://arxiv.org/abs/2409.03444"
SLUG = "domain_adaptation"

PARALLEL = 0.9995
"""|cos| above which the arc is taken for its chord, as in the merges of the paper: sin(phi) in the divisor is near 0 there."""


class Params(MergeParams):
    """weights: of the models besides the origin among each other; with a single one there is nothing to weigh."""

    t: Curve = Field(0.5, description="way from the origin (0) to the other models (1), or its anchors over the layers")
    origin: str = Field("", description="the model at t = 0: an expert's name, or empty for the base")
    space: Literal["weights", "changes"] = Field("weights", description="the arc between whole weights, or between task vectors")


def check(params: Params) -> None:
    """Refuse ways that leave 0..1, arcs from the base's own change, which is 0, negative weights, and a result that is the origin."""
    check_merge(params)
    variants = {"": params}
    for index, one in enumerate(params.overrides):
        if "origin" in one.params:
            raise BadInput(f"overrides[{index}].params.origin: this cannot differ from tensor to tensor")
        variants[f"overrides[{index}].params: "] = Params.model_validate({**params.model_dump(), **one.params})
    for where, own in variants.items():
        if not _anchors(own.t) or not all(0 <= value <= 1 for value in _anchors(own.t)):
            raise BadInput(f"{where}t = {own.t}: allowed are numbers from 0 (the origin) to 1 (the others), or a list of them")
        if own.space == "changes" and not own.origin:
            raise BadInput(f"{where}space = 'changes' needs `origin`, an expert's name: the base's own change is 0, without direction")
    if not any(any(_anchors(own.t)) for own in variants.values()):
        raise BadInput("t = 0 everywhere: the result would be the origin. Allowed: up to 1.")
    for given in (params.weights, *(one.weights for one in params.overrides)):
        for label, curve in given.items():
            if any(value < 0 for value in _anchors(curve)):
                raise BadInput(f"weights.{label} = {curve}: shares of an arc are not negative. Allowed: 0 and more.")


def check_road(step: Planned) -> None:
    """What `run` would refuse of the road's experts, before they are trained."""
    check_experts(step.params, labels(step))


def check_experts(params: Params, labels: Sequence[str]) -> None:
    """Refuse an origin that is not there, or alone, and weights that would say nothing. labels: the experts' names, sorted."""
    others = [label for label in labels if label != params.origin]
    if params.origin and params.origin not in labels:
        raise BadInput(f"slerp: origin: no expert {params.origin!r}.{nearest(params.origin, labels)} Experts: {', '.join(labels)}.")
    if not others:
        raise BadInput(f"slerp: origin = {params.origin!r} is the only expert. Leave origin empty for the arc from the base to it.")
    given = {label for weights in (params.weights, *(one.weights for one in params.overrides)) for label in weights}
    if params.origin in given:
        raise BadInput(f"slerp: weights.{params.origin}: the origin's share is 1 - t. Allowed: weights of {', '.join(others)}.")
    if given and len(others) == 1:
        raise BadInput("slerp: weights say nothing for two models, `t` says it all. Leave them out.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge the experts as `core.room.merge_checkpoints` says; the figures also say the share of tensors where slerp was lerp."""
    import pyarrow.parquet as pq

    check(params)
    check_experts(params, sorted(inputs.experts))
    figures = merge_checkpoints("slerp", inputs, params, ctx, formula(params))
    rows = pq.read_table(ctx.out / "report.parquet").to_pylist()
    fell = [row["slerp_fallback"] for row in rows if row.get("slerp_fallback") is not None]
    return {**figures, "slerp_fallback_share": math.fsum(fell) / len(fell) if fell else None}


def formula(params: Params) -> Formula:
    """The tree of arcs. Report: slerp_cos, the cosine of the two sides of the node where they are least parallel (null: no node had
    two directions); slerp_fallback, 1 where every node was a lerp, else 0 (null: t is 0 or 1, nothing is joined)."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        whole = own.space == "weights"
        models = order(own.origin, tensor.labels)
        tree = Tree(gram(tensor, models, whole), shares(tensor, models, at(own.t, tensor.position)))
        mix = tree.root()
        surplus = np.float32(mix.excess if whole else 0)

        def blend(block: Block) -> Array:
            total = block.base * surplus if surplus else np.zeros_like(block.base)
            for model, coefficient in zip(models, mix.coefficients, strict=True):
                if model is not None:
                    total += np.float32(coefficient) * block.changes[model]
            return total

        return Look(blend, [tree.figures()] * len(tensor.labels))

    return look


def order(origin: str, labels: Sequence[str]) -> list[int | None]:
    """The leaves of the tree as indices of experts, None for the base: the origin, then the others by name."""
    first = labels.index(origin) if origin else None
    return [first, *(index for index in range(len(labels)) if index != first)]


def shares(tensor: Tensor, models: Sequence[int | None], t: float) -> list[float]:
    """Each leaf's share of the average, 1 together: 1 - t for the origin, t by weight for the others."""
    weights = [tensor.weights[model] for model in models[1:] if model is not None]
    total = math.fsum(weights)
    if not total:
        raise BadInput(f"slerp: the weights for tensor {tensor.name!r} sum to 0. To keep the origin there, override t with 0.")
    return [1 - t, *(t * (weight / total) for weight in weights)]


def gram(tensor: Tensor, models: Sequence[int | None], whole: bool) -> list[list[float]]:
    """Inner products of the leaves, [m][m]: of whole weights, or of task vectors."""
    count = len(models)
    sums: list[list[list[float]]] = [[[] for _ in range(count)] for _ in range(count)]
    for block in tensor.blocks():
        vectors = list(_vectors(block, models, whole))
        for i in range(count):
            for j in range(i + 1):
                sums[i][j].append(dot(vectors[i], vectors[j]))
    return [[math.fsum(sums[max(i, j)][min(i, j)]) for j in range(count)] for i in range(count)]


def _vectors(block: Block, models: Sequence[int | None], whole: bool) -> Iterator[Array]:
    for model in models:
        if model is None:
            yield block.base
        else:
            yield block.base + block.changes[model] if whole else block.changes[model]


@dataclass(frozen=True)
class Mix:
    """A linear combination of the leaves. excess: the sum of its coefficients less 1, exactly 0 where all is lerp. share: of the leaves
    below it, in the average."""

    coefficients: list[float]
    excess: float
    share: float


@dataclass
class Tree:
    """gram: inner products of the leaves, [m][m]; shares: of each in the average, [m]. Every node is a linear combination of leaves, so
    its angle follows from `gram` alone."""

    gram: list[list[float]]
    shares: list[float]
    cosines: list[float] = field(default_factory=list)
    fallbacks: list[bool] = field(default_factory=list)

    def root(self) -> Mix:
        """The whole tree as a combination of its leaves."""
        return self._node(0, len(self.shares))

    def figures(self) -> dict[str, Any]:
        """For the report, after `root`."""
        return {
            "slerp_cos": min(self.cosines, key=abs, default=None),
            "slerp_fallback": int(all(self.fallbacks)) if self.fallbacks else None,
        }

    def _node(self, first: int, end: int) -> Mix:
        if end - first == 1:
            return Mix([float(index == first) for index in range(len(self.shares))], 0.0, self.shares[first])
        middle = (first + end) // 2
        left, right = self._node(first, middle), self._node(middle, end)
        if not left.share or not right.share:  # nothing to join: the other side is the result
            return left if left.share else right
        share = left.share + right.share
        a, b, excess = self._arc(left, right, right.share / share)
        return Mix([a * x + b * y for x, y in zip(left.coefficients, right.coefficients, strict=True)], excess, share)

    def _arc(self, left: Mix, right: Mix, t: float) -> tuple[float, float, float]:
        """(coefficient of the left, of the right, excess of the sum)."""
        norms = math.sqrt(max(self._product(left, left), 0) * max(self._product(right, right), 0))
        cosine = self._product(left, right) / norms if norms else None
        if cosine is not None:
            self.cosines.append(cosine)
        self.fallbacks.append(cosine is None or abs(cosine) > PARALLEL)
        if cosine is None or abs(cosine) > PARALLEL:
            return 1 - t, t, (1 - t) * left.excess + t * right.excess
        phi = math.acos(cosine)
        a, b = math.sin((1 - t) * phi) / math.sin(phi), math.sin(t * phi) / math.sin(phi)
        return a, b, a * (1 + left.excess) + b * (1 + right.excess) - 1

    def _product(self, left: Mix, right: Mix) -> float:
        rows = zip(left.coefficients, self.gram, strict=True)
        return math.fsum(x * y * product for x, row in rows for y, product in zip(right.coefficients, row, strict=True))


def _anchors(curve: Curve) -> list[float]:
    return curve if isinstance(curve, list) else [curve]
