"""A world for verifiers (`verifiers.v1`): a taskset, an environment with a simulated user, and a tool server.

An exported folder is a package that names itself in two subclasses. The tool server is one process for all rollouts of a worker; each
rollout has a fork of the world there. The environment says the lines of the world's scripted user, or lets the model of the seat `user`
say them. The reward makes the calls of the finished conversation once more in a fresh fork and grades that, so it needs no live state;
the metric `answered_otherwise` counts answers that differ from those that the agent was given (0 in a world that is deterministic).

How it departs from `tasks.worlds.api.play`: the harness lets a model speak once more after a call that ended the conversation; that
counts for nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar

import verifiers.v1 as vf
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as Listed
from verifiers.v1.state import State

from flows.exports.elsewhere.conversation import PARTS, Conversation, Exported, agent_system, arguments_of, read, replayed
from tasks.contract.client import Message
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Outcome
from tasks.worlds.api.system_prompt import human_system

GREETING = "Hello! How can I help you today?"
"""What a model that plays the user hears first; the agent never sees it."""
MOST_OPEN = 4096
"""Conversations that the tool server keeps; the longest unused one is forgotten."""


class Rollout(State):
    """What a rollout tells the tool server: whose conversation a call belongs to."""

    conversation: str = ""
    problem: str = ""


class ToolsConfig(vf.SharedToolsetConfig):
    """folder: the exported one."""

    folder: str = ""


class Tools(vf.Toolset[ToolsConfig, Rollout]):
    """The world's tools, with their own schemas and answers."""

    TOOL_PREFIX = None

    def register(self, mcp: MCPServer) -> None:
        """Serve the world's schemas as they are, which no Python signature could say."""
        self._open: OrderedDict[str, Conversation] = OrderedDict()
        server: Any = mcp
        server.list_tools = self._with_state(self._list)
        server.call_tool = self._with_state(self._call)

    async def _list(self) -> list[Listed]:
        functions = [schema["function"] for schema in read(self.config.folder).world.schemas()]
        return [Listed(name=one["name"], description=one["description"], input_schema=one["parameters"]) for one in functions]

    async def _call(self, name: str, arguments: dict[str, Any], context: Context | None = None) -> CallToolResult:
        key = self.state.conversation
        if key not in self._open:
            self._open[key] = read(self.config.folder).begin(self.state.problem)
        self._open.move_to_end(key)
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return CallToolResult(content=[TextContent(type="text", text=self._open[key].call(name, arguments))])


class ProblemConfig(vf.TaskConfig):
    """folder: the exported one; a taskset fills it in."""

    folder: str = ""


class ProblemData(vf.TaskData):
    """problem: its id in the exported folder."""

    problem: str


class ProblemTask(vf.Task[ProblemData, Rollout, ProblemConfig]):
    """A problem of the world; its reward is that of `World.grade`."""

    @property
    def key(self) -> str:
        """Problems are named after their content."""
        return self.data.problem

    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """Tell the tool server which conversation this is."""
        trace.state.conversation, trace.state.problem = trace.id, self.data.problem

    @vf.reward
    async def reward(self, trace: vf.Trace) -> float:
        """1 for a solved problem, else 0."""
        return float(self._graded(trace)[0].reward)

    @vf.metric
    async def parts(self, trace: vf.Trace) -> dict[str, float]:
        """The parts of the grading; `agents_doing` is 0 where a failure is not the agent's and says nothing about it."""
        outcome, otherwise = self._graded(trace)
        found = {part: float(getattr(outcome, part)) for part in PARTS}
        return {**found, "agents_doing": float(outcome.about_agent), "answered_otherwise": float(otherwise)}

    def _graded(self, trace: vf.Trace) -> tuple[Outcome, int]:
        """The grading, and how many calls were answered otherwise than the agent was told."""
        messages = [message_of(one) for one in trace.messages]
        played = replayed(read(self.config.folder), self.data.problem, messages)
        given = [message["content"] for message in messages if message["role"] == "tool"]
        now = [result.content for _, result in played.calls]
        return played.outcome(), sum(one != other for one, other in zip(given, now, strict=False))


def message_of(message: Any) -> Message:
    """A message of verifiers as `replayed` reads it."""
    calls = [
        {"id": one.id, "name": one.name, "arguments": arguments_of(one.arguments)} for one in getattr(message, "tool_calls", None) or ()
    ]
    content = message.content
    text = content if isinstance(content, str) else "".join(getattr(part, "text", "") for part in content or ())
    return {"role": message.role, "content": text, **({"tool_calls": calls} if calls else {})}


class WorldTasksetConfig(vf.TasksetConfig):
    """split: train, validation or test; all of the exported problems when empty."""

    split: str = ""
    task: ProblemConfig = ProblemConfig()


class WorldTaskset(vf.Taskset[ProblemTask, WorldTasksetConfig]):
    """The exported problems. FOLDER: where they lie."""

    FOLDER: ClassVar[str] = ""

    def load(self) -> Iterable[ProblemTask]:
        """A task for each problem; the user opens."""
        exported = read(self.FOLDER)
        config = self.config.task.model_copy(update={"folder": self.FOLDER})
        for problem in exported.problems.values():
            if self.config.split in ("", problem.split):
                name = problem.problem_id
                system = agent_system(exported.world)
                yield ProblemTask(ProblemData(id=name, name=name, problem=name, system_prompt=system), config)

    @classmethod
    def toolsets(cls, config: WorldTasksetConfig) -> list[vf.Toolset]:
        """One server for all rollouts."""
        return [Tools(ToolsConfig(folder=cls.FOLDER))]


_HERE: Any = {"harness": {"id": "null"}, "runtime": {"type": "subprocess"}}


class WorldEnvConfig(vf.EnvConfig):
    """agent: the seat that is trained or evaluated. user: a model in the user's seat; used where `user_is_a_model`, and in worlds that
    have no scripted people."""

    agent: vf.AgentConfig = vf.AgentConfig(**_HERE)
    user: vf.AgentConfig = vf.AgentConfig(**_HERE)
    user_is_a_model: bool = False


class WorldEnv(vf.Env[WorldEnvConfig]):
    """An agent and a simulated user in one conversation."""

    async def setup(self, agents: Any) -> None:
        """The user's tokens train nobody."""
        agents.user.trainable = False

    async def run(self, task: ProblemTask, agents: Any) -> None:
        """Play a problem to its end."""
        exported: Exported = read(task.config.folder)
        played = exported.begin(task.data.problem)
        if exported.world.scripts is None or self.config.user_is_a_model:
            told = vf.TaskData(prompt=None, system_prompt=human_system(played.problem, exported.world.setting))
            async with agents.user.interaction(vf.Task(told)) as user, agents.agent.interaction(task) as agent:
                line = (await user.turn(GREETING)).last_reply
                while line and STOP not in line:
                    played.messages.append({"role": "user", "content": line})
                    reply = await _answer(agent, played, line)
                    heard = None if reply is None else await user.turn(reply)
                    line = "" if heard is None or heard.terminated else heard.last_reply
        else:
            async with agents.agent.interaction(task) as agent:
                while not played.stop and (line := played.line()):
                    if await _answer(agent, played, line) is None:
                        break


async def _answer(agent: Any, played: Conversation, line: str) -> str | None:
    """The agent's reply to a line, after its calls; None when the conversation is over."""
    heard = await agent.turn(line)
    for message in map(message_of, heard.messages):
        if message["role"] == "assistant" and not played.stop:
            played.turn(message["content"], message.get("tool_calls") or ())
    return None if heard.terminated or played.stop else heard.last_reply


if __name__ == "__main__":
    Tools.run()
