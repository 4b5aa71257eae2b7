"""`cairn world export`: what is written; TRL's folder, which the project's own environment can run, and what needs no framework."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from flows.exports import trl_environment
from flows.exports.elsewhere import conversation, folder, tau2_domain
from tasks.contract.params import BadInput
from tasks.contract.wording import says
from tasks.worlds.library import tau2
from tests.exports import stored
from tests.worlds.players import problems, world

FILES = {
    "verifiers": {"pyproject.toml", "cairn_retail/__init__.py", "cairn_retail/problems.jsonl", "cairn_retail/world/tables.json"},
    "trl": {"environment.py", "problems.jsonl", "world/tables.json"},
    "nemo_gym": {"app.py", "configs/cairn_retail.yaml", "data/train.jsonl", "requirements.txt", "problems.jsonl"},
    "ms_swift": {"plugin.py", "train.jsonl", "problems.jsonl"},
    "tau2": {"db.json", "policy.md", "tasks.json", "split_tasks.json", "tools.json"},
}


def test_every_target_is_a_choice_of_the_command() -> None:
    from flows.cli.world import ELSEWHERE

    assert set(ELSEWHERE) == set(folder.TARGETS) == set(FILES)


@pytest.mark.parametrize("to", sorted(FILES))
def test_what_is_written(to: str, tmp_path: Path) -> None:
    wish = folder.Wish(world("retail"), problems("retail")[:5], 0)
    written = folder.export(wish, to, tmp_path / "out")
    assert {"README.md", *FILES[to]} <= set(written.files)
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert folder.TARGETS[to].made_for in readme and "5 of train" in readme
    with pytest.raises(BadInput, match="not an empty folder"):
        folder.export(wish, to, tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli import main

    words = ["world", "export", "tasks.worlds.library.retail:Retail", str(tmp_path / "out"), "--to", "verifiers", "--problems", "2"]
    assert main(words) == 0
    assert "6 problems for verifiers 0.4.0" in capsys.readouterr().out
    exported = conversation.read(str(tmp_path / "out" / "cairn_retail"))
    assert sorted(one.split for one in exported.problems.values()) == ["test", "test", "train", "train", "validation", "validation"]
    assert main([*words[:4], "--to", "gym"]) == 2 and main(words) == 2


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no problem to export"):
        folder.export(folder.Wish(world("retail"), [], 0), "tau2", tmp_path / "out")
    service = world("retail").fork()
    service.copies = False
    with pytest.raises(BadInput, match="cannot be copied"):
        folder.export(folder.Wish(service, problems("retail")[:1], 0), "verifiers", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stored_conversations_are_played_again(tmp_path: Path) -> None:
    """The user says the same lines, the tools the same answers, and the verdict is the same in every part."""
    exported = conversation.read(str(stored.written("ms_swift", tmp_path)))
    for name, one in stored.stored().items():
        played = exported.begin(name)
        mine = iter(stored.turns(name))
        while not played.stop and played.line():
            while not played.stop:
                turn = next(mine)
                calls = [{"id": call["id"], **call["function"]} for call in turn.get("tool_calls") or ()]
                played.turn(turn["content"], calls)
                if not calls:
                    break
        assert played.stop == one.stop and played.outcome() == one.outcome
        assert [message["content"] for message in played.messages[1:]] == [message["content"] for message in stored.spoken(name)]


def test_trl_gives_the_stored_rewards(tmp_path: Path) -> None:
    out = stored.written("trl", tmp_path)
    spec = importlib.util.spec_from_file_location("exported_for_trl", out / "environment.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for row in module.train_dataset:
        name = json.loads(row["problem"])["problem_id"]
        environment = module.environment_factory()
        environment.reset(**row)
        completion = stored.spoken(name)[1:]
        for call in (call["function"] for message in completion for call in message.get("tool_calls") or ()):
            if hasattr(environment, call["name"]):  # TRL answers calls of other tools itself
                getattr(environment, call["name"])(**call["arguments"])
        found[name] = trl_environment.outcome(environment, [*row["prompt"], *completion]).reward
    assert found == stored.rewards()


def test_tau2s_domain_says_the_same(tmp_path: Path) -> None:
    """Its tasks are read as tau2's own are, and grade the stored conversations as they were: by the database, and what was said."""
    out = stored.written("tau2", tmp_path)
    tasks, splits = (json.loads((out / name).read_text("utf-8")) for name in ("tasks.json", "split_tasks.json"))
    lines = dict(zip((task["id"] for task in tasks), tau2._lines(tasks, splits, {}), strict=True))
    here = world("retail")
    assert json.loads((out / "db.json").read_text("utf-8")) == json.loads(json.dumps(here.shared.base.tables))
    otherwise = 0
    for name, one in stored.stored().items():
        line = lines[name]
        assert line.instruction.startswith(f"Reason for call: {one.problem.instruction}")
        gold = here.fork()
        for step in line.actions:
            gold.call(step.name, step.arguments)
        after = here.fork()
        for action, _ in one.calls:
            after.call(action.name, action.arguments)
        replies = [message["content"] for message in one.messages if message["role"] == "assistant" and not message.get("tool_calls")]
        graded = gold.state_hash() == after.state_hash() and all(says(replies, output) for output in line.outputs)
        otherwise += graded != bool(stored.reward(one))
        assert graded == bool(stored.reward(one)) or one.problem.required
    required = sum(bool(one.problem.required) for one in stored.stored().values())
    assert otherwise <= required
    assert f"{required} of {stored.COUNT} problems: {tau2_domain.REQUIRED}" in (out / "README.md").read_text("utf-8")
