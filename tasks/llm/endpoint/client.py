"""`EndpointClient`: a model behind an OpenAI-compatible server as a role's client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.llm import BudgetSpent, CallFailed, Message, Request
from tasks.llm.answers import read_json
from tasks.llm.endpoint import figures
from tasks.llm.endpoint.budget import Prices
from tasks.llm.endpoint.line import Line, Refused, SetAside
from tasks.llm.endpoint.office import office, run
from tasks.llm.endpoint.pacing import Down, Pace
from tasks.llm.endpoint.wire import Dialect, Reply, body, calls_so_far, read

SALVAGE = 2
"""Rounds at the end of a batch in which what was set aside is tried again."""
ROOM = 4
"""Times the room that a cut answer gets in its second round."""
MEND = "That answer cannot be used: {why}. Answer again with nothing but one JSON value that fits the schema."


def _no_key() -> str:
    return ""


@dataclass(frozen=True)
class Setting:
    """Where a client's calls are kept and counted. state: folder of the cache, None for none that lasts. run: names a stage's run in
    `stats`. ledger: under which name its calls are paid, with others. limits: max_cost and max_tokens of that ledger, 0 for none."""

    state: Path | None = None
    run: str = ""
    ledger: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)


class EndpointClient:
    """Asks `dialect.model` at `url`. Any number of threads may call `complete` at once: their calls share one gate.

    role: for figures and messages. revision: the user's word for the version behind the name, else "unpinned". secret: gives the
    key when the first call is made; it is kept in memory alone.
    """

    def __init__(
        self,
        role: str,
        url: str,
        dialect: Dialect,
        *,
        pace: Pace | None = None,
        prices: Prices | None = None,
        secret: Callable[[], str] = _no_key,
        setting: Setting | None = None,
        revision: str = "unpinned",
    ) -> None:
        self.name, self.revision = dialect.model, revision
        self._role, self._url, self._dialect = role, url.rstrip("/"), dialect
        self._pace, self._prices, self._setting = pace or Pace(), prices or Prices(), setting or Setting()
        self._secret = secret

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order.

        Raises CallFailed when a call got no answer after all attempts and salvage rounds, BudgetSpent when it was not made for lack
        of budget; the answers of the others are kept by then, so that asking again pays for the rest alone.
        """
        if not requests:
            return []
        key = self._secret()  # here, not in the loop's thread: it may ask a server of its own
        return run(self._batch(list(requests), key))

    def _line(self, key: str) -> Line:
        import httpx

        setting, model = self._setting, self._dialect.model
        place = office(setting.state)
        mine = figures.of(setting.run, self._role)
        mine.model, mine.gate = model, place.gate(self._url, model, self._pace)
        return Line(
            office=place,
            url=self._url,
            target=httpx.URL(f"{self._url}/chat/completions"),
            model=model,
            role=self._role,
            pace=self._pace,
            prices=self._prices,
            gate=mine.gate,
            purse=place.purse(setting.ledger, setting.limits),
            figures=mine,
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            clean=lambda text: text.replace(key, "<the key>") if key else text,
        )

    async def _batch(self, requests: list[Request], key: str) -> list[Message]:
        line = self._line(key)
        found: list[Any] = await asyncio.gather(*(self._answer(line, one) for one in requests), return_exceptions=True)
        for _ in range(SALVAGE):
            aside = [place for place, one in enumerate(found) if isinstance(one, SetAside)]
            again = await asyncio.gather(*(self._answer(line, requests[place]) for place in aside), return_exceptions=True)
            for place, one in zip(aside, again, strict=True):
                found[place] = one
        self._raise(requests, [(place, one) for place, one in enumerate(found) if isinstance(one, BaseException)])
        return found

    def _raise(self, requests: Sequence[Request], failed: Sequence[tuple[int, BaseException]]) -> None:
        """The one error that says most about what failed, if anything did."""
        for _, error in failed:
            if isinstance(error, BudgetSpent):
                raise error
        for _, error in failed:
            if not isinstance(error, (SetAside, Refused, Down)):
                raise error
        if failed:
            place, error = failed[0]
            which = ", ".join(f"{name} {value}" for name, value in requests[place].labels.items() if name != "role")
            raise CallFailed(
                f"role {self._role!r}: {len(failed)} of {len(requests)} calls to model {self._dialect.model!r} at {self._url} failed. "
                f"The first{f' ({which})' if which else ''}: {error}. What was answered is kept: when the cause is mended, run again, "
                "and only the rest is asked."
            ) from None

    async def _answer(self, line: Line, request: Request) -> Message:
        """One request, with a second round when the first answer cannot be used."""
        reply = await self._reply(line, request)
        self._note(line, reply)
        if second := _second_round(request, reply):
            line.figures.repairs += 1
            reply = await self._reply(line, second)
            self._note(line, reply)
            line.figures.repaired += _second_round(request, reply) is None
        line.figures.unreadable += bool(request.schema is not None and read_json(reply.message, request.schema)[1])
        return reply.message

    async def _reply(self, line: Line, request: Request) -> Reply:
        kept = await line.ask(body(self._dialect, request), self._dialect.most(request), request.seed)
        return read(kept, calls_so_far(request.messages))

    @staticmethod
    def _note(line: Line, reply: Reply) -> None:
        line.figures.refusals += reply.refused
        line.figures.truncations += reply.truncated


def _second_round(request: Request, reply: Reply) -> Request | None:
    """What to ask after an answer that cannot be used: the same with more room when it was cut off, else what is wrong with it.

    None for an answer that can be used, for a refusal, and for free text that was cut off after it had begun.
    """
    wrong = read_json(reply.message, request.schema)[1] if request.schema is not None else ""
    cut = reply.truncated and (reply.called or not reply.message["content"])
    if reply.refused or not (wrong or cut):
        return None
    if reply.truncated:
        return replace(request, max_tokens=request.max_tokens * ROOM)
    mend = ({"role": "assistant", "content": reply.message["content"]}, {"role": "user", "content": MEND.format(why=wrong)})
    return replace(request, messages=[*request.messages, *mend])
