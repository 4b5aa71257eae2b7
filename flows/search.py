"""`cairn search`: better params for the merge, found on validation problems; kept only if they win on fresh ones.

Each trial is the merge stage under other params and an evaluation of its model on the validation split; both are cached like any
stage, so a killed search goes on and a second one costs nothing. All trials play the same problems with the same noise. The best of
them then meets the present setting on validation problems that no trial has seen: it is written into params/pipeline.yaml only if the
paired 95 % interval lies above 0. Test problems are never looked at.

Samplers: every combination of a grid, or CMA-ES (Hansen, arXiv 1604.00772, by the package `cmaes`), which adapts a normal
distribution to the ranks of its trials.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prefect import flow, task
from pydantic import BaseModel, ConfigDict, Field

from flows.interrupt import stopping
from flows.model_checks import Asking, write_down
from flows.run import Run
from flows.survey import survey
from tasks.contract.params import BadInput, nearest, read_yaml, validate
from tasks.engine.artifact import Artifact
from tasks.engine.cached import STAGE, key, take
from tasks.engine.dotted import overlay
from tasks.engine.job import Job, job_of
from tasks.engine.key import Key
from tasks.engine.locks import lock
from tasks.engine.param_files import PIPELINE
from tasks.engine.plan import Plan
from tasks.engine.produce import work_out
from tasks.engine.running import own_process
from tasks.engine.settings import Settings
from tasks.engine.shared_params import NOBODY
from tasks.engine.together import planned
from tasks.road import ROAD
from tasks.worlds import UNSEEN

MERGE = ROAD.entering("merge")[0]
"""The step whose params are searched."""
SCORE = next(name for name in ROAD.entering("evaluate") if MERGE in ROAD[name].inputs)
"""The step that scores a merge."""
METHOD = "pass_k"
"""The evaluation that a search understands."""


class Range(BaseModel):
    """A param between two values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float


class Search(BaseModel):
    """What params/search.yaml may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampler: Literal["cmaes", "grid"] = "cmaes"
    space: dict[str, Range | list[Any]] = Field(min_length=1, description="param of the merge method -> range or list")
    trials: int = Field(16, ge=1, le=10_000, description="merges tried by cmaes")
    problems: int = Field(60, ge=1, le=10_000, description="validation problems per world that every merge plays")
    repeats: int = Field(2, ge=1, le=64, description="conversations per problem")
    final_problems: int = Field(150, ge=1, le=10_000, description="fresh validation problems per world for the last comparison")
    final_repeats: int = Field(4, ge=1, le=64, description="conversations per problem there")


Point = Mapping[str, Any]
"""Param of the merge method -> value."""


@dataclass(frozen=True)
class Trial:
    """One merge that was tried. score: mean pass^1 over all validation problems of all worlds."""

    point: Point
    merged: Artifact
    score: float
    low: float
    high: float


def read_search(path: Path) -> Search:
    """The checked search file; BadInput says what is wrong."""
    given = read_yaml(path, lenient=True)
    if not isinstance(given, dict):
        raise BadInput(f"{path}: expected a mapping with the keys {', '.join(Search.model_fields)}")
    search = validate(Search, given, str(path))
    for name, values in search.space.items():
        if search.sampler == "grid" and (isinstance(values, Range) or not values):
            raise BadInput(f"{path}: space.{name}: a grid needs a list of values, for example [0.1, 0.2, 0.4]")
        if search.sampler == "cmaes" and (not isinstance(values, Range) or values.low >= values.high):
            raise BadInput(f"{path}: space.{name}: cmaes needs a range, for example {{low: 0.1, high: 0.9}}")
    if search.sampler == "cmaes" and len(search.space) < 2:
        raise BadInput(f"{path}: cmaes needs two params or more; for one take `sampler: grid`")
    return search


def points(search: Search, seed: int, score_of: Callable[[Point], float]) -> Iterator[Point]:
    """The points to try, in order. `score_of` gives the score of a point that was handed out before."""
    names = list(search.space)
    if search.sampler == "grid":
        yield from (dict(zip(names, values, strict=True)) for values in itertools.product(*search.space.values()))
        return
    from cmaes import CMA

    ranges = [one for one in search.space.values() if isinstance(one, Range)]
    bounds = np.array([[one.low, one.high] for one in ranges])
    width = bounds[:, 1] - bounds[:, 0]
    # In units of the ranges; a start in the middle and a sixth of the range as step are the usual advice (Hansen, appendix A).
    sampler = CMA(mean=np.full(len(names), 0.5), sigma=1 / 6, bounds=np.tile([0.0, 1.0], (len(names), 1)), seed=seed)
    done = 0
    while done < search.trials:
        generation = []
        for _ in range(min(sampler.population_size, search.trials - done)):
            place = sampler.ask()
            point = {name: round(float(value), 4) for name, value in zip(names, bounds[:, 0] + place * width, strict=True)}
            yield point
            generation.append((place, -score_of(point)))
            done += 1
        if len(generation) == sampler.population_size:
            sampler.tell(generation)


@flow(name="cairn search", flow_run_name="search: merge", validate_parameters=False)
def search_merge(search: Search, write: bool = True) -> dict[str, Any]:
    """Try the space; returns the trials, the last comparison and whether the winner was written into the workspace's params."""
    with stopping(), Run.open() as run:
        plan = run.plan
        inputs = _inputs(plan)
        tried: dict[str, Trial] = {}

        def score_of(point: Point) -> float:
            return tried[str(point)].score

        for number, point in enumerate(points(search, plan.settings.shared.seed, score_of), 1):
            if str(point) not in tried:
                tried[str(point)] = _try(plan, inputs, point, search)
            one = tried[str(point)]
            said = ", ".join(f"{name} {value}" for name, value in point.items())
            plan.watch("search", "progress", {"done": number, "total": _count(search), "note": "merges tried"})
            plan.watch("search", "note", {"note": f"{number}: {said}: pass^1 {one.score:.3f} [{one.low:.3f}, {one.high:.3f}]"})
        best = max(tried.values(), key=lambda one: one.score)
        last = _compare(plan, inputs, best, search)
        better = bool(last and last["low"] > 0)
        if better and write:
            _write(plan.settings, best.point)
        _report(plan, list(tried.values()))
        return {"best": dict(best.point), "score": best.score, "trials": len(tried), "difference": last, "written": better and write}


