"""The stabilised human of APIGen-MT (section 4.2): draw N candidate lines, let a critic score each, say the best.

Candidates are scored *with* the conversation so far, and a stop is a candidate like any other: ending as soon as one of N draws
is a stop would end early with probability 1 - (1 - p)^N where one draw ends with p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.chat.answers import read_json
from tasks.contract.client import Client, Message, Request
from tasks.contract.context import seed_of
from tasks.contract.problem import Setting
from tasks.contract.scripts import STOP
from tasks.generate.parts.apigen_mt.prompts import render

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
}
UNREADABLE = 0
"""Score of a candidate whose critic cannot be read: the lowest, so that any readable praise wins."""


@dataclass
class BestOfN:
    """A human that says the best of `n` draws of `human` by `critic`; a Client itself. n = 1 asks no critic.

    temperature: of the draws (1.0, ours: draws at 0 would be N times the same line of a model). name, revision: of both players,
    since both shape the line. setting: what the critic is told of the world. unreadable: answers of the critic so far that held
    no score.
    """

    human: Client
    critic: Client
    n: int
    temperature: float = 1.0
    setting: Setting = field(default_factory=Setting)
    unreadable: int = 0
    name: str = field(init=False)
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.revision = self.human.name, self.human.revision
        if self.n > 1:
            self.name += f"+best-of-{self.n}:{self.critic.name}"
            self.revision += f"+{self.critic.revision}"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One line per request, in order."""
        drawn = self.human.complete([self._draw(request, k) for request in requests for k in range(self.n)])
        if self.n == 1:
            return drawn
        groups = [_whole(drawn[start : start + self.n]) for start in range(0, len(drawn), self.n)]
        lines = [_different(group) for group in groups]
        choices = [pair for pair in zip(requests, lines, strict=True) if len(pair[1]) > 1]
        asked = [_question(request, line, self.setting) for request, group in choices for line in group]
        scores = iter(self.critic.complete(asked))
        best = []
        for group, drawn_ones in zip(lines, groups, strict=True):
            ranked = [(self._score(next(scores)), -place) for place in range(len(group))] if len(group) > 1 else [(0, 0)]
            ended: Message = {key: drawn_ones[0][key] for key in ("finish_reason", "lost") if key in drawn_ones[0]}
            best.append({"role": "assistant", "content": group[-max(ranked)[1]], **ended})
        return best

    def _score(self, message: Message) -> int:
        value, error = read_json(message, SCHEMA)
        self.unreadable += bool(error)
        return UNREADABLE if error else int(value["score"])

    def _draw(self, request: Request, number: int) -> Request:
        seed = request.seed if number == 0 else seed_of(request.seed, "candidate", number)
        return replace(request, seed=seed, temperature=self.temperature)


def _whole(group: Sequence[Message]) -> Sequence[Message]:
    """The candidates that are whole lines; when none is, the first one, which says why."""
    return [line for line in group if not line.get("lost") and line.get("finish_reason") != "length"] or group[:1]


def _different(group: Sequence[Message]) -> list[str]:
    """The different lines among the candidates. An empty one, which would end the conversation, is none as long as another is there."""
    lines = list(dict.fromkeys(str(line.get("content") or "").strip() for line in group))
    return [line for line in lines if line] or lines


def _question(request: Request, line: str, setting: Setting) -> Request:
    """Ask the critic about one line. It reads what the human reads: the description, and the talk from the human's side."""
    system, *talk = request.messages
    history = [{"speaker": "user" if turn["role"] == "assistant" else "assistant", "line": turn["content"]} for turn in talk]
    text = render("human_critic", setting=setting, stop=STOP, description=system["content"], history=history, candidate=line)
    return Request(
        messages=[{"role": "user", "content": text}],
        schema=SCHEMA,
        seed=seed_of(request.seed, "critic"),
        max_tokens=32,
        labels={**request.labels, "role": "human_critic"},
    )
