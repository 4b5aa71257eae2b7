"""The first questions to a model server, before a stage pays for thousands: who answers, and does it answer as its roles need it?

Each server is asked once for its list of models and, for each way in which a role will ask it, one small question with the role's own
settings: a tool to call, an answer after a call without words, a form to fill in, a conversation as the simulated human sees it. What
would lose every answer is said with its remedy and stops the run; what is only odd is a note. All servers are asked at once, each
question once in a process; answers are not kept, but their price is in the run's ledger.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from tasks.chat.answers import read_json
from tasks.contract.client import BudgetSpent, Message, Request
from tasks.contract.params import BadInput, nearest
from tasks.engine import server_keys as keys
from tasks.engine.settings import Role
from tasks.players.openai_compatible import Dialect, Prices, Setting
from tasks.players.openai_compatible.cache import Paid
from tasks.players.openai_compatible.client import MEND
from tasks.players.openai_compatible.rate_limit import retry_after
from tasks.players.openai_compatible.refusals import inside
from tasks.players.openai_compatible.shared import SharedState, run, shared_state
from tasks.players.openai_compatible.wire import Garbled, Reply, body, read, take

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
UNPAID = -1
"""In place of a status: not asked, for lack of budget."""
ITEM = "A7"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up_item",
        "description": "Look an item up by its id.",
        "parameters": {"type": "object", "properties": {"item_id": {"type": "string"}}, "required": ["item_id"]},
    },
}
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
}
_WANT: Message = {"role": "user", "content": f"Which colour has item {ITEM}? Look it up with the tool."}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": TOOL["function"]["name"], "arguments": {"item_id": ITEM}}}
    ],
}
_RESULT: Message = {"role": "tool", "tool_call_id": "call_0", "name": TOOL["function"]["name"], "content": '{"colour": "green"}'}
_USER: Message = {"role": "system", "content": "You are the user of an assistant and want to borrow a lamp. Write your next line."}
QUESTIONS: Mapping[str, Request] = {
    "call": Request([_WANT], tools=[TOOL]),
    "after a call": Request([_WANT, _CALL, _RESULT], tools=[TOOL]),
    "form": Request([{"role": "user", "content": "How warm is the colour red, from 0 to 10?"}], schema=FORM),
    "opening": Request([_USER]),
    "talk": Request([_USER, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "What can I do for you?"}]),
}
"""Name -> question. Each is put as the role will put its own: with its seed, temperature, way of asking for forms and limits."""
LIMITS: Mapping[str, int] = {
    **dict.fromkeys(("generator", "recombiner"), 2048),
    **dict.fromkeys(("critic", "meta_critic", "aggregator"), 1024),
    **dict.fromkeys(("judge", "feedback"), 512),
    "agent": 256,
    "human": 128,
    "human_critic": 32,
}
"""role -> most tokens of an answer as its room asks by default: with less room than in the run, a model that thinks first would be
refused here that does well there. A role's own max_tokens goes before."""
ROOM = 4
"""Times the room that an answer gets which was cut before it said anything, as in the run."""
NEEDS: Mapping[str, tuple[str, ...]] = {"agent": ("call", "after a call"), "human": ("opening", "talk")}
"""role -> the questions that are like its own; all other roles fill in forms."""
PARSERS = {
    "vllm": "vLLM: --enable-auto-tool-choice --tool-call-parser NAME",
    "sglang": "SGLang: --tool-call-parser NAME",
    "llamacpp": "llama.cpp: --jinja",
}
"""What /v1/models says of its owner -> the server's setting that reads calls out of the model's text."""
AS_TEXT = re.compile(
    r"<\|?tool_?call|<function\b|<function=|\[TOOL_CALLS|<\|python_tag\|>|```tool_code|functools\["
    r'|[{\[(].*look_up_item|look_up_item\s*[({\[]|"name"\s*:.*"(?:arguments|parameters)"\s*:',
    re.DOTALL,
)
"""How families of models write a call where nobody reads it out of their text, and a call of our tool however it is written."""


