"""One call of one role to one model: a body goes in, the server's answer comes out, paid once.

Asks the cache first, joins an equal call that is under way, keeps within the budget and the pace, and tries again what may
succeed on another try. What cannot succeed is said in words that name the remedy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract.losses import KEPT_UNUSABLE
from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.cache import Paid, answer_id
from tasks.players.openai_compatible.figures import Figures
from tasks.players.openai_compatible.rate_limit import Down, Pace, RateLimiter, retry_after
from tasks.players.openai_compatible.refusals import Verdict, inside, of_status
from tasks.players.openai_compatible.wire import Broken, Garbled, checked, parse, read, text_of

if TYPE_CHECKING:
    import httpx

    from tasks.players.openai_compatible.budget import Budget
    from tasks.players.openai_compatible.shared import SharedState

THROTTLED = 40
"""Times that a call is told to come later (429, 503) before that counts as a failure: with the longest pauses about 15 minutes."""


class SetAside(Exception):
    """Every attempt failed in a way that may pass; worth another round. reason: one of `tasks.contract.losses.REMEDIES`."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class Refused(Exception):
    """The server does not take this very request, for `reason`; asking again changes nothing."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt. kind: well; busy (later, `wait` seconds if the server said so); ill (it may pass); odd (an answer that
    is none, which says nothing against the server); strict (this request is not taken); closed (nobody's is). status: of an ill one
    that the server itself told of, else 0."""

    kind: Literal["well", "busy", "ill", "odd", "strict", "closed"]
    text: str = ""
    reason: str = ""
    wait: float = 0.0
    status: int = 0
    answer: dict[str, Any] | None = None


@dataclass(frozen=True)
class PreparedCall:
    """A call that is ready to be made. sent: the body. most_out: the most tokens of its answer. key: names its answer. others: gives
    further names under which it may be kept (`Cache.find`). answered: the model's name as the server reports it, "" when it was not
    asked."""

    sent: bytes
    most_out: int
    key: bytes
    others: Callable[[], Iterable[bytes]]
    answered: str = ""


