"""A world as a resources server of NeMo Gym, for its `gymnasium_agent`: a turn of the agent goes in, the tools' answers or the user's
next line come out, and with the end of the conversation the reward of `World.grade`.

A row of the data set names its problem; a session is a conversation in a fork of the world. A conversation that the agent server cuts
off (`max_steps` in its config) has no last step and so no reward: its limit is one above that of the exported folder.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nemo_gym.openai_utils import NeMoGymResponse
from resources_servers.gymnasium import GymnasiumServer, extract_text

from flows.exports.elsewhere.conversation import PARTS, Conversation, arguments_of, read


class WorldServer(GymnasiumServer):
    """FOLDER: the exported one."""

    FOLDER: ClassVar[str] = ""

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Begin a conversation; the observation is the user's first line."""
        played = read(self.FOLDER).begin(metadata["problem"])
        self.session_state[str(session_id)] = played
        return played.line(), {"problem": metadata["problem"]}

    async def step(
        self, action: NeMoGymResponse, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """A turn of the agent's: (observation, reward, terminated, truncated, info). Answers of tools are in info."""
        played: Conversation = self.session_state[str(session_id)]
        asked = [one for one in action.output if one.type == "function_call"]
        calls = [{"id": one.call_id, "name": one.name, "arguments": arguments_of(one.arguments)} for one in asked]
        answers = played.turn(extract_text(action), calls)
        line = None if played.stop or calls else played.line()
        info: dict[str, Any] = {"tool_outputs": [{"call_id": one["tool_call_id"], "output": one["content"]} for one in answers]}
        if not played.stop:
            return line, 0.0, False, False, info
        outcome = played.outcome()
        info |= {part: getattr(outcome, part) for part in PARTS} | {"stop": played.stop, "agents_doing": outcome.about_agent}
        return None, float(outcome.reward), played.stop != "max_steps", played.stop == "max_steps", info

    async def close_session(self, session_id: str | None) -> None:
        """Forget a conversation."""
        self.session_state.pop(str(session_id), None)