@dataclass(frozen=True)
class Player:
    """Who plays a role at a server. name: judge, judge/2. where: its place in the params, for messages."""

    name: str
    where: str
    role: Role

    @property
    def dialect(self) -> Dialect:
        """How it is asked."""
        return Dialect(**{field.name: getattr(self.role, field.name) for field in fields(Dialect)})

    def question(self, name: str) -> Request:
        """A question with the room that the role's own have."""
        return replace(QUESTIONS[name], max_tokens=LIMITS[self.name.partition("/")[0]])

    @property
    def url(self) -> str:
        """Where it is asked."""
        return self.role.base_url.rstrip("/")


@dataclass(frozen=True)
class Heard:
    """What came of one question. status: of HTTP, 0 without any answer, UNPAID. words: of an error. kept: the answer, if it is one;
    said: the whole of what came. offered: a tool was offered. there: false when nothing took the connection."""

    status: int
    words: str = ""
    kept: Mapping[str, Any] | None = None
    said: Mapping[str, Any] | None = None
    offered: bool = False
    there: bool = True

    @property
    def reply(self) -> Reply:
        """The answer as the client would read it."""
        assert self.kept is not None
        return read(self.kept, 0, self.offered)


@dataclass(frozen=True)
class Met:
    """What is known of a player's server: the report for params/roles.lock (empty when the budget had nothing left to ask with), what
    stops a run ("" for nothing), what is odd."""

    report: Mapping[str, Any]
    stop: str = ""
    notes: tuple[str, ...] = ()


_known: dict[tuple[Any, ...], Heard] = {}
"""What was heard in this process; failures are asked again."""


def forget() -> None:
    """Ask anew: for tests, whose servers change."""
    _known.clear()


def meet(players: Sequence[Player], setting: Setting) -> dict[str, Met]:
    """player -> what its server is like. setting: whose ledger pays, within which budget. BadInput when a key cannot be had."""
    secrets = {player.name: keys.of(player.role.model_dump()) for player in players}
    return run(_meet(players, secrets, setting))


async def _meet(players: Sequence[Player], secrets: Mapping[str, str], setting: Setting) -> dict[str, Met]:
    asking: dict[tuple[Any, ...], asyncio.Task[Heard]] = {}

    def once(name: tuple[Any, ...], ask: Callable[[], Any]) -> asyncio.Task[Heard]:
        if name not in asking:
            asking[name] = asyncio.create_task(_remembered(name, ask))
        return asking[name]

    async def one(player: Player) -> Met:
        interview = _Interview(player, secrets[player.name], setting, shared_state(setting.state))
        place = (player.url, player.role.key_env, player.role.key_block)
        listed = await once((*place, "models"), interview.models)
        if listed.status == 0 and not listed.there:
            return _met(player, listed, {})
        if listed.status == 0:  # it may answer questions all the same, but not be waited for as long as in a run
            interview = replace(interview, most=SILENT)
        names = NEEDS.get(player.name.partition("/")[0], ("form",))
        limit = player.question(names[0]).max_tokens
        tasks = [once((*place, player.dialect, limit, name), partial(interview.question, name)) for name in names]
        return _met(player, listed, dict(zip(names, await asyncio.gather(*tasks), strict=True)))

    return dict(zip([player.name for player in players], await asyncio.gather(*map(one, players)), strict=True))


async def _remembered(name: tuple[Any, ...], ask: Callable[[], Any]) -> Heard:
    if name not in _known:
        heard: Heard = await ask()
        if heard.status != 200:
            return heard
        _known[name] = heard
    return _known[name]


