"""Objects that share what stands behind them: declared, every conversation has its own state; undeclared, that is said, never shared.

Worked by hand: one conversation closes T1, another looks, the first closes T2. Without a declaration the look would see the closed T1, or
the first one's T1 would be open again, silently: it is refused in words. In turn and in processes both conversations end as if alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.agent import Turn
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.problem import Action, Problem
from tasks.worlds.adapters import from_object, shared_back_end
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.play import TOOL_FAILURE, play
from tasks.worlds.api.runtime import World
from tests.worlds import desk


def adapted(conversations: Any, file: bool = False, **more: Any) -> Any:
    factory, dump, bring = (desk.make_file, desk.dump_file, desk.bring_file) if file else (desk.Desk, desk.dump, desk.bring)
    wanted = {"writes": ("close",), "snapshot": dump, "restore": bring, "conversations": conversations, **more}
    return from_object(factory, name="desk", policy=desk.POLICY, **wanted)


class InTurn(adapted("one_at_a_time", file=True)):  # type: ignore[misc]
    """At the top level of a module, where another process finds it."""


class InProcesses(adapted("own_process", writes=("close", "die"))):  # type: ignore[misc]
    """Likewise."""


@pytest.fixture(autouse=True, scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("desk") / "tickets.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(desk.FILE, str(place))
        yield place


def interleaved(here: World) -> tuple[World, World]:
    one, other = here.fork(), here.fork()
    assert one.call("close", {"ticket_id": "T1"}).ok
    assert other.call("look", {"ticket_id": "T1"}).content == "open"
    assert one.call("look", {"ticket_id": "T1"}).content == "closed"
    assert other.call("close", {"ticket_id": "T3"}).ok and one.call("close", {"ticket_id": "T2"}).ok
    return one, other


@pytest.mark.parametrize("on_disk", [False, True])
def test_undeclared_is_never_silent(on_disk: bool) -> None:
    here = World.build(adapted("side_by_side", on_disk), 1, 0)
    one, other = here.fork(), here.fork()
    assert one.call("close", {"ticket_id": "T1"}).ok
    assert other.call("look", {"ticket_id": "T1"}).content == "open"
    lost = one.call("close", {"ticket_id": "T2"})
    assert lost.content.startswith(TOOL_FAILURE) and 'T1: \\"closed\\"; + T1: \\"open\\"' in lost.content
    assert "another conversation has changed it" in lost.content and "conversations='one_at_a_time'" in lost.content


def test_in_turn_and_in_processes() -> None:
    for here in (World.build(InTurn, 1, 0), World.build(InProcesses, 1, 0), World.build(adapted("one_at_a_time"), 1, 0)):
        one, other = interleaved(here)
        closed = '- {0}: "open"\n+ {0}: "closed"'
        assert one.diff() == closed.format("T1") + "\n" + closed.format("T2") and other.diff() == closed.format("T3")
        one.reset()
        assert one.call("look", {"ticket_id": "T1"}).content == "open" and one.state_hash() == here.state_hash()
    assert World.build(InTurn, 1, 0).side_by_side == 1 and World.build(InProcesses, 1, 0).waits


def test_each_conversation_has_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World.build(InProcesses, 1, 0)
    forks = [here.fork() for _ in range(3)]
    for number, fork in enumerate(forks):
        assert fork.call("close", {"ticket_id": f"T{number}"}).ok
    with ThreadPoolExecutor(3) as pool:
        pids = list(pool.map(lambda fork: fork.call("pid", {}).content, forks))
    assert len(set(pids)) == 3
    assert "ended with 7 during the call" in forks[0].call("die", {}).content
    assert forks[0].call("look", {"ticket_id": "T0"}).content == "closed", "another process is brought to its state"
    assert "KeyError" in forks[0].call("look", {"ticket_id": "T9"}).content


def test_another_process_takes_its_turn(file: Path, tmp_path: Path) -> None:
    here = World.build(InTurn, 1, 0, "tests.worlds.test_adapter_shared_back_end:InTurn")
    freeze_world(here, tmp_path / "desk")
    one = load(tmp_path / "desk").fork()
    assert one.call("close", {"ticket_id": "T1"}).ok
    played = (
        "import sys; from pathlib import Path; from tasks.worlds.api.frozen import load; world = load(Path(sys.argv[1])).fork()\n"
        "print(world.call('look', {'ticket_id': 'T1'}).content, world.call('close', {'ticket_id': 'T0'}).content)"
    )
    done = subprocess.run([sys.executable, "-c", played, str(tmp_path / "desk")], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["open", "closed"], done.stderr
    assert json.loads(file.read_text())["T0"] == "closed"
    assert one.call("look", {"ticket_id": "T1"}).content == "closed" and one.call("look", {"ticket_id": "T0"}).content == "open"


def test_a_turn_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = World.build(InTurn, 1, 0)
    real = here.foreign.source.real()
    monkeypatch.setattr(shared_back_end, "WAIT", 0.1)
    refused = here.fork().call("look", {"ticket_id": "T1"}).content
    assert "its objects share a back end, which process" in refused and "Let that process end" in refused
    with pytest.raises(BadInput, match="What is real can be another back end"):
        here.foreign.source.real()
    real.close()
    assert here.fork().call("look", {"ticket_id": "T1"}).content == "open"


class Closer:
    """An agent that closes the ticket with its key's number, and a human that hangs up; it keeps how many it had at a time."""

    name, capacity, most = "closer", 64, 0

    def __init__(self) -> None:
        self.open: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []

    def send(self, key: str, messages: Any, world: World, seed: int) -> None:
        self.open[key] = None
        self.most = max(self.most, len(self.open))
        call = {"id": "1", "function": {"name": "close", "arguments": {"ticket_id": f"T{key}"}}}
        spoken = {"role": "assistant", "content": "done"}
        self.sent.append((key, spoken if messages[-1]["role"] == "tool" else {"role": "assistant", "tool_calls": [call]}))

    def poll(self) -> list[tuple[str, Turn]]:
        sent, self.sent = self.sent, []
        return [(key, Turn(message)) for key, message in sent]

    def close(self, key: str) -> None:
        del self.open[key]