def _count(search: Search) -> int:
    """How many points there are to try."""
    grid = math.prod(len(values) for values in search.space.values() if isinstance(values, list))
    return grid if search.sampler == "grid" else search.trials


def outcome_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `search_merge` returned, for a person."""
    best = ", ".join(f"{name} {value}" for name, value in found["best"].items())
    yield f"\nbest of {found['trials']}: {best}"
    yield f"pass^1 {found['score']:.3f} on the validation problems of the search; all trials: reports/search_merge.csv"
    gap = found["difference"]
    if gap is None:
        yield "That is the present setting."
        return
    yield f"on fresh ones, against the present setting: {gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
    yield "written into params/pipeline.yaml" if found["written"] else "params/pipeline.yaml stays as it is"


def _inputs(plan: Plan) -> dict[str, str]:
    """Identities of what merge and evaluate read; the road up to rl must have been run."""
    steps, road = {step.stage: step for step in survey(plan)}, plan.settings.road
    needed = [name for name in road.names if name in (*road[MERGE].inputs, *road[SCORE].inputs) and name != MERGE]
    if lacking := [stage for stage in needed if steps[stage].artifact is None]:
        raise BadInput(f"stage {lacking[0]!r} is not cached; `cairn run --to {needed[-1]}` makes what a search of the merge needs")
    if plan.settings.method(SCORE) != METHOD:
        raise BadInput(f"a search scores by {SCORE}.method: {METHOD}, not by {plan.settings.method(SCORE)!r}")
    return {stage: step.artifact.identity for stage, step in steps.items() if step.artifact is not None}


def _under(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The same plan with other params; an experiment, so that it leaves the workspace alone."""
    tree = plan.settings.tree
    for dotted, value in values.items():
        tree = overlay(tree, dotted, value)
    settings = Settings(plan.settings.project, tree, plan.settings.source, road=plan.settings.road)
    return Plan.open(settings, plan.store.state, whole=False, experiment=True, watch=plan.watch)


def _merge(plan: Plan, inputs: Mapping[str, str]) -> Artifact:
    return take(job_of(plan, MERGE, {stage: inputs[stage] for stage in plan.stages[MERGE].inputs}))[0]


def _try(plan: Plan, inputs: Mapping[str, str], point: Point, search: Search) -> Trial:
    merged = _merge(_under(plan, _dotted(plan, point)), inputs)
    sizes = {"problems": search.problems, "trials": search.repeats, "gate_problems": 0}
    said = _play(plan, inputs, {"merged": merged}, "merged", sizes)["overall"]["merged"]["pass_1"]
    return Trial(point, merged, said["mean"], said["low"], said["high"])


def _dotted(plan: Plan, point: Point) -> dict[str, Any]:
    method = plan.settings.method(MERGE)
    return {f"{MERGE}.{method}.{name}": value for name, value in point.items()}


def _compare(plan: Plan, inputs: Mapping[str, str], best: Trial, search: Search) -> dict[str, Any] | None:
    """The best trial minus the present setting on fresh validation problems, paired; None when they are the same model."""
    now = _merge(plan, inputs)
    if now.identity == best.merged.identity:
        return None
    sizes = {"problems": search.problems, "gate_problems": search.final_problems, "trials": search.final_repeats}
    gate = _play(plan, inputs, {"now": now, "best": best.merged}, "best", sizes)["gate"]
    found: dict[str, Any] = gate["overall"]["paired"]["pass_1"]
    return found