@dataclass(frozen=True)
class _Interview:
    """Where one player's questions are put and paid. most: seconds for an answer, whatever the role's time-out."""

    player: Player
    secret: str
    setting: Setting
    shared: SharedState
    most: float = math.inf

    async def models(self) -> Heard:
        """The list of models; many servers have none, which is no fault."""
        return await self._send("GET", "/models", b"", LISTING)

    async def question(self, name: str) -> Heard:
        """One question; what was cut is asked with more room, a form that cannot be used again as the client would, then in words."""
        dialect, request = self.player.dialect, self.player.question(name)
        heard = await self._ask(dialect, request)
        if heard.kept is not None and _cut(heard):
            more = await self._ask(dialect, request, ROOM)
            return heard if more.kept is None else more if _cut(more) else replace(more, words="with room")
        if request.schema is None or heard.kept is None or not (wrong := _unfit(heard)):
            return heard
        repair = ({"role": "assistant", "content": heard.reply.message["content"]}, {"role": "user", "content": MEND.format(why=wrong)})
        again = await self._ask(dialect, replace(request, messages=[*request.messages, *repair]))
        if again.kept is not None and not _unfit(again):
            return replace(heard, words="repaired")
        if dialect.structured != "prompt":
            told = await self._ask(replace(dialect, structured="prompt"), request)
            if told.kept is not None and not _unfit(told):
                return replace(heard, words="in words")
        return heard

    async def _ask(self, dialect: Dialect, request: Request, room: int = 1) -> Heard:
        sent, role = body(dialect, request, room), self.player.role
        prices = Prices(role.price_in, role.price_out)
        budget = self.shared.budget(self.setting.ledger, self.setting.limits)
        most = self.shared.token_estimate(self.player.url, role.model).most(len(sent)), dialect.most(request, room)
        try:
            number = await budget.reserve(sum(most), prices.of(*most))
        except BudgetSpent as spent:
            return Heard(UNPAID, str(spent))
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

    async def _send(self, method: str, path: str, content: bytes, seconds: float) -> Heard:
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
                return Heard(0, f"gives no answer within {seconds:g} s")
            except httpx.HTTPError as error:
                there = not isinstance(error, httpx.ConnectError)
                heard = Heard(0, self._clean(f"cannot be reached ({type(error).__name__}: {error})"), there=there)
            busy = heard.status in (429, 503, 529)
            no_answer = method == "POST" and heard.status == 200 and heard.kept is None
            ill = heard.status in (0, 408, 409, 425) or heard.status >= 500 or no_answer
            tried += not busy
            wait = wait or PAUSE * 2 ** min(tried, 4)
            waited += wait if busy else 0.0
            if not (busy or ill) or tried >= TRIES or waited > PATIENCE or (method == "GET" and heard.status):
                return heard
            await asyncio.sleep(wait)

    def _read(self, response: Any) -> Heard:
        try:
            said = json.loads(response.content)
        except (ValueError, RecursionError):
            said = None
        said = said if isinstance(said, dict) else {}
        if response.status_code != 200:
            words = _words(said) or response.headers.get("location") or response.text.strip()[:200]
            return Heard(response.status_code, self._clean(words), said=said)
        if "data" in said and "choices" not in said:
            return Heard(200, said=said)
        try:
            return Heard(200, kept=take(response.content), said=said)
        except Garbled as error:
            if verdict := inside(said, 0.0):
                return Heard({"busy": 429, "ill": 500, "closed": 402}.get(verdict.kind, 400), self._clean(verdict.text), said=said)
            return Heard(200, self._clean(_words(said) or str(error)), said=said)

    def _clean(self, text: str) -> str:
        return text.replace(self.secret, "<the key>") if self.secret else text


def _words(body: Mapping[str, Any]) -> str:
    """What an error's body says."""
    error = body.get("error") or body.get("detail") or body.get("message") or ""
    found = error.get("message") or error.get("type") if isinstance(error, Mapping) else error
    return " ".join(str(found or "").split())[:300]


def _cut(answer: Heard) -> bool:
    """Whether an answer ended before it had said or called anything."""
    return answer.reply.truncated and answer.reply.empty


def _unfit(answer: Heard) -> str:
    return read_json(answer.reply.message, FORM)[1]


# --- what it means ---------------------------------------------------------------------------------------------------