@dataclass(frozen=True)
class Caller:
    """Makes the calls of one role to one model. headers: of every call, the key among them. clean: takes the key out of a text,
    should a server repeat it."""

    shared: SharedState
    url: str
    target: httpx.URL
    model: str
    role: str
    pace: Pace
    prices: Prices
    limiter: RateLimiter
    budget: Budget
    figures: Figures
    headers: dict[str, str]
    clean: Callable[[str], str]

    async def ask(self, call: PreparedCall) -> tuple[dict[str, Any], bool]:
        """(answer as `wire.checked` has it, whether it was paid for now). Raises SetAside, Refused, Down or BudgetSpent."""
        if kept := self._kept(call):
            self.figures.cached += 1
            return kept, False
        task = self.shared.asking.get(call.key)
        if task is None:
            task = asyncio.create_task(self._pay(call))
            self.shared.asking[call.key] = task
            task.add_done_callback(lambda done: self._forget(call.key, done))
            return await asyncio.shield(task), True
        answer = await asyncio.shield(task)
        self.figures.cached += 1
        return answer, False

    def _kept(self, call: PreparedCall) -> dict[str, Any] | None:
        """An answer that is kept and can be used. One that cannot (only an earlier version kept such) is forgotten, and asked anew."""
        kept = self.shared.cache.find(call.key, call.others, call.answered)
        if kept is None:
            return None
        try:
            read(kept, 0)
        except Broken as error:
            self.shared.cache.forget_answer(call.key)
            self.figures.note(KEPT_UNUSABLE, f"answer {answer_id(call.key)}: {error}; forgotten, and asked anew")
            return None
        return kept

    def _forget(self, key: bytes, task: asyncio.Task[dict[str, Any]]) -> None:
        del self.shared.asking[key]
        if not task.cancelled():
            task.exception()  # whoever waited was told; when nobody does any more, nobody needs to be

    async def _pay(self, call: PreparedCall) -> dict[str, Any]:
        failed = throttled = 0
        outcome = Outcome("ill")
        before = self.limiter.given_up
        while failed < self.pace.retries and throttled < THROTTLED:
            if failed or throttled:
                self.figures.retries += 1
                if not outcome.wait:
                    await asyncio.sleep(self.pace.backoff(failed + throttled))
                if self.limiter.given_up > before:
                    raise Down(self.limiter.last_error)
            outcome = await self._attempt(call, again=failed > 0)
            if outcome.answer is not None:
                return outcome.answer
            if outcome.kind == "strict":
                raise Refused(outcome.text, outcome.reason)
            if outcome.kind == "closed":
                raise Down(outcome.text)
            throttled += outcome.kind == "busy"
            failed += outcome.kind in ("ill", "odd")
            if self.limiter.given_up > before:
                raise Down(self.limiter.last_error)
        self.figures.set_aside += 1
        pauses = f" and {throttled} pauses" if throttled else ""
        reason = "unusable" if outcome.kind == "odd" else "unanswered"
        raise SetAside(f"{outcome.text}, after {failed} failed attempts{pauses}", reason)

    async def _attempt(self, call: PreparedCall, again: bool) -> Outcome:
        """One try, once it is this call's turn and the budget has room for it. again: an earlier try of the same call failed."""
        slot = await self.limiter.enter()
        try:
            estimate = self.shared.token_estimate(self.url, self.model)
            most_in = estimate.most(len(call.sent))
            reserved = await self.budget.reserve(most_in + call.most_out, self.prices.of(most_in, call.most_out))
            try:
                outcome = await self._post(call.sent)
                if outcome.answer is not None:
                    outcome = Outcome("well", answer=self._keep(call, outcome.answer))
            finally:
                self.budget.release(reserved)
            if outcome.kind == "busy":
                self.figures.throttled += 1
                self.limiter.busy(slot, outcome.wait)
            elif outcome.kind in ("ill", "odd"):
                self.figures.failures += 1
                if outcome.kind == "ill" and not (again and outcome.status == 500):  # one request that always fails is no server down
                    self.limiter.ill(slot, outcome.text)
            elif outcome.kind == "closed":
                self.limiter.give_up(outcome.text)  # before the next one gets this call's place
            else:
                self.limiter.well()
            return outcome
        finally:
            self.limiter.leave(slot)

    def _keep(self, call: PreparedCall, answer: dict[str, Any]) -> dict[str, Any]:
        """Count an answer and commit it."""
        sent = call.sent
        tokens_in, tokens_out = answer["tokens"]
        estimate = self.shared.token_estimate(self.url, self.model)
        if tokens_in:
            estimate.learn(len(sent), tokens_in)
        if tokens_in is None or tokens_out is None:
            self.figures.uncounted += 1
            tokens_in, tokens_out = estimate.most(len(sent)), estimate.most(len(json.dumps(answer["message"])))
        money = self.prices.of(tokens_in, tokens_out)
        self.figures.paid(tokens_in, tokens_out, money)
        self.figures.by.update([" ".join(answer["by"])] if answer["by"] else [])
        return self.shared.cache.put(call.key, answer, Paid(self.budget.ledger, self.role, self.model, tokens_in, tokens_out, money))

    async def _post(self, sent: bytes) -> Outcome:
        import httpx

        try:
            async with asyncio.timeout(self.pace.timeout):
                response = await self.shared.connections.post(self.target, self.headers, sent)
        except TimeoutError:
            return Outcome("ill", f"no answer within timeout_seconds = {self.pace.timeout:g}")
        except httpx.HTTPError as error:
            return Outcome("ill", self.clean(f"the connection failed ({type(error).__name__}: {error})"))
        if response.status_code == 200:
            return self._read(response)
        return self._outcome_of(of_status(response.status_code, self._text(response), self._wait(response)), response.status_code)

    def _text(self, response: httpx.Response) -> str:
        """The body, without the key, should the server repeat it."""
        return self.clean(text_of(response.content))

    @staticmethod
    def _wait(response: httpx.Response) -> float:
        return retry_after(response.headers.get("retry-after"), response.headers.get("date"))

    def _read(self, response: httpx.Response) -> Outcome:
        """An answer of status 200: a completion, an error that came as one, or neither."""
        answer = None
        try:
            answer = parse(self._text(response))
            return Outcome("well", answer=checked(answer))
        except Garbled as error:
            if verdict := inside(answer, self._wait(response)):
                return self._outcome_of(verdict, 200)
            kind: Literal["odd", "ill"] = "odd" if isinstance(error, Broken) else "ill"
            return Outcome(kind, str(error))

    def _outcome_of(self, verdict: Verdict, status: int) -> Outcome:
        kind: Literal["odd", "ill", "busy", "strict", "closed"] = "odd" if verdict.kind == "ill" and status == 200 else verdict.kind
        return Outcome(kind, verdict.text, verdict.reason, verdict.wait, status)