class Human:
    name = "human"

    def complete(self, requests: Any) -> Any:
        return [{"content": "Close it." if len(request.messages) < 3 else "###STOP###"} for request in requests]


def test_its_conversations_are_played_one_after_the_other() -> None:
    for cls, most in ((InTurn, 1), (InProcesses, 3)):
        here = World.build(cls, 1, 0)
        jobs = [
            (Problem(f"p{n}", "desk", "train", "f", ("u",), "", "", {}, (Action("close", {"ticket_id": f"T{n}"}, "write"),)), 0)
            for n in range(3)
        ]
        agent = Closer()
        played = play(here, jobs, agent, Human(), seed=0)  # type: ignore[arg-type]
        assert [one.outcome.state for one in played if one.outcome] == [1, 1, 1] and agent.most == most


def test_a_process_that_cannot_be_made_any_more_ends_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    one = World.build(adapted("own_process", writes=("close", "die")), 1, 0).fork()
    assert one.call("look", {"ticket_id": "T1"}).ok
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for tool, arguments in (("die", {}), ("look", {"ticket_id": "T1"})):
        with pytest.raises(StageFailed, match=r"world desk: the process of an object ended with 1 while .* Then run again"):
            one.call(tool, arguments)


def test_mistakes_are_named() -> None:
    with pytest.raises(BadInput, match=r"needs snapshot= and restore="):
        from_object(desk.Desk, name="desk", policy="", conversations="own_process")
    with pytest.raises(BadInput, match=r"conversations = 'both': must be one of 'side_by_side', 'one_at_a_time', 'own_process'"):
        adapted("both")
    with pytest.raises(BadInput, match=r"must be functions of a module"):
        adapted("own_process", restore=lambda one, value: None)
    half = World.build(adapted("one_at_a_time", restore=lambda one, value: None), 1, 0)
    one = half.fork()
    assert one.call("close", {"ticket_id": "T1"}).ok and half.fork().call("look", {"ticket_id": "T1"}).ok
    assert "restore() does not bring back all that snapshot() gave" in one.call("look", {"ticket_id": "T1"}).content