def _met(player: Player, listed: Heard, answers: Mapping[str, Heard]) -> Met:
    """The answers of one player's server, understood."""
    entries = _entries(listed)
    answered = next((str(one.said["model"]) for one in answers.values() if one.kept and one.said and one.said.get("model")), "")
    entry = _entry(entries, player.role.model)
    if unpaid := [one.words for one in answers.values() if one.status == UNPAID]:
        return Met({}, notes=(unpaid[0],))
    notes: list[str] = []
    stop = "" if answers or listed.status else f"{player.url} {listed.words}. Is the server running, and is base_url right?"
    for name, one in answers.items():
        fault, odd = _judged(name, one, player, entry, [*entries])
        stop = stop or fault
        notes += [note for note in odd if note not in notes]
    if entries and not entry and not stop:
        notes.append(f"its list of models has no {player.role.model!r}, only {_some([*entries])}; it answers all the same")
    return Met(_report(player.role.model, answered, entry), stop, tuple(notes))


def _entries(listed: Heard) -> dict[str, Mapping[str, Any]]:
    data = (listed.said or {}).get("data")
    found = data if listed.status == 200 and isinstance(data, list) else []
    return {str(one["id"]): one for one in found if isinstance(one, Mapping) and one.get("id")}


def _entry(entries: Mapping[str, Mapping[str, Any]], model: str) -> Mapping[str, Any]:
    """The model's line in the list; of a list of one that line, since servers with one model take any name for it."""
    return entries.get(model) or (next(iter(entries.values())) if len(entries) == 1 else {})


