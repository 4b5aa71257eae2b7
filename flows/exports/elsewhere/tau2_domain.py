"""A world as the data of a domain of tau2-bench: db.json, policy.md, tasks.json, split_tasks.json, and the schemas of its tools.

tau2-bench grades by its database and by what was communicated, which are `state` and `outputs` here; both are exported whole. Its tools
are Python methods over its database, which no data can be: tools.json says which there are, and their code stays to be written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.problem import Problem
from tasks.contract.values import tagged

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

REQUIRED = "required calls: tau2-bench compares all calls or none, so they are not graded there"
FORM = "outputs are compared letter by letter there: 5 is found in 15, and 1,234 is not 1234"


def write_domain(folder: Path, world: World, problems: Sequence[Problem]) -> Counter[str]:
    """Write the domain; how many problems lose what, by reason."""
    tables = {name: {key: tagged(row) for key, row in rows.items()} for name, rows in world.shared.base.tables.items()}
    splits: dict[str, list[str]] = {"train": [], "test": [], "base": []}
    for problem in problems:
        for split in ("test" if problem.split == "test" else "train", "base"):
            splits[split].append(problem.problem_id)
    tools = [{**schema, "kind": world.tools[schema["function"]["name"]].kind} for schema in world.schemas()]
    for name, value in (
        ("db", tables),
        ("tasks", [task_of(world, problem) for problem in problems]),
        ("split_tasks", splits),
        ("tools", tools),
    ):
        (folder / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "policy.md").write_text(world.policy, encoding="utf-8")
    lost = Counter({REQUIRED: sum(bool(problem.required) for problem in problems), FORM: sum(bool(one.outputs) for one in problems)})
    return +lost


def task_of(world: World, problem: Problem) -> dict[str, Any]:
    """A problem as a line of tasks.json."""
    return {
        "id": problem.problem_id,
        "description": {"purpose": problem.family or None, "relevant_policies": None, "notes": None},
        "user_scenario": {
            "persona": problem.persona or None,
            "instructions": {
                "domain": world.name,
                "reason_for_call": problem.instruction,
                "known_info": None,
                "unknown_info": None,
                "task_instructions": "Say what you want and answer what you are asked.",
            },
        },
        "initial_state": None,
        "evaluation_criteria": {
            "actions": [
                {"action_id": f"{problem.problem_id}_{place}", "name": one.name, "arguments": one.arguments, "info": None}
                for place, one in enumerate(problem.actions)
            ],
            "communicate_info": list(problem.outputs),
            "nl_assertions": None,
            "reward_basis": ["DB", "COMMUNICATE"],
        },
    }
