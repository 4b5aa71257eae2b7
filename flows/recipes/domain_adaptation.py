"""Domain adaptation in miniature: does slerp of a domain model with the instruct model serve better than both on the worse axis?

Paper: "Fine-tuning large language models for domain adaptation: exploration of training strategies, scaling, model merging and
synergistic capabilities", https://arxiv.org/abs/2409.03444.

The chain: a base learns general facts from plain text; the instruct model is fine-tuned from it on questions about most of them, in a
fixed reply format; continued pre-training (CPT) on plain text about the domain's facts, from the instruct model and from the base,
gives the two domain models. Each is merged with the instruct model.

Suites: domain, share of the domain's values recalled in plain text; instruct, share of questions about general facts never asked in
training that are answered right from the first token to the last (greedy decoding would give the same); asked, the same for the
domain's facts, which takes both; general, general values recalled in plain text. Metrics of an arm: worst, the minimum of domain and
instruct, each over the better parent's; s_mean and s_max, domain less the parents' mean and less the better parent; and the suites.

Arms: instruct and domain (the parents); better_parent, whichever of them is better in a metric; slerp, linear, slerp_changes (slerp of
the changes from the base), all at the same t, 0 = instruct, 1 = domain; base_domain, base_better_parent, base_slerp, base_linear,
base_slerp_changes: the branch whose CPT started from the base, with `worst` over its own parents.

Parts of the rows: node (a trained model), merge, path (linear merges between the parents, whose losses show a barrier if there is one;
metric loss, nats a scored token); normalized: over the better parent's.

Departures:
1. No preference stage: DPO at the paper's rate moves a model little, and the claim is about CPT and slerp.
2. One t for all tensors. With two layers the paper's anchors are 0 and 1: attention of the first layer from one parent, its MLP from
   the other.
3. CPT and instruction tuning share one peak rate, as the paper's 8 B configs do; it is ours, for a tiny model.
4. Domain facts are tested by recall in other contexts than in training; the domain's question form is in no training text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from flows.recipes import Claim, Control, Measured, Progress
from flows.recipes.ground import facts, training
from flows.recipes.ground.merging import Bench
from flows.recipes.ground.scoring import Score, score
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.merge import linear, slerp

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TITLE = "Fine-tuning for domain adaptation"
PAPER = "https://arxiv.org/abs/2409.03444"
SLUG = "domain_adaptation"

CLAIM = Claim(
    statement="Slerp of the domain model (CPT of the instruct model) with the instruct model beats both parents on the worse of domain "
    "knowledge and instruction following, each normalized by the better parent.",
    metrics=("worst",),
    treatment="slerp",
    baseline="better_parent",
    controls=(
        Control("slerp against averaging", "slerp", "linear", "worst", "higher", must_hold=False),
        Control("slerp of changes against averaging", "slerp_changes", "linear", "worst", "higher", must_hold=False),
        Control("CPT of the instruct model against CPT of the base", "slerp", "base_slerp", "worst", "higher", must_hold=False),
        Control("synergy on the domain's questions", "slerp", "better_parent", "asked", "higher", must_hold=False),
    ),
    direction="higher",
    nullable=True,
)

GOOD = 0.95
"""Score of a trained model on what it was trained for, or unseen questions of the same kind, that counts as well trained; ours."""
LOST = 0.05
"""Share of the instruct score that CPT must cost, for there to be something to repair; ours."""
SUITES = ("domain", "instruct", "asked", "general")


class Params(Base):
    """Sizes and schedules; all are ours, for a CPU, unless said."""

    width: int = Field(224, ge=32, le=1024, description="hidden size, a multiple of 32; 224 gives 1.3 M parameters")
    layers: int = Field(2, ge=2, le=16, description="transformer layers; a reply's value needs two")
    general_facts: int = Field(96, ge=8, le=4096, description="facts of the general corpus")
    domain_facts: int = Field(32, ge=2, le=4096, description="facts of the domain's corpus")
    kinds: int = Field(32, ge=2, le=4096, description="different values")
    unasked: float = Field(0.25, gt=0, lt=1, description="share of the general facts kept out of the questions, for the instruct suite")
    sentences: int = Field(8, ge=1, le=32, description="sentences in a row of plain text")
    batch: int = Field(32, ge=1, le=4096, description="rows a step")
    base_steps: int = Field(200, ge=1, le=100_000, description="optimiser steps of the base")
    base_rate: float = Field(3e-3, gt=0, le=0.1, description="AdamW's peak rate of the base, falling linearly to 0")
    base_optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for the layers' matrices, AdamW for the rest")
    instruct_steps: int = Field(120, ge=1, le=100_000, description="steps of instruction tuning")
    cpt_steps: int = Field(100, ge=1, le=100_000, description="steps of continued pre-training")
    rate: float = Field(1e-3, gt=0, le=0.1, description="peak rate of instruction tuning and of CPT")
    t: float = Field(
        0.5, gt=0, lt=1, description="way from the instruct model (0) to the domain model (1); paper: 0.5 outside its anchors"
    )
    path: list[float] = Field([0.25, 0.5, 0.75], description="further t at which linear merges are scored, for the loss barrier")
    test_rows: int = Field(64, ge=1, le=10_000, description="rows of plain text that are scored")


def check(params: Params) -> None:
    """Raise BadInput for splits without a test fact, and ways that leave 0..1."""
    kept_out = round(params.unasked * params.general_facts)
    if not 0 < kept_out < params.general_facts:
        raise BadInput(
            f"recipe domain_adaptation: unasked = {params.unasked:g} of {params.general_facts} general facts keeps {kept_out} out of "
            "the questions. Allowed: at least one, and not all."
        )
    for t in params.path:
        if not 0 < t < 1:
            raise BadInput(f"recipe domain_adaptation: path holds {t:g}. Allowed: between 0 (instruct) and 1 (domain), both exclusive.")


@dataclass(frozen=True)
class Way:
    """One way to merge two parents: a method of the merge room and its settings at t."""

    name: str
    method: ModuleType
    settings: Mapping[str, Any]


def ways(t: float) -> list[Way]:
    """All compared ways, at one t."""
    return [
        Way("slerp", slerp, {"t": t, "origin": "instruct"}),
        Way("linear", linear, {"weights": {"instruct": 1 - t, "domain": t}}),
        Way("slerp_changes", slerp, {"t": t, "origin": "instruct", "space": "changes"}),
    ]


def measure(seed: int, params: Params, folder: Path, progress: Progress) -> Measured:
    """See `flows.recipes.measure`; checkpoints of some MB each go to `folder`."""
    check(params)
    lab = Lab(seed, params, folder, progress)
    lab.train()
    found, fallback = lab.branch("domain", "")
    others, base_fallback = lab.branch("base_domain", "base_")
    lab.walk("domain")
    return Measured(found | others, lab.rows, lab.sound(), lab.figures(fallback | base_fallback))


@dataclass
class Lab:
    """One seed's models and rows. `train` comes first."""

    seed: int
    params: Params
    folder: Path
    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[str, dict[str, float]] = field(default_factory=dict)
    path: dict[str, dict[str, float]] = field(default_factory=dict)  # t -> suite -> loss
    done: int = 0

    @cached_property
    def facts(self) -> facts.Facts:
        """General facts, then the domain's."""
        import random

        rng = random.Random(seed_of(self.seed, "facts"))
        return facts.draw(self.params.general_facts + self.params.domain_facts, self.params.kinds, rng)

    @property
    def general(self) -> range:
        """Keys of the general corpus; the first of them are never asked in training."""
        return range(self.params.general_facts)

    @property
    def unasked(self) -> range:
        """General keys of the instruct suite."""
        return range(round(self.params.unasked * self.params.general_facts))

    @property
    def domain(self) -> range:
        """Keys of the domain's corpus."""
        return range(self.params.general_facts, len(self.facts.values))

    @cached_property
    def model(self) -> PreTrainedModel:
        """The one model whose weights are exchanged."""
        size = self.params.layers, self.params.width
        return training.tiny_model(self.facts.vocabulary, *size, seed_of(self.seed, "weights"), looks_back=True)

    @cached_property
    def bench(self) -> Bench:
        """Where models are merged."""
        return Bench(self.folder / "base", self.folder / "merges", self.seed)

    @cached_property
    def start(self) -> dict[str, torch.Tensor]:
        """The base's weights, from which every training starts."""
        return training.load_weights(self.folder / "base")

    # Training.

    def train(self) -> None:
        """Base, instruct model, CPT of either, each as a checkpoint folder and a node."""
        params = self.params

        def told(keys: Sequence[int]) -> training.Sample:
            return lambda rows, stream: self.facts.told(keys, rows, params.sentences, stream)

        def asked(rows: int, stream: torch.Generator) -> training.Batch:
            return self.facts.questions(range(len(self.unasked), params.general_facts), rows, stream)

        tune = training.Schedule(params.cpt_steps, params.batch, params.rate)
        base = training.Schedule(params.base_steps, params.batch, params.base_rate, params.base_optimizer)
        self._node("base", "", told(self.general), base)
        self._node("instruct", "base", asked, training.Schedule(params.instruct_steps, params.batch, params.rate))
        self._node("domain", "instruct", told(self.domain), tune)
        self._node("base_domain", "base", told(self.domain), tune)

    def _node(self, name: str, parent: str, sample: training.Sample, plan: training.Schedule) -> None:
        self._tell(f"training {name}")
        if parent:
            training.set_weights(self.model, training.load_weights(self.folder / parent))
        training.train(self.model, sample, plan, seed_of(self.seed, "train", name))
        weights = training.weights_of(self.model)
        training.save_weights(self.model, weights, self.folder / name)
        scores = self._scores()
        self.nodes[name] = _values(scores)
        moved = {"moved": training.distance(weights, self.start)}
        self._add("node", name, f"from {parent or 'random weights'}", [name] if parent else [], scores, {}, moved)

    def _tell(self, note: str) -> None:
        self.progress(self.done, 4 + 2 * len(ways(self.params.t)) + len(self.params.path), note)
        self.done += 1

    # Scoring.

    def _scores(self) -> dict[str, Score]:
        """The model as it stands, on every suite."""
        params = self.params

        def recalled(keys: Sequence[int], name: str) -> Score:
            stream = training.generator(self.seed, "rows", name)
            return score(self.model, self.facts.recalled(keys, params.test_rows, params.sentences, stream))

        return {
            "domain": recalled(self.domain, "domain"),
            "instruct": score(self.model, self.facts.asked(self.unasked)),
            "asked": score(self.model, self.facts.asked(self.domain)),
            "general": recalled(self.general, "general"),
        }

    def _add(
        self,
        part: str,
        arm: str,
        method: str,
        models: Sequence[str],
        scores: Mapping[str, Score],
        best: Mapping[str, float],
        extra: Mapping[str, Any],
    ) -> None:
        """Rows of a model: its value on each suite, over the better parent's where there is one, and its loss."""
        about = {
            "part": part,
            "arm": arm,
            "method": method,
            "n_tasks": len(models),
            "subset": "+".join(models),
            "split": "test",
            **extra,
        }
        for suite, said in scores.items():
            value = _values(scores)[suite]
            parent = best.get(suite, 0.0)
            row = {**about, "task": suite, "n": said.n}
            self.rows.append({**row, "metric": "accuracy", "value": value, "normalized": value / parent if parent else None})
            self.rows.append({**row, "metric": "loss", "value": said.loss})

    # Merging.

    def branch(self, domain: str, prefix: str) -> tuple[dict[str, dict[str, float]], dict[str, float | None]]:
        """Arms of one domain model with the instruct model; and for each way of slerp, the share of tensors where it was lerp."""
        parents = {"instruct": self.nodes["instruct"], domain: self.nodes[domain]}
        best = {suite: max(values[suite] for values in parents.values()) for suite in SUITES}
        found = {name: self._metrics(values, parents, best) for name, values in parents.items()}
        found[f"{prefix}better_parent"] = {metric: max(values[metric] for values in found.values()) for metric in found["instruct"]}
        fallback = {}
        for way in ways(self.params.t):
            scores, figures = self._merged(domain, way, f"{prefix}{way.name}", "merge", self.params.t, best)
            found[f"{prefix}{way.name}"] = self._metrics(_values(scores), parents, best)
            if "slerp_fallback_share" in figures:
                fallback[f"{prefix}{way.name}"] = figures["slerp_fallback_share"]
        if prefix:
            del found["instruct"]  # over the other branch's parents; the claim's own branch has it
        return found, fallback

    def walk(self, domain: str) -> None:
        """Linear merges on the way between the parents."""
        for t in self.params.path:
            way = next(one for one in ways(t) if one.name == "linear")
            scores, _ = self._merged(domain, way, way.name, "path", t, {})
            self.path[f"{t:g}"] = {suite: said.loss for suite, said in scores.items()}

    def _merged(
        self, domain: str, way: Way, arm: str, part: str, t: float, best: Mapping[str, float]
    ) -> tuple[dict[str, Score], dict[str, Any]]:
        self._tell(f"merging {arm}")
        experts = {"instruct": self.folder / "instruct", "domain": self.folder / domain}
        weights, figures = self.bench.merge(way.method, way.settings, experts)
        training.set_weights(self.model, weights)
        scores = self._scores()
        method = way.method.__name__.rpartition(".")[2]
        moved = training.distance(weights, self.start)
        self._add(part, arm, method, ["instruct", domain], scores, best, {"t": t, "moved": moved})
        return scores, figures

    @staticmethod
    def _metrics(
        values: Mapping[str, float], parents: Mapping[str, Mapping[str, float]], best: Mapping[str, float]
    ) -> dict[str, float]:
        """An arm's metrics; a suite on which both parents score 0 counts 0."""

        def over(suite: str) -> float:
            return values[suite] / best[suite] if best[suite] else 0.0

        average = sum(parent["domain"] for parent in parents.values()) / len(parents)
        return {
            "worst": min(over("domain"), over("instruct")),
            "s_mean": values["domain"] - average,
            "s_max": values["domain"] - best["domain"],
            **{suite: values[suite] for suite in SUITES},
        }

    # What a person sees.

    def sound(self) -> dict[str, bool]:
        """Whether the trainings worked, and whether CPT cost what the merge is to bring back."""
        nodes = self.nodes
        return {
            f"the base recalls {GOOD} of the general facts": nodes["base"]["general"] >= GOOD,
            f"the instruct model answers {GOOD} of new questions": nodes["instruct"]["instruct"] >= GOOD,
            f"the domain models recall {GOOD} of the domain": min(nodes[name]["domain"] for name in ("domain", "base_domain")) >= GOOD,
            "CPT of the instruct model lost some of the format": nodes["domain"]["instruct"] < nodes["instruct"]["instruct"] - LOST,
        }

    def figures(self, fallback: Mapping[str, float | None]) -> dict[str, Any]:
        """Sizes, every trained model's scores, the share of tensors where slerp was lerp, losses on the way between the parents."""
        return {
            "parameters": training.parameter_count(self.model),
            "nodes": self.nodes,
            "slerp_fallback_share": dict(fallback),
            "path_losses": self.path,
        }


def _values(scores: Mapping[str, Score]) -> dict[str, float]:
    """The number that stands for each suite: recalled values, or replies that are right as a whole."""
    return {suite: said.exact if suite in ("instruct", "asked") else said.accuracy for suite, said in scores.items()}
