"""`EndpointClient`: a model behind an OpenAI-compatible server as a role's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.chat.answers import looks_like_calls, read_json
from tasks.contract.client import BudgetSpent, CallFailed, Message, Request
from tasks.contract.context import Losses
from tasks.contract.losses import FROM_TEXT, HARMLESS, Lost, stop_when_nearly_all, stop_when_nothing_came
from tasks.players.openai_compatible import figures
from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.cache import answer_id, first_key_of, key_of
from tasks.players.openai_compatible.calling import Caller, PreparedCall, Refused, SetAside
from tasks.players.openai_compatible.rate_limit import Down, Pace
from tasks.players.openai_compatible.shared import run, shared_state
from tasks.players.openai_compatible.wire import Dialect, Reply, body, calls_so_far, read

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
    `stats`. ledger: under which name its calls are paid, with others. limits: max_cost and max_tokens of that ledger, 0 for none.
    losses: how much may be lost for one reason."""

    state: Path | None = None
    run: str = ""
    ledger: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)


class EndpointClient:
    """Asks `dialect.model` at `url`. Any number of threads may call `complete` at once: their calls share one limiter.

    role: for figures and messages. revision: the version behind the name, else "unpinned". identity: the user's word for it, and
    reported: the server's own, by which answers are kept (`cache.key_of`). secret: gives the key when the first call is made; it is
    kept in memory alone.
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
        identity: str = "",
        reported: str = "",
    ) -> None:
        self.name, self.revision = dialect.model, revision
        self._role, self._url, self._dialect = role, url.rstrip("/"), dialect
        self._pace, self._prices, self._setting = pace or Pace(), prices or Prices(), setting or Setting()
        self._secret, self._identity, self._reported = secret, identity, reported
        self._answered = str(json.loads(reported).get("answered") or "") if reported else ""

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order, with its `finish_reason`.

        A request that the server refuses for good, or whose answer is none in every round, is lost: its message is empty and says
        why (`lost`, one of `tasks.contract.losses.GONE`). Raises CallFailed when a call got no answer after all attempts and
        salvage rounds,
        or when nearly everything was lost for one reason; BudgetSpent when a call was not made for lack of budget. The answers of
        the others are kept by then, so that asking again pays for the rest alone.
        """
        if not requests:
            return []
        key = self._secret()  # here, not in the loop's thread: it may ask a server of its own
        return run(self._batch(list(requests), key))

    def _caller(self, key: str) -> Caller:
        import httpx

        setting, model = self._setting, self._dialect.model
        place = shared_state(setting.state)
        mine = figures.of(setting.run, self._role)
        mine.model, mine.limiter = model, place.limiter(self._url, model, self._pace)
        return Caller(
            shared=place,
            url=self._url,
            target=httpx.URL(f"{self._url}/chat/completions"),
            model=model,
            role=self._role,
            pace=self._pace,
            prices=self._prices,
            limiter=mine.limiter,
            budget=place.budget(setting.ledger, setting.limits),
            figures=mine,
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            clean=lambda text: text.replace(key, "<the key>") if key else text,
        )

    async def _batch(self, requests: list[Request], key: str) -> list[Message]:
        caller = self._caller(key)
        found: list[Any] = await asyncio.gather(*(self._answer(caller, one) for one in requests), return_exceptions=True)
        for _ in range(SALVAGE):
            aside = [place for place, one in enumerate(found) if isinstance(one, SetAside)]
            again = await asyncio.gather(*(self._answer(caller, requests[place]) for place in aside), return_exceptions=True)
            for place, one in zip(aside, again, strict=True):
                found[place] = one
        caller.figures.requests += len(requests)
        caller.figures.offered += sum(bool(request.tools) for request in requests)
        self._give_up(caller, requests, found)
        self._check_losses(caller)
        return found

    def _give_up(self, caller: Caller, requests: Sequence[Request], found: list[Any]) -> None:
        """Put a lost message in the place of each request that got no answer for good; raise what ends the batch."""
        figures, losses = caller.figures, self._setting.losses
        failed = [(place, one) for place, one in enumerate(found) if isinstance(one, BaseException)]
        silent = sum(isinstance(error, SetAside) and error.reason == "unanswered" for _, error in failed)
        patient = silent and figures.odd["unanswered"] + silent <= losses.unanswered * figures.requests
        left = []
        for place, error in failed:
            if isinstance(error, Refused) or (isinstance(error, SetAside) and (error.reason != "unanswered" or patient)):
                found[place] = self._lost(caller, error)
            else:
                left.append((place, error))
        self._raise(requests, left)

    def _lost(self, caller: Caller, error: Refused | SetAside) -> Message:
        self._note(caller, error.reason, str(error), paid=True)
        return {"role": "assistant", "content": "", "finish_reason": "error", "lost": error.reason}

    def _note(self, caller: Caller, reason: str, example: str, paid: bool) -> None:
        """Count something odd, for this run and (what was paid for, or refused) for `cairn calls`."""
        caller.figures.note(reason, example)
        if paid:
            caller.shared.cache.note(self._dialect.model, self._role, reason, example)

    def _check_losses(self, caller: Caller) -> None:
        figures, losses, model = caller.figures, self._setting.losses, self._dialect.model
        lost_by = {reason: count for reason, count in figures.odd.items() if reason not in HARMLESS}
        lost = Lost(
            f"role {self._role!r} (model {model!r} at {self._url}): calls",
            lost_by,
            figures.requests,
            figures.examples,
            self._role,
            model,
        )
        stop_when_nothing_came(losses, lost)
        stop_when_nearly_all(losses, lost)
        as_text = {"calls_as_text": figures.odd["calls_as_text"]}  # answers where no tool was offered say nothing about that
        stop_when_nearly_all(losses, replace(lost, counts=as_text, total=figures.offered))

    def _raise(self, requests: Sequence[Request], failed: Sequence[tuple[int, BaseException]]) -> None:
        """The one error that says most about what failed, if anything did."""
        for _, error in failed:
            if isinstance(error, BudgetSpent):
                raise error
        for _, error in failed:
            if not isinstance(error, (SetAside, Down)):
                raise error
        if failed:
            place, error = failed[0]
            which = ", ".join(f"{name} {value}" for name, value in requests[place].labels.items() if name != "role")
            raise CallFailed(
                f"role {self._role!r}: {len(failed)} of {len(requests)} calls to model {self._dialect.model!r} at {self._url} failed. "
                f"The first{f' ({which})' if which else ''}: {error}. What was answered is kept: when the cause is mended, run again, "
                "and only the rest is asked."
            ) from None

    async def _answer(self, caller: Caller, request: Request) -> Message:
        """One request, with a second round when the first answer cannot be used."""
        call, reply, paid = await self._reply(caller, request)
        self._count(caller, reply)
        if second := _second_round(request, reply):
            caller.figures.repairs += 1
            with suppress(Refused):  # a second round that the server does not take leaves the first answer as it is
                call, reply, paid = await self._reply(caller, *second)
                self._count(caller, reply)
                caller.figures.repaired += _second_round(request, reply) is None
        wrong = read_json(reply.message, request.schema)[1] if request.schema is not None else ""
        caller.figures.unreadable += bool(wrong)
        if odd := _odd(request, reply, wrong):
            kept = f"answer {answer_id(call.key)} (`cairn calls --forget-answer {answer_id(call.key)}` asks for it anew)"
            self._note(caller, odd, f"{kept}: {wrong or _brief(reply)}", paid)
        lost = {"lost": "content_filter"} if reply.finish == "content_filter" else {}
        return {**reply.message, "finish_reason": reply.finish, **lost}

    async def _reply(self, caller: Caller, request: Request, room: int = 1) -> tuple[PreparedCall, Reply, bool]:
        """(the call, its answer, whether it was paid for now)."""
        call = self._prepared(request, room)
        answer, paid = await caller.ask(call)
        return call, read(answer, calls_so_far(request.messages), bool(request.tools)), paid

    def _prepared(self, request: Request, room: int) -> PreparedCall:
        sent = body(self._dialect, request, room)

        def others() -> Iterator[bytes]:
            if self._reported:
                yield key_of(self._url, self._identity, sent, request.seed)  # asked before the server had said who it is
            as_it_was = body(replace(self._dialect, content_beside_calls="empty"), request, room)
            yield first_key_of(self._url, as_it_was, request.seed)

        key = key_of(self._url, self._identity, sent, request.seed, self._reported)
        return PreparedCall(sent, self._dialect.most(request, room), key, others, self._answered)

    @staticmethod
    def _count(caller: Caller, reply: Reply) -> None:
        caller.figures.refusals += reply.refused
        caller.figures.truncations += reply.truncated


