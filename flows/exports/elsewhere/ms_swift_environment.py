"""A world as an environment of ms-swift's `gym_scheduler`: a turn of the agent's text goes in, the tools' answers or the user's next
line come out, and with the end of the conversation the reward of `World.grade`.

A row of the data set carries {"env_config": {"name", "problem"}}; its tools are shown by ms-swift, in the agent template that
calls are read with (`agent_template`, hermes by default). Answers of tools go back as a user's turn in that template's words, since an
observation of ms-swift is always one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from swift.agent_template import agent_template_map
from swift.rollout.gym_env import Env

from flows.exports.elsewhere.conversation import PARTS, arguments_of, read


class WorldEnv(Env):
    """One conversation in a fork of the world. FOLDER: the exported one."""

    FOLDER: ClassVar[str] = ""

    async def reset(self, config: Any) -> tuple[str, dict[str, Any], str]:
        """(the user's first line, info, the system prompt)."""
        self.template = agent_template_map[self.env_config.get("agent_template", "hermes")]()
        self.played = read(self.FOLDER).begin(self.env_config["problem"])
        return self.played.line(), {}, str(self.played.messages[0]["content"])

    async def step(self, action: list[dict[str, Any]]) -> tuple[str, float, bool, dict[str, Any]]:
        """(observation, reward, whether it is over, info). action: the conversation; its last message is the agent's."""
        text = str(action[-1]["content"])
        found = self.template.get_toolcall(text)
        place = len(self.played.calls)
        calls = [
            {"id": f"call_{place + number}", "name": one.name, "arguments": arguments_of(one.arguments)}
            for number, one in enumerate(found)
        ]
        answers = self.played.turn(text, calls)
        seen = self.template._get_tool_responses(answers) if calls else "" if self.played.stop else self.played.line()
        if not self.played.stop:
            return seen, 0.0, False, {}
        outcome = self.played.outcome()
        return "", float(outcome.reward), True, {"stop": self.played.stop, **{part: getattr(outcome, part) for part in PARTS}}

    async def close(self) -> None:
        """There is nothing to close."""
