"""One role's line to one model: a body goes in, the server's answer comes out, paid once.

Asks the cache first, joins an equal call that is under way, keeps within the budget and the pace, and tries again what may
succeed on another try. What cannot succeed is said in words that name the remedy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.llm.endpoint.budget import Prices
from tasks.llm.endpoint.cache import Paid, key_of
from tasks.llm.endpoint.figures import Figures
from tasks.llm.endpoint.pacing import LONGEST_HOLD, Down, Gate, Pace, retry_after
from tasks.llm.endpoint.wire import Garbled, take

if TYPE_CHECKING:
    import httpx

    from tasks.llm.endpoint.budget import Purse
    from tasks.llm.endpoint.office import Office

THROTTLED = 40
"""Times that a call is told to come later (429, 503) before that counts as a failure: with the longest pauses about 15 minutes."""
_STRICT = {400: "does not accept the request", 413: "finds the request too long", 422: "does not accept the request"}
_CLOSED = {
    401: "refuses the key",
    402: "wants to be paid first",
    403: "refuses the key for this model",
    404: "does not know the model, or base_url does not end where its API begins (often /v1)",
}


class SetAside(Exception):
    """Every attempt failed in a way that may pass; worth another round."""


class Refused(Exception):
    """The server does not take this very request; asking again changes nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt. kind: well; busy (later, `wait` seconds if the server said so); ill (it may pass); strict (this
    request is not taken); closed (nobody's is)."""

    kind: Literal["well", "busy", "ill", "strict", "closed"]
    text: str = ""
    wait: float = 0.0
    answer: dict[str, Any] | None = None


@dataclass(frozen=True)
class Line:
    """headers: of every call, the key among them. clean: takes the key out of a text, should a server repeat it."""

    office: Office
    url: str
    target: httpx.URL
    model: str
    role: str
    pace: Pace
    prices: Prices
    gate: Gate
    purse: Purse
    figures: Figures
    headers: dict[str, str]
    clean: Callable[[str], str]

    async def ask(self, sent: bytes, most_out: int, sample: int) -> dict[str, Any]:
        """The answer to a body as `wire.take` keeps it. Raises SetAside, Refused, Down or BudgetSpent."""
        key = key_of(self.url, sent, sample)
        if kept := self.office.cache.get(key):
            self.figures.cached += 1
            return kept
        task = self.office.asking.get(key)
        if task is None:
            task = asyncio.create_task(self._pay(key, sent, most_out))
            self.office.asking[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
            return await asyncio.shield(task)
        answer = await asyncio.shield(task)
        self.figures.cached += 1
        return answer

    def _forget(self, key: bytes, task: asyncio.Task[dict[str, Any]]) -> None:
        del self.office.asking[key]
        if not task.cancelled():
            task.exception()  # whoever waited was told; when nobody does any more, nobody needs to be

    async def _pay(self, key: bytes, sent: bytes, most_out: int) -> dict[str, Any]:
        failed = throttled = 0
        outcome = Outcome("ill")
        before = self.gate.given_up
        while failed < self.pace.retries and throttled < THROTTLED:
            if failed or throttled:
                self.figures.retries += 1
                if not outcome.wait:
                    await asyncio.sleep(self.pace.backoff(failed + throttled))
                if self.gate.given_up > before:
                    raise Down(self.gate.last_error)
            outcome = await self._attempt(key, sent, most_out)
            if outcome.answer is not None:
                return outcome.answer
            if outcome.kind == "strict":
                raise Refused(outcome.text)
            if outcome.kind == "closed":
                raise Down(outcome.text)
            throttled += outcome.kind == "busy"
            failed += outcome.kind == "ill"
            if self.gate.given_up > before:
                raise Down(self.gate.last_error)
        self.figures.set_aside += 1
        raise SetAside(f"{outcome.text}, after {failed} failed attempts" + (f" and {throttled} pauses" if throttled else ""))

    async def _attempt(self, key: bytes, sent: bytes, most_out: int) -> Outcome:
        """One try, once it is this call's turn and the budget has room for it."""
        slot = await self.gate.enter()
        try:
            measure = self.office.measure(self.url, self.model)
            most_in = measure.most(len(sent))
            reserved = await self.purse.reserve(most_in + most_out, self.prices.of(most_in, most_out))
            try:
                outcome = await self._post(sent)
                if outcome.answer is not None:
                    outcome = Outcome("well", answer=self._keep(key, sent, outcome.answer))
            finally:
                self.purse.release(reserved)
            if outcome.kind == "busy":
                self.figures.throttled += 1
                self.gate.busy(slot, outcome.wait)
            elif outcome.kind == "ill":
                self.figures.failures += 1
                self.gate.ill(slot, outcome.text)
            elif outcome.kind == "closed":
                self.gate.give_up(outcome.text)  # before the next one gets this call's place
            else:
                self.gate.well()
            return outcome
        finally:
            self.gate.leave(slot)

    def _keep(self, key: bytes, sent: bytes, answer: dict[str, Any]) -> dict[str, Any]:
        """Count an answer and commit it."""
        tokens_in, tokens_out = answer["tokens"]
        measure = self.office.measure(self.url, self.model)
        if tokens_in:
            measure.learn(len(sent), tokens_in)
        if tokens_in is None or tokens_out is None:
            self.figures.uncounted += 1
            tokens_in, tokens_out = measure.most(len(sent)), measure.most(len(json.dumps(answer["message"])))
        money = self.prices.of(tokens_in, tokens_out)
        self.figures.paid(tokens_in, tokens_out, money)
        self.figures.by.update([" ".join(answer["by"])] if answer["by"] else [])
        return self.office.cache.put(key, answer, Paid(self.purse.ledger, self.role, self.model, tokens_in, tokens_out, money))

    async def _post(self, sent: bytes) -> Outcome:
        import httpx

        try:
            async with asyncio.timeout(self.pace.timeout):
                response = await self.office.connections.post(self.target, self.headers, sent)
        except TimeoutError:
            return Outcome("ill", f"no answer within timeout_seconds = {self.pace.timeout:g}")
        except httpx.HTTPError as error:
            return Outcome("ill", self.clean(f"the connection failed ({type(error).__name__}: {error})"))
        if response.status_code == 200:
            return self._read(response)
        return self._refusal(response)

    def _read(self, response: httpx.Response) -> Outcome:
        try:
            return Outcome("well", answer=take(response.content))
        except Garbled as error:
            return Outcome("ill", self.clean(str(error)))

    def _refusal(self, response: httpx.Response) -> Outcome:
        """What a status other than 200 means."""
        status, (code, words) = response.status_code, _error(response)
        said = self.clean(f"status {status}{f' ({words})' if words else ''}")
        if code == "insufficient_quota":
            return Outcome("closed", f"the server says that the quota is used up: {said}")
        if status in (429, 503, 529):
            wait = retry_after(response.headers.get("retry-after"), response.headers.get("date"))
            if wait > LONGEST_HOLD:
                return Outcome("closed", f"the server wants no calls for {wait:.0f} s: {said}. Run again after that")
            return Outcome("busy", f"the server is too busy: {said}", wait)
        if status in _CLOSED:
            return Outcome("closed", f"the server {_CLOSED[status]}: {said}")
        if status in _STRICT:
            return Outcome("strict", f"the server {_STRICT[status]}: {said}")
        if 300 <= status < 400:
            return Outcome("closed", f"base_url leads elsewhere ({said}); name the place itself, a key is not sent on")
        if 400 <= status < 500 and status not in (408, 409, 425):
            return Outcome("strict", f"the server does not accept the request: {said}")
        return Outcome("ill", f"the server failed: {said}")


def _error(response: httpx.Response) -> tuple[str, str]:
    """(code, words) of an error's body, as far as it has them."""
    try:
        said = response.json()
        error = said.get("error", said) if isinstance(said, dict) else said
        if isinstance(error, dict):
            return str(error.get("code") or error.get("type") or ""), str(error.get("message") or error.get("detail") or "")[:300]
        return "", str(error)[:300]
    except (ValueError, RecursionError):
        return "", response.text.strip()[:100]
