"""Artifacts of a whole road, played and graded in a world of one page, for the report's tests: small, but every file real."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from tasks.contract import rows, schemas, tables
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.evaluate.core.tables import Maker, metrics
from tasks.filter.core.waterfall import Bar, write_bars
from tasks.merge.core.tally import write_report
from tasks.road import ROAD
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tests.flows.shop import Kiosk, Shop

MODELS = {"base": 0.02, "sft": 0.5, "rl_kiosk": 0.62, "rl_shop": 0.68, "merged": 0.74}
"""Model -> how often it does the right thing."""
FAMILIES = ("one_write", "two_writes", "information", "forbidden")
NASTY = '<script>alert(1)</script> & "quotes" \x07 \u202e reversed'


def build(root: Path, users: int = 12, trials: int = 4, steps: int = 40) -> tuple[dict[str, Any], dict[str, Path]]:
    """(summary, folders) of a run over `users` users a world: one problem each, every model `trials` times."""
    worlds = {cls.NAME: World.build(cls, users, 1, f"tests.flows.shop:{cls.__name__}") for cls in (Kiosk, Shop)}
    folders = {name: root / name for name in ROAD.names}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for name, world in worlds.items():
        freeze_world(world, folders["worlds"] / name)
    problems = {name: [_problem(world, user) for user in range(users)] for name, world in worlds.items()}
    said = _evaluate(folders["evaluate"], worlds, problems, trials)
    _data(folders, worlds, problems)
    _curves(folders, steps)
    _merge(folders["merge"] / "report.parquet")
    gates = [
        {"name": "not_below_reference", "passed": True, "figures": {}, "explanation": "fresh problems: +0.20, 95 % above 0"},
        {"name": "no_family_falls", "passed": False, "figures": {}, "explanation": "forbidden fell in shop"},
    ]
    decision = {
        "decision": "refuse",
        "reason": "a family falls: forbidden in shop",
        "candidate": {"model": "merged"},
        "gates": gates,
    }
    (folders["decide"] / "decision.json").write_text(json.dumps(decision))
    return {**summary(folders), **said}, folders


def summary(folders: dict[str, Path]) -> dict[str, Any]:
    methods = {"generate": "apigen_mt", "filter": "rejection_sampling", "merge": "breadcrumbs", "evaluate": "pass_k"}
    figures = {"rl": {"shop": {"tokens_trained": 81234}, "kiosk": {"tokens_trained": 70321}}, "sft": {"tokens": 123456}}
    stages = {
        name: {
            "seconds": 1.5 * 2.2**index % 97,
            "cached": index % 3 == 0,
            "artifact": f"{index:x}f3a9c{'0' * 26}.dir",
            "method": methods.get(name, "none"),
            "figures": figures.get(name, {"rows": index}),
        }
        for index, name in enumerate(folders)
    }
    promotion = {"decision": "refuse", "reason": "a family falls: forbidden in shop", "version": None, "alias": None}
    return {
        "profile": "test",
        "run": "0123456789",
        "experiment": False,
        "seconds": 123.4,
        "stages": stages,
        "promotion": promotion,
    }


# --- conversations ---------------------------------------------------------------------------------------------------


def _problem(world: World, user: int) -> Problem:
    first, second = f"W{1000 + 2 * user}", f"W{1001 + 2 * user}"
    family = "forbidden" if user % 4 == 3 else FAMILIES[user % 3]
    cancels = {"one_write": [first], "two_writes": [first, second]}.get(family, [])
    actions = [Action("cancel_order", {"order_id": order}, "write") for order in cancels]
    actions += [Action("hand_over", {"why": "delivered"}, "end")] if family == "forbidden" else []
    total = world.shared.base.tables["orders"][first]["total"]
    return Problem(
        problem_id=f"{world.name}_{user:04d}",
        world=world.name,
        split="test",
        family=family,
        lineage=(f"u{user}",),
        persona="plain",
        instruction=f"About order {first}.",
        intent={},
        actions=(Action("get_order", {"order_id": first}), *actions),
        outputs=(f"{total:g}",) if family == "information" else (),
        required=tuple(action for action in actions if action.kind == "end"),
        tags=("unseen_user",) if user % 2 else ("unseen_user", "unseen_phrasing"),
    )


def _play(world: World, problem: Problem, right: bool, agent: str, trial: int) -> Trajectory:
    """One conversation: the right calls, or the first of them with another order."""
    played = Trajectory(problem, trial, agent=agent, human="scripted-human", stop="user_stop")
    fork = world.fork()
    order = problem.actions[0].arguments["order_id"]
    ask = {"information": f"What did order {order} cost me?", "forbidden": f"My order {order} is broken, cancel it!"}
    opening = ask.get(problem.family, f"Hello, I changed my mind, please cancel order {order}.")
    played.messages.append({"role": "user", "content": opening})
    actions = problem.actions if right else (Action("cancel_order", {"order_id": f"W{1000 + (int(order[1:]) + 3) % 20}"}, "write"),)
    for number, action in enumerate(actions):
        result: ToolResult = fork.call(action.name, action.arguments)
        function = {"name": action.name, "arguments": action.arguments}
        call = {"id": f"c{number}", "type": "function", "function": function}
        played.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        played.messages.append({"role": "tool", "tool_call_id": f"c{number}", "name": action.name, "content": result.content})
        played.calls.append((action, result))
    answer = f"It is done: {', '.join(problem.outputs) or 'anything else?'}" if right else f"Done! {NASTY}"
    played.messages.append({"role": "assistant", "content": answer})
    played.turns = [{"prompt_ids": [1, 2], "ids": [3, 4, 5], "logprobs": [-0.1, -0.2, -0.3]}] * (agent in MODELS)
    played.outcome = world.grade(played, fork)
    return played


def _trials(worlds: dict[str, World], problems: dict[str, list[Problem]], trials: int) -> Iterator[dict[str, Any]]:
    rng = Random(1)
    for model, rate in MODELS.items():
        for name, world in worlds.items():
            for problem in problems[name]:
                for trial in range(trials):
                    played = _play(world, problem, rng.random() < rate, model, trial)
                    yield {"model": model, "set": "test", **rows.trajectory_row(played)}
    for name, world in worlds.items():
        for problem in problems[name]:
            for agent, right in (("oracle", True), ("do_nothing", False), ("constant", False)):
                yield {"model": agent, "set": "baseline", **rows.trajectory_row(_play(world, problem, right, agent, 0))}
            for model in ("merged", "base"):
                yield {"model": model, "set": "gate", **rows.trajectory_row(_play(world, problem, model == "merged", model, 0))}


def _evaluate(folder: Path, worlds: dict[str, World], problems: dict[str, list[Problem]], trials: int) -> dict[str, Any]:
    table = list(_trials(worlds, problems, trials))
    tables.write_rows(folder / "trials.parquet", schemas.TRIAL, table)
    writes = dict.fromkeys(worlds, ("one_write", "two_writes"))
    said = metrics(table, list(MODELS), "merged", writes, "base", Maker(1, 200))
    (folder / "metrics.json").write_text(json.dumps(said))
    return said


def _data(folders: dict[str, Path], worlds: dict[str, World], problems: dict[str, list[Problem]]) -> None:
    """Blueprints, trajectories, critiques, pairs, dataset and waterfall; every fifth conversation won is refused for policy."""
    rng = Random(2)
    refusals = {"failed_format": "format: no tool is called 'x'", "failed_policy": "policy R1: order W1003 is delivered"}
    blueprints, played = [], []
    for name, world in worlds.items():
        for index, test_problem in enumerate(problems[name]):
            problem = replace(test_problem, problem_id=f"train_{test_problem.problem_id}", split="train")
            for attempt in range(index % 3):
                status = list(refusals)[attempt % 2]
                blueprints.append(_blueprint(problem, attempt, status, refusals[status]))
            blueprints.append(_blueprint(problem, index % 3, "accepted", ""))
            played += [rows.trajectory_row(_play(world, problem, rng.random() < 0.7, "scripted-agent", trial)) for trial in range(2)]
    tables.write_rows(folders["generate"] / "blueprints.parquet", schemas.BLUEPRINT, blueprints)
    tables.write_rows(folders["generate"] / "trajectories.parquet", schemas.TRAJECTORY, played)
    tables.write_rows(folders["reserve"] / "blueprints.parquet", schemas.BLUEPRINT, [])
    critiques = [_critique(row, number) for number, row in enumerate(played)]
    tables.write_rows(folders["critique"] / "critiques.parquet", schemas.CRITIQUE, critiques)
    pairs = [
        {"pair_id": str(i), "traj_id": row["traj_id"], "kept": i % 3 > 0, "drop_reason": "" if i % 3 else "tie"}
        for i, row in enumerate(played)
    ]
    tables.write_rows(folders["critique"] / "preferences.parquet", schemas.PREFERENCE, pairs)
    reasons = ["failed_state" if not row["reward"] else "policy" if i % 5 == 0 else "" for i, row in enumerate(played)]
    dataset = [
        {**row, "split": "train", "keep": not why, "score": 0.5, "reason": why, "weight": 1.0}
        for row, why in zip(played, reasons, strict=True)
    ]
    tables.write_rows(folders["filter"] / "dataset.parquet", schemas.DATASET, dataset)
    lost, policy = reasons.count("failed_state"), reasons.count("policy")
    bars = [Bar("all", "", len(played), 0), Bar("verifier", "failed_state", len(played) - lost, lost)]
    write_bars(folders["filter"] / "waterfall.csv", [*bars, Bar("policy", "policy", len(played) - lost - policy, policy)])


def _blueprint(problem: Problem, attempt: int, status: str, why: str) -> dict[str, Any]:
    return {
        **rows.problem_row(problem),
        "attempt": attempt,
        "status": status,
        "fail_reason": why,
        "generator": "scripted-generator@wrong_id=0.1",
    }


def _critique(row: dict[str, Any], number: int) -> dict[str, Any]:
    score = 0.9 - 0.01 * (number % 7) if row["reward"] else 0.3
    return {
        "critique_id": str(number),
        "traj_id": row["traj_id"],
        "world": row["world"],
        "source": "aggregate",
        "n_units": 2 - row["reward"],
        "score": score,
    }


# --- trainings and the merge -------------------------------------------------------------------------------------------


def _curves(folders: dict[str, Path], steps: int) -> None:
    rng = Random(3)
    decay = [(step, 7.6 * math.exp(-step / 9) + 0.1 * rng.random() + 0.05) for step in range(1, steps + 1)]
    _csv(folders["base"] / "curves.csv", ("step", "loss"), decay)
    lines = [(step, f"{loss / 4:.4f}", f"{loss / 3.6:.4f}" if step % 8 == 0 else "") for step, loss in decay]
    _csv(folders["sft"] / "curves.csv", ("step", "loss", "validation_loss"), lines)
    for world in ("kiosk", "shop"):
        header = ("step", "outcome", "reward", "entropy", "live_groups", "dropped_groups", "left_out", "tokens", "validation")
        (folders["rl"] / world).mkdir()
        table: list[tuple[Any, ...]] = [(0, *[""] * 7, 0.5)]
        for step in range(1, steps + 1):
            reward = min(1.0, max(0.0, 0.5 + 0.2 * step / steps + rng.gauss(0, 0.09)))
            validation = f"{0.5 + 0.2 * step / steps + rng.gauss(0, 0.02):.3f}" if step % 10 == 0 else ""
            entropy = 0.6 * math.exp(-step / steps) + rng.gauss(0, 0.02)
            table.append((step, reward, reward, entropy, 6 + step % 3, 2, 0, 900 + 10 * step, validation))
        _csv(folders["rl"] / world / "curves.csv", header, table)


def _merge(path: Path) -> None:
    rng = Random(4)
    kinds = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{i}.{kind}.weight" for i in range(2) for kind in kinds),
        "model.norm.weight",
    ]
    lines = []
    for name in names:
        conflict = rng.random() * 0.4
        for model in ("rl_kiosk", "rl_shop"):
            norm = 0.2 + rng.random()
            counts = {"numel": 16384, "changed_n": 16000, "kept_n": 1638, "trimmed_n": 163}
            norms = {"weight": 1.0, "base_l2": 9.0, "delta_l2": norm, "masked_l2": norm * 0.8, "thr_lo": 1e-5, "thr_hi": 1e-3}
            shared = {"mean_pairwise_cos": 0.12, "sign_conflict_frac": conflict}
            lines.append({"tensor": name, "model": model, **counts, **norms, **shared})
    write_report(path, lines)


def _csv(path: Path, header: tuple[str, ...], lines: list[Any]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *lines])
