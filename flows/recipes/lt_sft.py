"""LT-SFT in miniature: do two sparse fine-tunings keep more of both skills, and of the base's, than two dense ones, when added up?

Paper: "Composable Sparse Fine-Tuning for Cross-Lingual Transfer", https://arxiv.org/abs/2110.07560.

The chain: a base learns symbol maps, and a part of two new ones, each with a token of its own; the new ones are fine-tuned from it one
by one. LT-SFT trains in full, selects the entries that moved most (one cut over all matrices together), goes back to the base, and
trains again those entries alone, with a new optimizer. The differences of both tasks are added to the base at scale 1.

Arms: lt_sft; dense, the first phase of the same run (so the same task, rows and steps as the sparse phase has); random_mask, as many
entries as LT-SFT selects, at random places; dense_long, dense with the steps of both phases. Sparse arms are composed by the merge
room's `sparse_compose`, dense ones by `task_arithmetic` with alpha 1; these two compute the same sum.

Metrics of the composed model: new, mean accuracy on the two new tasks; old, on the base's tasks. `figures` has the sweep over densities
and, for the claim's density, how much the two supports share and how often their signs disagree there.

Parts of the rows: base, alone (a fine-tuned model, by itself), composed; `density` tells the points of the sweep apart.

Departures:
1. The base has seen the images of some of a new task's symbols (`known`, half). With none, a fine-tuned model does not look at its
   task's token, since nothing it was trained on differs in it, and two tasks added up keep half of each whatever the arm.
2. Two tasks instead of a task and a language, fine-tuned side by side from one base; no head apart, so nothing is stored as absolute.
3. All matrices can be selected, the tied embedding once; norms are frozen, as in the paper.
4. One iteration of selection, no pull to the base (the paper's setting for tasks: lambda 0).
5. Equal magnitudes at the cut are ranked by their place, so that exactly K entries are selected; the authors' code may take more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from flows.recipes import Claim, Control, Measured, Progress
from flows.recipes.ground import maps, training
from flows.recipes.ground.merging import Bench
from flows.recipes.ground.scoring import mean, score
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.merge import sparse_compose, task_arithmetic

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TITLE = "LT-SFT"
PAPER = "https://arxiv.org/abs/2110.07560"
SLUG = "lt_sft"

CLAIM = Claim(
    statement="Adding two LT-SFT difference vectors keeps more of both new skills and of the base's old ones than adding two dense "
    "fine-tunings at the same scale.",
    metrics=("new", "old"),
    treatment="lt_sft",
    baseline="dense",
    controls=(
        Control("selection, new tasks", "lt_sft", "random_mask", "new", "higher", must_hold=False),
        Control("selection, old tasks", "lt_sft", "random_mask", "old", "higher", must_hold=False),
        Control("as many steps, new tasks", "lt_sft", "dense_long", "new", "higher", must_hold=False),
        Control("as many steps, old tasks", "lt_sft", "dense_long", "old", "higher", must_hold=False),
    ),
    direction="higher",
    nullable=True,
)

GOOD = 0.95
"""Accuracy of a base on its tasks, and of a fine-tuned model on its own, that counts as well trained; ours."""
SPARSEST = 0.5
"""`sparse_compose` takes anything denser for a dense fine-tuning."""

Vectors = list[dict[str, "torch.Tensor"]]
"""One difference from the base by parameter name for each new task."""


class Params(Base):
    """Sizes and schedules; all are ours, for a CPU, unless said."""

    width: int = Field(128, ge=32, le=1024, description="hidden size, a multiple of 32; 128 gives 0.4 M parameters")
    layers: int = Field(2, ge=1, le=16, description="transformer layers")
    symbols: int = Field(31, ge=5, le=512, description="symbols that the affine maps are over")
    pairs: int = Field(8, ge=1, le=64, description="symbols shown in a row, each with its image")
    old_tasks: int = Field(8, ge=1, le=512, description="maps of the base; the dossier's pilot: 8")
    known: float = Field(0.5, ge=0, lt=1, description="share of a new task's symbols that the base's mixture shows")
    base_steps: int = Field(200, ge=1, le=100_000, description="optimiser steps of the base")
    base_batch: int = Field(64, ge=1, le=4096, description="rows a step of the base")
    base_rate: float = Field(3e-3, gt=0, le=0.1, description="AdamW's peak rate of the base, falling linearly to 0")
    base_optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for the layers' matrices, AdamW for the rest")
    full_steps: int = Field(150, ge=1, le=100_000, description="steps of the first, full phase, and of the dense arm")
    sparse_steps: int = Field(150, ge=1, le=100_000, description="steps of the second phase; at least as many as the first")
    batch: int = Field(32, ge=1, le=4096, description="rows a step of both phases")
    rate: float = Field(1e-3, gt=0, le=0.1, description="peak rate of the full phase and of the dense arms")
    sparse_rate: float = Field(1e-3, gt=0, le=0.1, description="peak rate of the second phase; up to three times the first's")
    density: float = Field(0.05, gt=0, le=SPARSEST, description="selected share of all matrix entries; paper: 0.04 to 0.08")
    sweep: list[float] = Field([0.01, 0.02, 0.1, 0.3], description="further densities; with 0.05 the dossier's curve")
    test_rows: int = Field(64, ge=1, le=10_000, description="rows a task that are reported")


def check(params: Params) -> None:
    """Raise BadInput for densities that select nothing or everything, and for a second phase shorter than the first."""
    for density in params.sweep:
        if not 0 < density <= SPARSEST:
            raise BadInput(f"recipe lt_sft: sweep holds {density:g}. Allowed: above 0, up to {SPARSEST:g}.")
    if params.sparse_steps < params.full_steps:
        raise BadInput(
            f"recipe lt_sft: sparse_steps = {params.sparse_steps} is less than full_steps = {params.full_steps}: the sparse arm would "
            "be trained less than the dense one. Raise sparse_steps."
        )


def measure(seed: int, params: Params, folder: Path, progress: Progress) -> Measured:
    """See `flows.recipes.measure`; checkpoints of some MB each go to `folder`."""
    check(params)
    lab = Lab(seed, params, folder, progress)
    lab.train_base()
    dense = lab.dense("dense", params.full_steps)
    found = {
        "dense": lab.compose("dense", dense, None),
        "dense_long": lab.compose("dense_long", lab.dense("dense_long", params.full_steps + params.sparse_steps), None),
    }
    trade_off: dict[str, dict[str, dict[str, float]]] = {}
    for density in sorted({params.density, *params.sweep}):
        own = {
            "lt_sft": lab.sparse("lt_sft", [lab.selected(vector, density) for vector in dense], density),
            "random_mask": lab.sparse("random_mask", [lab.drawn(task, density) for task in lab.new], density),
        }
        if density == params.density:
            lab.overlap = overlap(own["lt_sft"])
        trade_off[f"{density:g}"] = {arm: lab.compose(arm, vectors, density) for arm, vectors in own.items()}
    return Measured(found | trade_off[f"{params.density:g}"], lab.rows, lab.sound(), {**lab.figures(), "by_density": trade_off})


@dataclass
class Lab:
    """One seed's models and rows. `train_base` comes first."""

    seed: int
    params: Params
    folder: Path
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)
    overlap: dict[str, float] = field(default_factory=dict)
    trained: int = 0

    @cached_property
    def lookup(self) -> maps.Maps:
        """The base's tasks, then the two new ones."""
        import random

        rng = random.Random(seed_of(self.seed, "maps"))
        return maps.Maps(tuple(maps.affine(self.params.old_tasks + 2, self.params.symbols, rng)), self.params.pairs)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The one model whose weights are exchanged."""
        return training.tiny_model(self.lookup.vocabulary, self.params.layers, self.params.width, seed_of(self.seed, "weights"))

    @cached_property
    def bench(self) -> Bench:
        """Where differences are composed."""
        return Bench(self.folder / "base", self.folder / "merges", self.seed)

    @cached_property
    def start(self) -> dict[str, torch.Tensor]:
        """The base's weights, from which every training starts."""
        return training.load_weights(self.folder / "base")

    @property
    def old(self) -> range:
        """Tasks of the base."""
        return range(self.params.old_tasks)

    @property
    def new(self) -> range:
        """The two new tasks."""
        return range(self.params.old_tasks, self.params.old_tasks + 2)

    @cached_property
    def maskable(self) -> list[str]:
        """Names of the matrices, the tied embedding once; norms are frozen."""
        return [name for name, tensor in self.start.items() if tensor.ndim >= 2]

    # Training.

    def train_base(self) -> None:
        """The base as a checkpoint folder; then its norms stand still."""
        params = self.params
        self._tell("training the base")
        plan = training.Schedule(params.base_steps, params.base_batch, params.base_rate, params.base_optimizer)
        shown = self.lookup.partly(params.known, self.new, self.seed)
        tasks = [task for task in (*self.old, *self.new) if shown.shown[task]]
        training.train(self.model, lambda n, stream: shown.batch(tasks, n, stream), plan, seed_of(self.seed, "base"))
        training.save_weights(self.model, training.weights_of(self.model), self.folder / "base")
        self._score("base", "base", "base", "", [*self.old, *self.new], {})
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self.maskable)

    def dense(self, arm: str, steps: int) -> Vectors:
        """Full fine-tunings of the new tasks, from the base."""
        plan = training.Schedule(steps, self.params.batch, self.params.rate)
        return [self._tuned(arm, task, plan, None, {}) for task in self.new]

    def sparse(self, arm: str, masks: Sequence[Mapping[str, torch.Tensor]], density: float) -> Vectors:
        """Fine-tunings of the new tasks from the base, of the masks' entries alone."""
        plan = training.Schedule(self.params.sparse_steps, self.params.batch, self.params.sparse_rate)
        return [self._tuned(arm, task, plan, mask, {"density": density}) for task, mask in zip(self.new, masks, strict=True)]

    def _tuned(
        self,
        arm: str,
        task: int,
        plan: training.Schedule,
        mask: Mapping[str, torch.Tensor] | None,
        extra: Mapping[str, Any],
    ) -> dict[str, torch.Tensor]:
        """Rewind everything, train, score; the difference. The phases draw different rows of the same task."""
        self._tell(f"training {arm}, task {task}")
        training.set_weights(self.model, self.start)
        seed = seed_of(self.seed, "tune", task, "full" if mask is None else "sparse")
        training.train(self.model, lambda n, stream: self.lookup.batch([task], n, stream), plan, seed, mask)
        tuned = training.weights_of(self.model)
        moved = training.distance(tuned, self.start)
        self._score("alone", arm, "full" if mask is None else "sparse", str(task), [task, *self.old], {**extra, "moved": moved})
        return {name: tensor - self.start[name] for name, tensor in tuned.items()}

    def _tell(self, note: str) -> None:
        points = len({self.params.density, *self.params.sweep})
        self.progress(self.trained, 5 + 4 * points, note)
        self.trained += 1

    # Masks.

    def selected(self, vector: Mapping[str, torch.Tensor], density: float) -> dict[str, torch.Tensor]:
        """The mask of the largest changes over all maskable matrices together."""
        return top({name: vector[name].abs() for name in self.maskable}, density)

    def drawn(self, task: int, density: float) -> dict[str, torch.Tensor]:
        """A mask of as many entries at random."""
        import torch

        stream = training.generator(self.seed, "random mask", task, density)
        return top({name: torch.rand(self.start[name].shape, generator=stream) for name in self.maskable}, density)

    # Composing and scoring.

    def compose(self, arm: str, vectors: Vectors, density: float | None) -> dict[str, float]:
        """Add both differences to the base and score the sum."""
        method, setting = (task_arithmetic, {"alpha": 1.0}) if density is None else (sparse_compose, {})
        experts = {}
        for task, vector in zip(self.new, vectors, strict=True):
            tuned = {name: tensor + vector[name] for name, tensor in self.start.items()}
            experts[f"task_{task:03d}"] = training.save_weights(self.model, tuned, self.folder / "tuned" / f"task_{task:03d}")
        weights, _ = self.bench.merge(method, setting, experts)
        training.set_weights(self.model, weights)
        extra = {**setting, "density": density, "moved": training.distance(weights, self.start)}
        subset = "+".join(map(str, self.new))
        values = self._score("composed", arm, method.__name__.rpartition(".")[2], subset, [*self.new, *self.old], extra)
        return {"new": mean([values[task] for task in self.new]), "old": mean([values[task] for task in self.old])}

    def _score(
        self, part: str, arm: str, method: str, subset: str, problems: Sequence[int], extra: Mapping[str, Any]
    ) -> dict[int, float]:
        """Score the model as it stands on tasks, add the rows; task -> accuracy."""
        values = {}
        for task in problems:
            said = score(self.model, self.lookup.batch([task], self.params.test_rows, training.generator(self.seed, "rows", task)))
            values[task] = said.accuracy
            self.rows.append(
                {
                    "part": part,
                    "arm": arm,
                    "method": method,
                    "n_tasks": len(subset.split("+")) if subset else 0,
                    "subset": subset,
                    "task": str(task),
                    "split": "test",
                    "metric": "accuracy",
                    "value": said.accuracy,
                    "n": said.n,
                    **extra,
                }
            )
        return values

    # What a person sees.

    def _own(self, arm: str, density: float | None) -> list[float]:
        """Accuracy of an arm's fine-tuned models on their own tasks."""
        return [
            row["value"]
            for row in self.rows
            if (row["part"], row["arm"], row.get("density")) == ("alone", arm, density) and row["task"] == row["subset"]
        ]

    def sound(self) -> dict[str, bool]:
        """Whether base and fine-tunings are well trained."""
        base = [row["value"] for row in self.rows if row["part"] == "base" and int(row["task"]) in self.old]
        return {
            f"the base reaches {GOOD} on its tasks": mean(base) >= GOOD,
            f"dense fine-tunings reach {GOOD} alone": min(self._own("dense", None)) >= GOOD,
            f"LT-SFT reaches {GOOD} alone": min(self._own("lt_sft", self.params.density)) >= GOOD,
        }

    def figures(self) -> dict[str, Any]:
        """Sizes, and accuracies of the fine-tuned models by themselves."""
        entries = sum(self.start[name].numel() for name in self.maskable)
        return {
            "parameters": training.parameter_count(self.model),
            "maskable": entries,
            "selected": round(self.params.density * entries),
            "alone": {
                "dense": self._own("dense", None),
                "dense_long": self._own("dense_long", None),
                "lt_sft": self._own("lt_sft", self.params.density),
                "random_mask": self._own("random_mask", self.params.density),
            },
            "overlap": self.overlap,
        }


def top(worth: Mapping[str, torch.Tensor], density: float) -> dict[str, torch.Tensor]:
    """0/1 masks of the round(density x entries) largest values of all tensors together; of equal ones the first, by name and place."""
    import torch

    names = sorted(worth)
    flat = torch.cat([worth[name].flatten() for name in names])
    mask = torch.zeros_like(flat)
    mask[torch.argsort(flat, descending=True, stable=True)[: round(density * len(flat))]] = 1
    parts = mask.split([worth[name].numel() for name in names])
    return {name: part.view_as(worth[name]) for name, part in zip(names, parts, strict=True)}


def overlap(vectors: Vectors) -> dict[str, float]:
    """Of two differences: the share of the smaller support that both have, and of that the share in which they differ in sign."""
    first, second = vectors
    shared = against = 0
    sizes = [0, 0]
    for name, one in first.items():
        both = (one != 0) & (second[name] != 0)
        shared += int(both.sum())
        against += int((both & (one.sign() != second[name].sign())).sum())
        sizes = [sizes[0] + int((one != 0).sum()), sizes[1] + int((second[name] != 0).sum())]
    return {"support_overlap": shared / max(1, min(sizes)), "sign_conflict": against / max(1, shared)}
