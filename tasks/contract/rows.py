"""Problems, messages and trajectories as rows of the schemas in `tasks.contract.schemas`, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import GRADING, Outcome, Trajectory


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _action_row(action: Action) -> dict[str, Any]:
    return {"name": action.name, "arguments_json": _dump(action.arguments), "kind": action.kind}


def _action(row: Mapping[str, Any]) -> Action:
    return Action(row["name"], json.loads(row["arguments_json"]), row["kind"])


def problem_row(problem: Problem) -> dict[str, Any]:
    """A problem as a row of PROBLEM."""
    return {
        "problem_id": problem.problem_id,
        "world": problem.world,
        "split": problem.split,
        "family": problem.family,
        "lineage": list(problem.lineage),
        "persona": problem.persona,
        "instruction": problem.instruction,
        "intent_json": _dump(problem.intent),
        "actions": [_action_row(action) for action in problem.actions],
        "outputs": list(problem.outputs),
        "required": [_action_row(action) for action in problem.required],
        "tags": list(problem.tags),
        "n_writes": problem.n_writes,
    }


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The inverse of `problem_row`; also reads rows of BLUEPRINT."""
    return Problem(
        problem_id=row["problem_id"],
        world=row["world"],
        split=row["split"],
        family=row["family"],
        lineage=tuple(row["lineage"]),
        persona=row["persona"],
        instruction=row["instruction"],
        intent=json.loads(row["intent_json"]),
        actions=tuple(_action(item) for item in row["actions"]),
        outputs=tuple(row["outputs"]),
        required=tuple(_action(item) for item in row["required"]),
        tags=tuple(row["tags"]),
    )


def message_row(message: Mapping[str, Any]) -> dict[str, Any]:
    """A chat message as a row: arguments become sorted JSON text."""
    return {
        "role": message["role"],
        "content": message.get("content") or "",
        "tool_calls": [
            {
                "id": call["id"],
                "name": call["function"]["name"],
                "arguments_json": _dump(call["function"]["arguments"]),
            }
            for call in message.get("tool_calls") or ()
        ],
        "tool_call_id": message.get("tool_call_id"),
        "name": message.get("name"),
    }


def message_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `message_row`."""
    message: dict[str, Any] = {"role": row["role"], "content": row["content"]}
    if row["tool_calls"]:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.loads(call["arguments_json"])},
            }
            for call in row["tool_calls"]
        ]
    for key in ("tool_call_id", "name"):
        if row[key] is not None:
            message[key] = row[key]
    return message


def _stem(problem_id: str, agent: str, trial: int) -> str:
    return f"{problem_id}-{agent}-{trial}"


def trajectory_row(played: Trajectory) -> dict[str, Any]:
    """A graded trajectory as a row of TRAJECTORY."""
    outcome = played.outcome
    if outcome is None:
        raise ValueError(f"trajectory of problem {played.problem.problem_id} has not been graded")
    roles = [message["role"] for message in played.messages]
    return {
        "traj_id": "-".join(filter(None, (_stem(played.problem.problem_id, played.agent, played.trial), played.branch))),
        "problem_id": played.problem.problem_id,
        "world": played.problem.world,
        "split": played.problem.split,
        "family": played.problem.family,
        "lineage": list(played.problem.lineage),
        "tags": list(played.problem.tags),
        "trial": played.trial,
        "messages": [message_row(message) for message in played.messages],
        "calls": [{**_action_row(action), "ok": result.ok, "content": result.content} for action, result in played.calls],
        "turns": played.turns,
        "n_user_turns": roles.count("user"),
        "n_tool_calls": len(played.calls),
        "n_agent_steps": roles.count("assistant"),
        "n_tokens": sum(len(turn["ids"]) for turn in played.turns),
        "stop": played.stop,
        **outcome_row(outcome),
        "agent": played.agent,
        "human": played.human,
        "seed": played.seed,
    }


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """The columns of a row that say how its conversation was graded. BadInput for one that was graded by a real number."""
    if outcome.value is not None:
        raise BadInput(
            "conversations with an environment are graded by what they brought, and no row of conversations holds that. "
            "`generate.method: expert_rows` leaves rows of environments, `evaluate.method: episodes` plays them."
        )
    return {
        **{name: getattr(outcome, name) for name in GRADING},
        "broken": list(outcome.broken),
        "reward": outcome.reward,
        "final_state_hash": outcome.final_state_hash,
        "wanted_state_hash": outcome.wanted_state_hash,
        "blame": outcome.blame,
        "blame_reason": outcome.blame_reason,
    }


def trajectory_of(row: Mapping[str, Any], problem: Problem) -> Trajectory:
    """The inverse of `trajectory_row`, given the problem that was played."""
    return Trajectory(
        problem=problem,
        trial=row["trial"],
        messages=[message_of(message) for message in row["messages"]],
        calls=[(_action(call), ToolResult(call["ok"], call["content"])) for call in row["calls"]],
        turns=list(row["turns"]),
        stop=row["stop"],
        outcome=Outcome(
            state=row["state"],
            outputs=row["outputs"],
            required=row["required"],
            policy=row["policy"],
            broken=tuple(row["broken"]),
            final_state_hash=row["final_state_hash"],
            wanted_state_hash=row["wanted_state_hash"],
            blame=row.get("blame") or "",
            blame_reason=row.get("blame_reason") or "",
        ),
        agent=row["agent"],
        human=row["human"],
        seed=row["seed"],
        branch=row["traj_id"].partition(_stem(row["problem_id"], row["agent"], row["trial"]) + "-")[2],
    )
