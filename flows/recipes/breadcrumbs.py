"""Model Breadcrumbs in miniature: do settings chosen on merges of two tasks still serve when eight are merged?

Paper: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", https://arxiv.org/abs/2312.06795.

The chain: a base learns a broad mixture of symbol maps, and of each new task (an affine map with a token of its own) a part, as
large models do of what they are fine-tuned on; each new task is fine-tuned from it in full at a low rate; every method's settings are
chosen on merges of two validation tasks, as many settings for each method, and frozen; then subsets of 1, 2, ... all reported tasks are
merged. A value is normalized by the fine-tuned model's own.

Arms: breadcrumbs, task_arithmetic, ties at their frozen settings. base: nothing merged. task_arithmetic_equal_norm: task arithmetic
with the alpha at which the model moves as far as the breadcrumbs merge of the same tasks, because masked task vectors are shorter.
planted_trimmed and planted_untrimmed: every task vector got one outlier step, a few huge entries at random places; breadcrumbs that
trims as large a share as was planted, and task arithmetic, at the same alpha: there, trimming must help.

Metrics, at the largest size: normalized, the mean over the tasks; regret, what choosing the settings anew at that size (on validation
rows of the reported tasks) would have gained on test rows. `figures` has the curves over all sizes.

Parts of the rows: base, finetuned, selection (validation tasks), report, equal_norm, retuned (validation and test rows), planted.

Departures:
1. A tiny causal model and lookup tasks instead of CLIP and images: it has few noise entries and hardly any outliers of its own.
2. Selection tasks are none of the reported ones; the authors select on validation rows of the tasks that they report.
3. Masks per tensor (the paper's text), and TIES trimmed per tensor too.
4. Of each new task the base has seen the images of some symbols (`known`, half). With none, a fine-tuned model does not look at its
   task's token, since nothing it was trained on differs in it: merges of two keep half of each task, merges of eight nothing, whatever
   the method. The papers' vision models know a good part of their tasks beforehand, and their tasks differ in more than a token.
5. A task that fine-tuning did not teach (less than LEARNED above the base) is left out of the subsets and named in the figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from flows.recipes import Claim, Control, Measured, Progress
from flows.recipes.ground import maps, training
from flows.recipes.ground.merging import Bench
from flows.recipes.ground.scoring import mean, score
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.engine import methods
from tasks.merge import breadcrumbs, task_arithmetic, ties

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TITLE = "Model Breadcrumbs"
PAPER = "https://arxiv.org/abs/2312.06795"
SLUG = "breadcrumbs"

CLAIM = Claim(
    statement="With settings selected on merges of 2 tasks and then frozen, breadcrumbs keeps a higher mean normalized accuracy than "
    "task arithmetic when all tasks are merged.",
    metrics=("normalized",),
    treatment="breadcrumbs",
    baseline="task_arithmetic",
    controls=(
        Control("planted outliers", "planted_trimmed", "planted_untrimmed", "normalized", "higher", must_hold=True),
        Control("merging helps", "breadcrumbs", "base", "normalized", "higher", must_hold=False),
        Control("equal norm", "breadcrumbs", "task_arithmetic_equal_norm", "normalized", "higher", must_hold=False),
        Control("against ties", "breadcrumbs", "ties", "normalized", "higher", must_hold=False),
        Control("transfer regret", "breadcrumbs", "task_arithmetic", "regret", "lower", must_hold=False),
    ),
    direction="higher",
    nullable=True,
)

LEARNED = 0.2
"""Accuracy that fine-tuning must add to the base's, for a normalized value to mean something; ours."""
GOOD = 0.95
"""Accuracy of a base on its mixture, and of a fine-tuned model on its task, that counts as well trained; ours."""
SELECTED_AT = 2
"""Tasks in the merges on which settings are chosen; the dossier's, after the paper's few."""