def _second_round(request: Request, reply: Reply) -> tuple[Request, int] | None:
    """What to ask after an answer that cannot be used, and with how many times the room: the same with more when it was cut off, else
    what is wrong with it. None for an answer that can be used, and for a refusal."""
    wrong = read_json(reply.message, request.schema)[1] if request.schema is not None else ""
    if reply.refused:
        return None
    if reply.truncated and (wrong or request.schema is None):
        return request, ROOM
    if not wrong:
        return None
    mend = ({"role": "assistant", "content": reply.message["content"]}, {"role": "user", "content": MEND.format(why=wrong)})
    return replace(request, messages=[*request.messages, *mend]), 1


def _odd(request: Request, reply: Reply, wrong: str) -> str:
    """What is odd about an answer, the one thing that explains most; "" for nothing."""
    if reply.refused:
        return "content_filter" if reply.finish == "content_filter" else "refusal"
    if reply.from_text:
        return FROM_TEXT
    if request.tools and not reply.called and looks_like_calls(reply.message["content"], request.tools):
        return "calls_as_text"
    if reply.truncated and (wrong or request.schema is None):
        return "cut"
    if reply.bad:
        return "bad_call"
    if reply.empty:
        return "empty"
    return "unreadable" if wrong else ""


def _brief(reply: Reply) -> str:
    text = reply.message["content"] or str(reply.message.get("tool_calls") or "")
    return repr(text if len(text) <= 80 else text[:77] + "...")