def _scoring(plan: Plan, inputs: Mapping[str, str], models: Mapping[str, Artifact], candidate: str) -> tuple[Job, Key]:
    """The evaluation of these models: its job, and the key of its result."""
    job = job_of(
        plan, SCORE, {stage: inputs.get(stage, "") for stage in plan.stages[SCORE].inputs} | {MERGE: models[candidate].identity}
    )
    # What it depends on is the evaluation's own key, with these models in place of the road's; no champion is met.
    identities = {name: artifact.identity for name, artifact in models.items()}
    own = {name: part for name, part in job.key.parts.items() if name not in ("opponent", "anchor", "used")}
    worlds = plan.settings.road.input(SCORE, "worlds")
    seen = plan.store.without(inputs[worlds], UNSEEN)  # a merge is chosen by what training may see
    proven = {name: inputs[name] for name in _proving(plan.settings)}
    return job, Key({**own, "inputs": {worlds: seen, **proven, **identities}, "unit": "validation"})


def _proving(settings: Settings) -> list[str]:
    """The step that has proven the validation problems of worlds that draw none; [] where all draw theirs."""
    made = [name for name in settings.road.entering("generate") if name not in settings.road.held_out]
    return made[:1] if planned(settings)[SCORE].proven else []


def _play(
    plan: Plan, inputs: Mapping[str, str], models: Mapping[str, Artifact], candidate: str, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """metrics.json of the validation split for these models; cached."""
    values: dict[str, Any] = {f"{SCORE}.{METHOD}.{name}": value for name, value in {**sizes, "split": "validation"}.items()}
    values["roles.contender"] = {"backend": NOBODY}  # a search compares merges alone
    job, unit = _scoring(_under(plan, values), inputs, models, candidate)
    if plan.store.find(unit) is None:  # whoever plays the human at a server is part of the key
        job, unit = _scoring(write_down(Asking().before(job.plan, [SCORE])), inputs, models, candidate)
    artifact = Artifact(**score_models(job, unit, candidate))
    metrics: dict[str, Any] = json.loads((plan.store.view(artifact.identity) / "metrics.json").read_text())
    return metrics


@task(name="score", task_run_name="score: {candidate}", cache_key_fn=key, **STAGE)
def _score(job: Job, unit: Key, candidate: str) -> dict[str, str]:
    """Play the validation problems with the models that the unit names."""
    store = job.plan.store
    with lock(store.state, f"key-{unit.digest[:32]}"):
        if found := store.find(unit):
            return asdict(found)
        worlds, proving = job.plan.settings.road.input(job.stage, "worlds"), _proving(job.plan.settings)
        named = {name: identity for name, identity in unit.parts["inputs"].items() if name not in (worlds, *proving)}

        def work(out: Path, scratch: Path) -> dict[str, Any]:
            inputs = {
                "worlds": job.read(unit.parts["inputs"][worlds]),
                "models": {name: job.read(identity) / "model" for name, identity in named.items()},
                "candidate": candidate,
                "candidate_id": named[candidate],
                "champion": None,
                "reserve": next((job.read(unit.parts["inputs"][name]) for name in proving), None),
            }
            return own_process(job, out, scratch, inputs, "validation")

        figures, identity = work_out(job, unit, work)
        done = store.record(unit, identity, {"figures": {"overall": figures["overall"]}, "read": sorted(job.opened)})
    return asdict(done)


def score_models(job: Job, unit: Key, candidate: str) -> dict[str, str]:
    """Prefect's record of a score counts only while the store has its bytes."""
    there = job.plan.store.find(unit) is not None
    answer: dict[str, str] = _score.with_options(refresh_cache=not there)(job, unit, candidate)
    return answer


def _write(settings: Settings, point: Point) -> None:
    """Put the winner into params/pipeline.yaml, with its comments left as they are."""
    from ruamel.yaml import YAML

    path = settings.project / PIPELINE
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    tree = yaml.load(path.read_text(encoding="utf-8"))
    below = tree[MERGE].setdefault(settings.method(MERGE), {})
    for name, value in point.items():
        *way, last = name.split(".")
        place = below
        for part in way:
            place = place.setdefault(part, {})
        place[last] = value
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def _report(plan: Plan, trials: Sequence[Trial]) -> None:
    """reports/search_merge.csv: every trial, best first."""
    path = plan.settings.project / "reports" / "search_merge.csv"
    path.parent.mkdir(exist_ok=True)
    names = list(trials[0].point)
    with path.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow([*names, "pass_1", "low", "high", "merged"])
        for one in sorted(trials, key=lambda one: -one.score):
            lines.writerow([*one.point.values(), one.score, one.low, one.high, one.merged.identity])


def check_space(settings: Settings, search: Search) -> None:
    """BadInput for a param that the merge method in use does not have."""
    known = settings.params(MERGE).model_dump()
    for name in search.space:
        if name.split(".")[0] not in known:
            method = settings.method(MERGE)
            raise BadInput(f"space.{name}: {MERGE}.{method} has no such param.{nearest(name, known)} Params: {', '.join(known)}.")