class Params(Base):
    """Sizes and schedules; all are ours, for a CPU, unless said."""

    width: int = Field(224, ge=32, le=1024, description="hidden size, a multiple of 32; 224 gives 1.2 M parameters")
    layers: int = Field(2, ge=1, le=16, description="transformer layers")
    symbols: int = Field(31, ge=5, le=512, description="symbols that maps are over; a prime has the most affine maps")
    pairs: int = Field(8, ge=1, le=64, description="symbols shown in a row, each with its image")
    base_tasks: int = Field(32, ge=2, le=512, description="maps of the base's mixture, half of them affine, half any permutation")
    new_tasks: int = Field(8, ge=2, le=16, description="affine maps that are fine-tuned and reported")
    known: float = Field(0.5, ge=0, lt=1, description="share of a new task's symbols that the base's mixture shows")
    validation_tasks: int = Field(4, ge=2, le=16, description="affine maps that are fine-tuned for the choice of settings alone")
    base_steps: int = Field(200, ge=1, le=100_000, description="optimiser steps of the base")
    base_batch: int = Field(128, ge=1, le=4096, description="rows a step of the base")
    base_rate: float = Field(3e-3, gt=0, le=0.1, description="AdamW's peak rate of the base, falling linearly to 0")
    base_optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for the layers' matrices, AdamW for the rest")
    tune_steps: int = Field(80, ge=1, le=100_000, description="optimiser steps of a fine-tuning")
    tune_batch: int = Field(32, ge=1, le=4096, description="rows a step of a fine-tuning")
    tune_rate: float = Field(1e-4, gt=0, le=0.1, description="peak rate of a fine-tuning, low: task vectors stay small")
    subsets: int = Field(8, ge=1, le=1000, description="subsets of a size that are merged, all if there are fewer; the dossier: 20")
    validation_rows: int = Field(16, ge=1, le=10_000, description="rows a task on which settings are chosen")
    test_rows: int = Field(32, ge=1, le=10_000, description="rows a task that are reported")
    alphas: list[float] = Field([0.25, 0.5, 0.75, 1.0], min_length=1, description="alphas to choose from; authors: 0.01 to 1")
    tails: list[tuple[float, float]] = Field(
        [(0.15, 0.006), (0.5, 0.01), (0.9, 0.01), (0.9, 0.05)],
        min_length=1,
        description="keep and trim_top of breadcrumbs to choose from: the authors' point, and those for tiny models",
    )
    densities: list[float] = Field([0.1, 0.2, 0.5, 0.8], min_length=1, description="keep of TIES to choose from; paper: 0.2")
    planted_share: float = Field(0.005, gt=0, le=0.1, description="share of a tensor's entries that the outlier step hits")
    planted_scale: float = Field(30.0, gt=0, le=1e4, description="size of a planted entry in the tensor's largest own changes")


@dataclass(frozen=True)
class Arm:
    """A method of the merge room and the settings to choose from."""

    name: str
    method: ModuleType
    settings: Sequence[Mapping[str, float]]


def arms(params: Params) -> list[Arm]:
    """The compared methods, each with as many settings: alphas times tails, alphas times densities, and as many alphas."""
    count = len(params.alphas) * len(params.tails)
    low, high = min(params.alphas), max(params.alphas)
    steps = [low + (high - low) * index / max(1, count - 1) for index in range(count)]
    tails = [{"alpha": alpha, "keep": keep, "trim_top": top} for alpha in params.alphas for keep, top in params.tails]
    densities = [{"alpha": alpha, "keep": keep} for alpha in params.alphas for keep in params.densities]
    return [
        Arm("breadcrumbs", breadcrumbs, tails),
        Arm("task_arithmetic", task_arithmetic, [{"alpha": round(alpha, 6)} for alpha in steps]),
        Arm("ties", ties, densities),
    ]


def check(params: Params) -> None:
    """Raise BadInput for grids of different sizes and for settings that a method refuses."""
    if len(params.tails) != len(params.densities):
        raise BadInput(
            f"recipe breadcrumbs: {len(params.tails)} tails and {len(params.densities)} densities: every method must get as many "
            "settings to choose from. Give both lists the same length."
        )
    if len(params.alphas) * len(params.tails) > 1 and len(set(params.alphas)) == 1:
        raise BadInput(f"recipe breadcrumbs: alphas = {params.alphas}: task arithmetic would get one setting. Allowed: at least two.")
    for keep, top in params.tails:
        methods.check(breadcrumbs, _validated(breadcrumbs, {"keep": keep, "trim_top": top}), "recipe breadcrumbs: a setting")
    for arm in arms(params):
        for setting in arm.settings:
            _validated(arm.method, setting)


def _validated(method: ModuleType, setting: Mapping[str, float]) -> Any:
    from tasks.contract.params import validate

    return validate(method.Params, dict(setting), "recipe breadcrumbs: a setting")