def _report(model: str, answered: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is written down; see tasks/engine/roles_lock.py for what is left out and why."""
    meta = entry.get("meta")
    sizes = (
        {name: meta[name] for name in ("n_params", "n_vocab", "size") if isinstance(meta.get(name), int)}
        if isinstance(meta, dict)
        else {}
    )
    said = {"asked": model, "answered": answered, "root": entry.get("root"), "parent": entry.get("parent"), "meta": sizes}
    return {name: value if isinstance(value, dict) else _plain(value) for name, value in said.items() if value}


def _plain(value: Any) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value)[:200])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _judged(name: str, answer: Heard, player: Player, entry: Mapping[str, Any], models: Sequence[str]) -> tuple[str, list[str]]:
    """(what would lose every such answer, what is odd) in the answer to a question."""
    role = player.role
    if answer.status == 0:
        return f"{role.base_url} {answer.words}. Is the server running, and is base_url right?", []
    if answer.status != 200 or answer.kept is None:
        return _refused(name, answer, player, entry, models), []
    reply, raw = answer.reply, answer.kept["message"]
    text = raw.get("content") if isinstance(raw.get("content"), str) else ""
    odd = []
    if None in answer.kept["tokens"]:
        odd.append("it does not count tokens: budgets go by an estimate")
    if "</think>" in text or "<think>" in text:
        odd.append("its thoughts stand in its answers; Cairn leaves them out" + ("" if role.thinking else f". {_ROOM}"))
    most = player.dialect.most(player.question(name))
    if _cut(answer):
        return f"{role.model!r} says nothing within {most} tokens, nor with {ROOM} times as many: it thinks first. {_ROOM}", odd
    if answer.words == "with room":
        odd.append(f"it says nothing within {most} tokens, only with {ROOM} times as many, so each answer is paid for twice. {_ROOM}")
    if reply.refused:
        odd.append(f"the model, or a filter in front of it, declines one small question ({_short(reply.message['content'])})")
    elif name == "call" and reply.bad:
        odd.append(
            f"its tool calls cannot be read ({_short(json.dumps(raw['tool_calls']))}). See the server's tools ({_parsers(entry)})"
        )
    elif name == "call" and not raw.get("tool_calls"):
        if reply.message.get("tool_calls"):
            odd.append(f"it leaves tool calls as text, which Cairn reads; better is the server's own setting ({_parsers(entry)})")
        elif AS_TEXT.search(text):
            return f"the server leaves tool calls as text ({_short(text)}). Start it with its tool parser: {_parsers(entry)}.", odd
        else:
            odd.append(
                f"asked to call a tool it called none ({_short(text)}). If that goes on, see the server's tools ({_parsers(entry)})"
            )
    if name == "form" and not reply.refused:
        if answer.words == "in words":
            told = f"ignores structured: {role.structured} ({_short(text)}), but does as told in words"
            return f"the server {told}. Write structured: prompt.", odd
        if answer.words == "repaired":
            odd.append(f"it keeps to a form only when asked twice ({_short(text)}); structured: prompt may spare the second time")
        elif _unfit(answer):
            odd.append(f"asked for a form it gave none, however it was asked ({_unfit(answer)})")
    return "", odd


_ROOM = "thinking: 4000 in its role gives it room for that"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _parsers(entry: Mapping[str, Any]) -> str:
    return PARSERS.get(str(entry.get("owned_by")), "; ".join(PARSERS.values()))


def _refused(name: str, answer: Heard, player: Player, entry: Mapping[str, Any], models: Sequence[str]) -> str:
    """A question that the server does not answer, with the remedy as far as its words tell."""
    role, words = player.role, answer.words.lower()
    said = f"status {answer.status}{f': {answer.words}' if answer.words else ''}"
    if 300 <= answer.status < 400:
        return f"base_url leads elsewhere ({said}). Name the place itself: a key is not sent on."
    if answer.status in (401, 403):
        given = (
            f"the key in {role.key_env or role.key_block}"
            if role.key_env or role.key_block
            else "calls without a key; name one by key_env"
        )
        return f"the server refuses {given} ({said})"
    if name in ("call", "after a call") and re.search(r"tool|jinja|function", words):
        return f"the server takes no tools ({said}). Start it with its tool parser: {_parsers(entry)}."
    if answer.status == 200 and "not a chat completion" in answer.words:
        return f"{player.url} gives no chat completion ({answer.words}). Does base_url end where such an API begins, often /v1?"
    if answer.status in (402, 408, 409, 425, 429, 503, 529) or answer.status >= 500:
        return f"the server does not answer one small question ({said}). Run again when it does."
    if name == "after a call" and re.search(r"content|empty|null|none", words) and not re.search("context", words):
        others = " or ".join(way for way in ("null", "absent", "empty") if way != role.content_beside_calls)
        return f"the server refuses a message that only calls tools ({said}). Write content_beside_calls: {others}."
    for pattern, remedy in _remedies(player):
        if re.search(pattern, words):
            return f"the server refuses what is asked with every question ({said}). {remedy}"
    if answer.status == 404 or re.search(r"model.*(not|n't|no such|unknown|invalid)|unknown model", words):
        known = f"{nearest(role.model, models)} It has {_some(models)}." if models else " It does not say which it has."
        return f"the server has no model {role.model!r} ({said}).{known}" + (
            "" if models else " Does base_url end where the API begins, often /v1?"
        )
    return f"the server refuses {_KINDS[name]} ({said}), so every conversation of this role would be lost"


_KINDS = {
    "call": "a question with a tool",
    "after a call": "a conversation with a tool call beside which nothing is said, and its result",
    "form": "a question with a schema",
    "opening": "a conversation that begins with a system message alone",
    "talk": "a conversation in which the model speaks first",
}


def _remedies(player: Player) -> list[tuple[str, str]]:
    role, most = player.role, player.dialect.most(player.question("form"))
    other = "max_completion_tokens" if role.limit_field == "max_tokens" else "max_tokens"
    return [
        (r"max_tokens|max_completion_tokens", f"Write limit_field: {other}."),
        (
            r"context|too long|n_ctx",
            f"It has no room for {most} tokens of an answer: lower max_tokens and thinking, or give the server more.",
        ),
        (r"\bseed\b", "Write send_seed: false."),
        (r"temperature", "Write temperature: 1, or what the server takes."),
        (
            r"response_format|json_schema|json_object|guided|grammar|structured",
            f"Write structured: {'json_object or ' if role.structured == 'json_schema' else ''}prompt.",
        ),
    ]


def check(met: Mapping[str, Met], players: Sequence[Player]) -> None:
    """Raise BadInput when a server would lose everything that a role asks of it; each on a line of its own."""
    wrong = [f"{player.where}: {met[player.name].stop}" for player in players if met[player.name].stop]
    if wrong:
        raise BadInput("\n".join(dict.fromkeys(wrong)))
