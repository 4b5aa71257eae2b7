"""Putting the questions: all servers at once, each question once in a process.

Each server is asked for its list of models and what its roles need. Answers are not kept, but their price is in the run's ledger.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tasks.contract.client import BudgetSpent, Request
from tasks.contract.params import BadInput
from tasks.engine import server_keys as keys
from tasks.engine.preflight.questions import NEEDS, ROOM, UNPAID, Player, ServerAnswer, cut, unfit
from tasks.engine.preflight.verdicts import ServerReport, report_of
from tasks.players.openai_compatible import Dialect, Prices, Setting
from tasks.players.openai_compatible.cache import Paid
from tasks.players.openai_compatible.client import MEND
from tasks.players.openai_compatible.rate_limit import retry_after
from tasks.players.openai_compatible.refusals import inside
from tasks.players.openai_compatible.shared import SharedState, run, shared_state
from tasks.players.openai_compatible.wire import Garbled, body, take

TRIES = 3
"""Attempts at a question while the connection fails or the server breaks down."""
PAUSE = 0.5
"""Seconds before the second attempt; twice as many before the third."""
PATIENCE = 60.0
"""Seconds in all that a server may put us off (429, 503)."""
LISTING = 10.0
"""Seconds for the list of models."""
SILENT = 30.0
"""Seconds for a question, at most, to a server that did not give its list."""

_known: dict[tuple[Any, ...], ServerAnswer] = {}
"""What was heard in this process; failures are asked again."""


def meet(players: Sequence[Player], setting: Setting) -> dict[str, ServerReport]:
    """player -> what its server is like. setting: whose ledger pays, within which budget. BadInput when a key cannot be had."""
    secrets = {player.name: keys.of(player.role.model_dump()) for player in players}
    return run(_meet(players, secrets, setting))


async def _meet(players: Sequence[Player], secrets: Mapping[str, str], setting: Setting) -> dict[str, ServerReport]:
    asking: dict[tuple[Any, ...], asyncio.Task[ServerAnswer]] = {}

    def once(name: tuple[Any, ...], ask: Callable[[], Any]) -> asyncio.Task[ServerAnswer]:
        if name not in asking:
            asking[name] = asyncio.create_task(_remembered(name, ask))
        return asking[name]

    async def one(player: Player) -> ServerReport:
        interview = _Interview(player, secrets[player.name], setting, shared_state(setting.state))
        place = (player.url, player.role.key_env, player.role.key_block)
        listed = await once((*place, "models"), interview.models)
        if listed.status == 0 and not listed.there:
            return report_of(player, listed, {})
        if listed.status == 0:  # it may answer questions all the same, but not be waited for as long as in a run
            interview = replace(interview, most=SILENT)
        names = NEEDS.get(player.name.partition("/")[0], ("form",))
        limit = player.question(names[0]).max_tokens
        tasks = [once((*place, player.dialect, limit, name), partial(interview.question, name)) for name in names]
        return report_of(player, listed, dict(zip(names, await asyncio.gather(*tasks), strict=True)))

    return dict(zip([player.name for player in players], await asyncio.gather(*map(one, players)), strict=True))


async def _remembered(name: tuple[Any, ...], ask: Callable[[], Any]) -> ServerAnswer:
    if name not in _known:
        heard: ServerAnswer = await ask()
        if heard.status != 200:
            return heard
        _known[name] = heard
    return _known[name]


@dataclass(frozen=True)
class _Interview:
    """Puts one player's questions and has them paid. most: seconds for an answer, whatever the role's time-out."""

    player: Player
    secret: str
    setting: Setting
    shared: SharedState
    most: float = math.inf

    async def models(self) -> ServerAnswer:
        """The list of models; many servers have none, which is no fault."""
        return await self._send("GET", "/models", b"", LISTING)

    async def question(self, name: str) -> ServerAnswer:
        """One question; what was cut is asked with more room, a form that cannot be used again as the client would, then in words."""
        dialect, request = self.player.dialect, self.player.question(name)
        heard = await self._ask(dialect, request)
        if heard.kept is not None and cut(heard):
            more = await self._ask(dialect, request, ROOM)
            return heard if more.kept is None else more if cut(more) else replace(more, words="with room")
        if request.schema is None or heard.kept is None or not (wrong := unfit(heard)):
            return heard
        repair = ({"role": "assistant", "content": heard.reply.message["content"]}, {"role": "user", "content": MEND.format(why=wrong)})
        again = await self._ask(dialect, replace(request, messages=[*request.messages, *repair]))
        if again.kept is not None and not unfit(again):
            return replace(heard, words="repaired")
        if dialect.structured != "prompt":
            told = await self._ask(replace(dialect, structured="prompt"), request)
            if told.kept is not None and not unfit(told):
                return replace(heard, words="in words")
        return heard

    async def _ask(self, dialect: Dialect, request: Request, room: int = 1) -> ServerAnswer:
        sent, role = body(dialect, request, room), self.player.role
        prices = Prices(role.price_in, role.price_out)
        budget = self.shared.budget(self.setting.ledger, self.setting.limits)
        most = self.shared.token_estimate(self.player.url, role.model).most(len(sent)), dialect.most(request, room)
        try:
            number = await budget.reserve(sum(most), prices.of(*most))
        except BudgetSpent as spent:
            return ServerAnswer(UNPAID, str(spent))
        try:
            heard = await self._send("POST", "/chat/completions", sent, min(role.timeout_seconds, self.most))
            heard = replace(heard, offered=bool(request.tools))
            if heard.kept is not None:
                used = [most[place] if count is None else count for place, count in enumerate(heard.kept["tokens"])]
                paid = Paid(self.setting.ledger, self.player.name, role.model, used[0], used[1], prices.of(*used))
                self.shared.cache.pay(paid)
            return heard
        finally:
            budget.release(number)

    async def _send(self, method: str, path: str, content: bytes, seconds: float) -> ServerAnswer:
        """Ask until there is an answer that another attempt would not change."""
        import httpx

        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.secret}"} if self.secret else {})
        url, tried, waited = httpx.URL(f"{self.player.url}{path}"), 0, 0.0
        while True:
            wait = 0.0
            try:
                async with asyncio.timeout(seconds):
                    response = await self.shared.connections.send(method, url, headers, content)
                heard = self._read(response)
                wait = retry_after(response.headers.get("retry-after"), response.headers.get("date"))
            except TimeoutError:
                return ServerAnswer(0, f"gives no answer within {seconds:g} s")
            except httpx.HTTPError as error:
                there = not isinstance(error, httpx.ConnectError)
                heard = ServerAnswer(0, self._clean(f"cannot be reached ({type(error).__name__}: {error})"), there=there)
            busy = heard.status in (429, 503, 529)
            no_answer = method == "POST" and heard.status == 200 and heard.kept is None
            ill = heard.status in (0, 408, 409, 425) or heard.status >= 500 or no_answer
            tried += not busy
            wait = wait or PAUSE * 2 ** min(tried, 4)
            waited += wait if busy else 0.0
            if not (busy or ill) or tried >= TRIES or waited > PATIENCE or (method == "GET" and heard.status):
                return heard
            await asyncio.sleep(wait)

    def _read(self, response: Any) -> ServerAnswer:
        try:
            said = json.loads(response.content)
        except (ValueError, RecursionError):
            said = None
        said = said if isinstance(said, dict) else {}
        if response.status_code != 200:
            words = _words(said) or response.headers.get("location") or response.text.strip()[:200]
            return ServerAnswer(response.status_code, self._clean(words), body=said)
        if "data" in said and "choices" not in said:
            return ServerAnswer(200, body=said)
        try:
            return ServerAnswer(200, kept=take(response.content), body=said)
        except Garbled as error:
            if verdict := inside(said, 0.0):
                return ServerAnswer(
                    {"busy": 429, "ill": 500, "closed": 402}.get(verdict.kind, 400), self._clean(verdict.text), body=said
                )
            return ServerAnswer(200, self._clean(_words(said) or str(error)), body=said)

    def _clean(self, text: str) -> str:
        return text.replace(self.secret, "<the key>") if self.secret else text


def _words(body: Mapping[str, Any]) -> str:
    """What an error's body says."""
    error = body.get("error") or body.get("detail") or body.get("message") or ""
    found = error.get("message") or error.get("type") if isinstance(error, Mapping) else error
    return " ".join(str(found or "").split())[:300]


def check(reports: Mapping[str, ServerReport], players: Sequence[Player]) -> None:
    """Raise BadInput when a server would lose everything that a role asks of it; each on a line of its own,
    with all the places that say it."""
    places: dict[str, dict[str, None]] = {}
    for player in players:
        if stop := reports[player.name].stop:
            places.setdefault(stop, {})[player.where] = None
    if places:
        raise BadInput("\n".join(f"{', '.join(where)}: {stop}" for stop, where in places.items()))