def measure(seed: int, params: Params, folder: Path, progress: Progress) -> Measured:
    """See `flows.recipes.measure`; checkpoints of some MB each go to `folder`. BadInput also when too few tasks were learned."""
    check(params)
    lab = Lab(seed, params, folder, progress)
    lab.train()
    chosen = {arm.name: lab.choose(arm) for arm in arms(params)}
    found: dict[str, dict[str, float]] = {}
    curves: dict[str, list[float]] = {}
    for arm in arms(params):
        curves[arm.name] = lab.curve(arm, chosen[arm.name])
        again = lab.regret(arm, chosen[arm.name])
        found[arm.name] = {"normalized": curves[arm.name][-1], "regret": again}
    curves["task_arithmetic_equal_norm"] = lab.equal_norm(chosen)
    found["task_arithmetic_equal_norm"] = {"normalized": curves["task_arithmetic_equal_norm"][-1]}
    found["base"] = {"normalized": lab.untouched()}
    found |= lab.planted(chosen["task_arithmetic"]["alpha"])
    return Measured(found, lab.rows, lab.sound(), {**lab.figures(), "chosen": chosen, "normalized_by_size": curves})


@dataclass
class Lab:
    """One seed's models and rows. `train` comes first."""

    seed: int
    params: Params
    folder: Path
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)
    base_accuracy: list[float] = field(default_factory=list)
    own: dict[int, float] = field(default_factory=dict)  # task -> accuracy of its fine-tuned model
    before: dict[int, float] = field(default_factory=dict)  # task -> accuracy of the base
    merges: int = 0

    @cached_property
    def lookup(self) -> maps.Maps:
        """All tasks: those of the base, then the reported, then the validation tasks."""
        import random

        params, rng = self.params, random.Random(seed_of(self.seed, "maps"))
        any_map = params.base_tasks // 2
        new = params.new_tasks + params.validation_tasks
        lines = maps.affine(params.base_tasks - any_map + new, params.symbols, rng)
        return maps.Maps((*lines[new:], *maps.permutations(any_map, params.symbols, rng), *lines[:new]), params.pairs)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The one model whose weights are exchanged."""
        return training.tiny_model(self.lookup.vocabulary, self.params.layers, self.params.width, seed_of(self.seed, "weights"))

    @cached_property
    def bench(self) -> Bench:
        """Where models are merged."""
        return Bench(self.folder / "base", self.folder / "merges", self.seed)

    @cached_property
    def start(self) -> dict[str, torch.Tensor]:
        """The base's weights, from which every training starts."""
        return training.load_weights(self.folder / "base")

    @property
    def mixture(self) -> range:
        """Tasks of the base."""
        return range(self.params.base_tasks)

    @property
    def new(self) -> range:
        """Reported and validation tasks."""
        return range(self.params.base_tasks, len(self.lookup.tables))

    @property
    def reported(self) -> list[int]:
        """Reported tasks that fine-tuning taught."""
        return [task for task in self.new[: self.params.new_tasks] if self._learned(task)]

    @property
    def validation(self) -> list[int]:
        """Validation tasks that fine-tuning taught."""
        return [task for task in self.new[self.params.new_tasks :] if self._learned(task)]

    def _learned(self, task: int) -> bool:
        return self.own[task] >= self.before[task] + LEARNED

    # Training.

    def train(self) -> None:
        """The base and all fine-tuned models, as checkpoint folders; BadInput when fewer than two tasks of a kind were learned."""
        params = self.params
        plan = training.Schedule(params.base_steps, params.base_batch, params.base_rate, params.base_optimizer)
        self.progress(0, 1 + len(self.new), "training the base")
        shown = self.lookup.partly(params.known, self.new, self.seed)
        tasks = [task for task in (*self.mixture, *self.new) if shown.shown[task]]
        training.train(self.model, self._sampler(shown, tasks), plan, seed_of(self.seed, "base"))
        training.save_weights(self.model, training.weights_of(self.model), self.folder / "base")
        self.base_accuracy = [self._record("base", "base", "base", [], task, "test", {}) for task in self.mixture]
        self.before = {task: self._record("base", "base", "base", [], task, "test", {}) for task in self.new}
        plan = training.Schedule(params.tune_steps, params.tune_batch, params.tune_rate)
        for done, task in enumerate(self.new, 1):
            self.progress(done, 1 + len(self.new), f"training task {task}")
            training.set_weights(self.model, self.start)
            training.train(self.model, self._sampler(self.lookup, [task]), plan, seed_of(self.seed, "tune", task))
            tuned = training.weights_of(self.model)
            training.save_weights(self.model, tuned, self._expert(task))
            extra = {"moved": training.distance(tuned, self.start)}
            self.own[task] = self._record("finetuned", "finetuned", "full", [task], task, "test", extra)
        for kind, tasks in (("new", self.reported), ("validation", self.validation)):
            if len(tasks) < SELECTED_AT:
                raise BadInput(
                    f"recipe breadcrumbs: {len(tasks)} of the {kind} tasks gained {LEARNED} in accuracy by fine-tuning; at least "
                    f"{SELECTED_AT} are needed. Raise tune_steps or tune_rate (now {params.tune_steps}, {params.tune_rate:g})."
                )

    @staticmethod
    def _sampler(source: maps.Maps, tasks: Sequence[int]) -> training.Sample:
        return lambda rows, generator: source.batch(tasks, rows, generator)

    def _expert(self, task: int, kind: str = "tuned") -> Path:
        return self.folder / kind / f"task_{task:03d}"

    # Scoring.

    def _record(
        self, part: str, arm: str, method: str, subset: Sequence[int], task: int, split: str, extra: Mapping[str, Any]
    ) -> float:
        """Score the model as it stands on one task, add the row, return the accuracy."""
        rows = self.params.test_rows if split == "test" else self.params.validation_rows
        said = score(self.model, self.lookup.batch([task], rows, training.generator(self.seed, "rows", split, task)))
        own = self.own.get(task)
        self.rows.append(
            {
                "part": part,
                "arm": arm,
                "method": method,
                "n_tasks": len(subset),
                "subset": "+".join(map(str, subset)),
                "task": str(task),
                "split": split,
                "metric": "accuracy",
                "value": said.accuracy,
                "normalized": said.accuracy / own if own and subset and self._learned(task) else None,
                "n": said.n,
                **extra,
            }
        )
        return said.accuracy

    def _merged(
        self, part: str, arm: Arm, setting: Mapping[str, float], subset: Sequence[int], splits: Sequence[str], kind: str = "tuned"
    ) -> tuple[list[float], float]:
        """Merge a subset and score it on its own tasks: mean normalized accuracy for each split, and how far the model moved."""
        experts = {f"task_{task:03d}": self._expert(task, kind) for task in subset}
        weights, _ = self.bench.merge(arm.method, setting, experts)
        training.set_weights(self.model, weights)
        moved = training.distance(weights, self.start)
        method = arm.method.__name__.rpartition(".")[2]
        extra = {**setting, "selected_at_n": len(subset) if part == "retuned" else SELECTED_AT, "moved": moved}
        means = []
        for split in splits:
            values = [self._record(part, arm.name, method, subset, task, split, extra) / self.own[task] for task in subset]
            means.append(mean(values))
        self.merges += 1
        self.progress(self.merges, self._planned, f"merging: {part} {arm.name}")
        return means, moved

    @cached_property
    def _planned(self) -> int:
        """Merges of a whole seed."""
        settings = sum(len(arm.settings) for arm in arms(self.params))
        pairs = len(list(itertools.combinations(self.validation, SELECTED_AT)))
        reports = sum(len(self._subsets(size)) for size in range(1, len(self.reported) + 1))
        return settings * (pairs + 1) + (len(arms(self.params)) + 1) * reports + 2

    # What is compared.

    def choose(self, arm: Arm) -> Mapping[str, float]:
        """The setting with the highest mean over all pairs of validation tasks; the first of equals."""
        pairs = list(itertools.combinations(self.validation, SELECTED_AT))

        def worth(setting: Mapping[str, float]) -> float:
            return mean([self._merged("selection", arm, setting, pair, ["validation"])[0][0] for pair in pairs])

        return max(arm.settings, key=worth)

    def _subsets(self, size: int) -> list[tuple[int, ...]]:
        """Sampled subsets of the reported tasks, the same for every arm."""
        import random

        every = list(itertools.combinations(self.reported, size))
        rng = random.Random(seed_of(self.seed, "subsets", size))
        return every if len(every) <= self.params.subsets else sorted(rng.sample(every, self.params.subsets))

    def curve(self, arm: Arm, setting: Mapping[str, float]) -> list[float]:
        """Mean normalized accuracy over the subsets of 1, 2, ... all reported tasks, with the frozen setting."""
        sizes = range(1, len(self.reported) + 1)
        return [
            mean([self._merged("report", arm, setting, subset, ["test"])[0][0] for subset in self._subsets(size)]) for size in sizes
        ]

    def regret(self, arm: Arm, carried: Mapping[str, float]) -> float:
        """Test value of the setting chosen anew for the merge of all reported tasks, less that of the one carried over."""
        tried = [self._merged("retuned", arm, setting, self.reported, ["validation", "test"])[0] for setting in arm.settings]
        anew = max(tried, key=lambda one: one[0])
        return anew[1] - tried[list(arm.settings).index(carried)][1]

    def equal_norm(self, chosen: Mapping[str, Mapping[str, float]]) -> list[float]:
        """As `curve`, for task arithmetic scaled to move as far as breadcrumbs does with the same subset."""
        far = self._moves("breadcrumbs")
        own = self._moves("task_arithmetic")
        alpha = chosen["task_arithmetic"]["alpha"]
        arm = Arm("task_arithmetic_equal_norm", task_arithmetic, ())
        values: list[float] = []
        for size in range(1, len(self.reported) + 1):
            scaled = [(subset, alpha * far[subset] / own[subset]) for subset in self._subsets(size)]
            values.append(mean([self._merged("equal_norm", arm, {"alpha": at}, subset, ["test"])[0][0] for subset, at in scaled]))
        return values

    def _moves(self, arm: str) -> dict[tuple[int, ...], float]:
        """Reported subset -> how far an arm's merge moved."""
        rows = [row for row in self.rows if row["part"] == "report" and row["arm"] == arm]
        return {tuple(map(int, row["subset"].split("+"))): row["moved"] for row in rows}

    def untouched(self) -> float:
        """Mean over the reported tasks of the base's accuracy, normalized as a merge's is."""
        return mean([self.before[task] / self.own[task] for task in self.reported])

    def planted(self, alpha: float) -> dict[str, dict[str, float]]:
        """All reported tasks with an outlier step each, merged with and without trimming the top, at one alpha."""
        share = self.params.planted_share
        for task in self.reported:
            tuned = training.load_weights(self._expert(task))
            spoiled = plant(self.start, tuned, share, self.params.planted_scale, training.generator(self.seed, "planted", task))
            training.save_weights(self.model, spoiled, self._expert(task, "planted"))
        trimmed = Arm("planted_trimmed", breadcrumbs, ())
        untrimmed = Arm("planted_untrimmed", task_arithmetic, ())
        setting = {"alpha": alpha, "keep": round(1 - share, 9), "trim_top": share}
        values = {
            arm.name: self._merged("planted", arm, given, self.reported, ["test"], "planted")[0][0]
            for arm, given in ((trimmed, setting), (untrimmed, {"alpha": alpha}))
        }
        return {name: {"normalized": value} for name, value in values.items()}

    # What a person sees.

    def sound(self) -> dict[str, bool]:
        """Whether base and fine-tunings are well trained, as the dossier demands."""
        return {
            f"the base reaches {GOOD} on its mixture": mean(self.base_accuracy) >= GOOD,
            f"every new task was learned, to {GOOD}": min(self.own.values()) >= GOOD and len(self.own) == len(self.new),
        }

    def figures(self) -> dict[str, Any]:
        """Sizes, accuracies of the trainings, and tasks left out."""
        left_out = [task for task in self.new if not self._learned(task)]
        moved = [row["moved"] for row in self.rows if row["part"] == "finetuned"]
        norm = sum(float(tensor.double().square().sum()) for tensor in self.start.values()) ** 0.5
        return {
            "parameters": training.parameter_count(self.model),
            "base_accuracy": mean(self.base_accuracy),
            "finetuned_accuracy": {str(task): value for task, value in self.own.items()},
            "tasks_left_out": left_out,
            "relative_task_vector": mean(moved) / norm,
            "settings_a_method": len(arms(self.params)[0].settings),
            "merges": self.merges,
        }


def plant(
    base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], share: float, scale: float, stream: torch.Generator
) -> dict[str, torch.Tensor]:
    """The fine-tuned weights after one outlier step: in each tensor, floor(share x entries) changes at random places become `scale`
    times the tensor's largest change, with random signs. A tensor with too few entries, or without a change, stays as it is."""
    import torch

    from tasks.merge.core.selection import share as exact

    spoiled = {}
    for name in sorted(tuned):
        change = (tuned[name] - base[name]).flatten()
        count = int(exact(share, change.numel()))
        places = torch.randperm(change.numel(), generator=stream)[:count]
        signs = torch.randint(2, (count,), generator=stream) * 2.0 - 1
        change[places] = signs * scale * change.abs().max()
        spoiled[name] = base[name] + change.view_as(base[name])
    return spoiled
