"""A chat-completions server for tests and benchmarks that answers from what it is asked, and misbehaves on demand.

    python -m infra.stub_server '{"latency": 0.1, "faults": {"500": 0.1, "hang": 0.02}}' [PORT]

prints the port it took on loopback (any that is free, or PORT) and serves until it is killed or its standard input ends. The same
request gets the same answer, and the n-th try of a request the same fault, in every process. GET /counts tells what was served, PUT
/knobs changes how.

Faults, each with its rate: 429, 429_after (with Retry-After), 429_date (with an HTTP date), 503, 500, reset (of the connection), hang
(no answer at all), garbage (a body that is no JSON), malformed (an answer that is not the JSON that was wanted, or arguments that are
none), truncated (finish_reason length), refusal, filter. malformed and truncated are slips of a model: they strike where a form or a
tool call is wanted, and the first answer in a conversation alone; a second round there is answered well.

Refused for good: context and filter_400 (status 400), hot (status 500, whenever it is asked). An error inside a status 200: inside_ and
its number (inside_429 with Retry-After), errored (finish_reason error). Odd answers: half (half a surrogate pair in words, names and
arguments), empty, cut (finish_reason length whatever the room), as_text (a tool call in words, as one family of models writes it),
tagged (as most do), no_arguments (null), two_calls (the second with arguments that are no JSON).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from typing import Any

from tasks.players import stand_in
from tasks.players.stand_in import fill

WISH = "Answer with one JSON value that fits this schema: "
"""As the clients put a schema in words."""
SLIPS = ("malformed", "truncated")
REFUSED = {
    "context": (400, "context_length_exceeded", "This model's maximum context length is 2048 tokens, however you requested 2500"),
    "filter_400": (400, "content_filter", "The response was filtered"),
    "hot": (500, None, "Failed to parse what the model wrote"),
}
"""Fault -> status, code and words of an answer that comes however often it is asked."""
BROKEN = '{"broken": '
"""What a malformed answer is; a conversation counts up to the first of these for what is answered."""


@dataclass
class Knobs:
    """How the server behaves. latency: seconds before each answer. faults: name -> rate. retry_after: seconds it asks for. capacity:
    requests at once above which it says 429, 0 for any number. key: the only one it takes, empty for any.
    usage: whether it counts tokens. models: those it lists and takes, name -> more of its entry; any name without one. revision: after
    the model's name in its answers. parser: whether it reads calls out of the model's text. forms: whether it keeps to a schema.
    refused: fields of a request that it does not know. plays: it plays the roles of a road (tasks/players/stand_in.py)."""

    latency: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    retry_after: float = 1.0
    capacity: int = 0
    key: str = ""
    usage: bool = True
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    revision: str = ""
    parser: bool = True
    forms: bool = True
    plays: bool = False
    refused: list[str] = field(default_factory=list)


@dataclass
class Server:
    """Counts and answers. tries: digest of a body -> how often it came; paid: -> how often it was answered."""

    knobs: Knobs
    served: Counter[str] = field(default_factory=Counter)
    tries: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    slipped: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    open: int = 0
    most: int = 0

    def counts(self) -> dict[str, Any]:
        """What was served so far. twice: answers to a body that had been answered; times: of the arrivals, on this machine's clock."""
        twice = sum(count - 1 for count in self.paid.values())
        kinds = dict(self.served)
        return {"served": kinds, "paid": self.paid.total(), "twice": twice, "open": self.open, "most": self.most, "times": self.times}

    def turn(self, change: Mapping[str, Any]) -> None:
        """Change knobs and start counting anew."""
        known = {one.name for one in fields(Knobs)}
        for name, value in change.items():
            if name not in known:
                raise ValueError(f"no knob {name!r}; known: {', '.join(sorted(known))}")
            setattr(self.knobs, name, value)
        for counter in (self.served, self.tries, self.paid):
            counter.clear()
        self.slipped.clear()
        self.times.clear()
        self.most = 0

    def fault(self, digest: str) -> str:
        """The fault of this try of a body, or an empty string."""
        self.tries[digest] += 1
        again = any(name in self.knobs.faults for name in REFUSED)  # what is refused for good is refused at every try
        drawn = random.Random(f"{digest} {1 if again else self.tries[digest]}").random()
        for name, rate in self.knobs.faults.items():
            if drawn < rate:
                return name
            drawn -= rate
        return ""

    async def answer(self, body: bytes, key: str, gone: asyncio.Event) -> tuple[int, dict[str, str], bytes] | None:
        """(status, headers, body), or None to cut the connection. gone: set when nobody waits any more, which stops no answer (a real
        server would charge for it too), only a hang."""
        self.times.append(time.time())
        if self.knobs.key and key != f"Bearer {self.knobs.key}":
            self.served["401"] += 1
            return _error(401, f"Incorrect API key provided: {key.removeprefix('Bearer ')}")
        if self.knobs.capacity and self.open > self.knobs.capacity:
            self.served["429"] += 1
            return _error(429, "too many at once")
        if wrong := self.refusal(json.loads(body)):
            self.served[str(wrong[0])] += 1
            return _error(*wrong)
        digest = hashlib.sha256(body).hexdigest()
        fault = self.fault(digest)
        if fault == "hang":
            self.served[fault] += 1
            await gone.wait()
            return None
        if self.knobs.latency and fault not in ("429", "429_after", "429_date", "503"):
            await asyncio.sleep(self.knobs.latency)
        if fault == "reset":
            self.served[fault] += 1
            return None
        if fault in ("429", "503", "500"):
            self.served[fault] += 1
            return _error(int(fault), "on demand")
        if fault in ("429_after", "429_date"):
            self.served[fault] += 1
            later = self.knobs.retry_after
            when = f"{later:g}" if fault == "429_after" else formatdate(time.time() + later, usegmt=True)
            return _error(429, "on demand", {"Retry-After": when})
        if fault in REFUSED:
            self.served[fault] += 1
            status, code, words = REFUSED[fault]
            return _error(status, words, code=code)
        if fault.startswith("inside_"):
            self.served[fault] += 1
            later = {"Retry-After": f"{self.knobs.retry_after:g}"} if fault == "inside_429" else {}
            return 200, later, json.dumps({"error": {"message": "on demand", "code": int(fault[7:])}}).encode()
        if fault == "garbage":
            self.served[fault] += 1
            return 200, {}, b"<html>502 Bad Gateway</html>"
        status, said, served = self.completion(json.loads(body), fault)
        self.served[served] += 1
        self.paid[digest] += 1
        return status, {}, json.dumps(said).encode()

    def refusal(self, request: Mapping[str, Any]) -> tuple[int, str] | None:
        """(status, words) for a request that is not taken."""
        for name in self.knobs.refused:
            if name in request:
                return 400, f"Unsupported parameter: '{name}' is not supported with this model."
        if self.knobs.models and request["model"] not in self.knobs.models:
            return 404, f"The model `{request['model']}` does not exist."
        return None

    def listing(self) -> bytes:
        """The answer to GET /v1/models."""
        data = [{"id": name, "object": "model", "created": int(time.time()), **more} for name, more in self.knobs.models.items()]
        return json.dumps({"object": "list", "data": data}).encode()

    def completion(self, request: Mapping[str, Any], fault: str) -> tuple[int, dict[str, Any], str]:
        """A chat completion, and what it counts as."""
        messages = _unbroken(request["messages"])
        name = json.dumps([request["model"], messages, request.get("tools"), request.get("seed"), request.get("temperature")])
        rng = random.Random(hashlib.sha256(name.encode()).hexdigest())
        message: dict[str, Any] = {"role": "assistant", "content": None}
        finish, formed = "stop", True
        schema = (request.get("response_format") or {}).get("json_schema", {}).get("schema") if self.knobs.forms else None
        schema = schema or _wished(messages)
        if self.knobs.plays:
            message |= stand_in.message(messages, request.get("tools") or (), schema, rng)
            finish = "tool_calls" if message.get("tool_calls") else "stop"
        elif schema:
            message["content"] = json.dumps(fill(schema, rng))
        elif request.get("tools") and messages[-1]["role"] == "user":
            function = rng.choice(request["tools"])["function"]
            arguments = json.dumps(fill(function.get("parameters", {"type": "object"}), rng))
            call = {
                "id": f"chatcmpl-{rng.random()}",
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
            if self.knobs.parser:
                message["tool_calls"], finish = [call], "tool_calls"
            else:
                spoken = {"name": function["name"], "arguments": json.loads(arguments)}
                message["content"], formed = f"[TOOL_CALLS][{json.dumps(spoken)}]", False
        else:
            message["content"], formed = f"Reply {rng.getrandbits(64):016x}, as you wish.", False
        slips = fault in SLIPS and formed and name not in self.slipped
        if slips:
            self.slipped.add(name)
            finish = _slip(message, fault) or finish
        elif fault == "refusal":
            message.update(content=None, refusal="I cannot help with that.")
            message.pop("tool_calls", None)
        elif fault == "filter":
            message, finish = {"role": "assistant", "content": ""}, "content_filter"
        elif fault in ODD:
            message, finish = ODD[fault](message, finish)
        usage = {"prompt_tokens": len(json.dumps(request)) // 4, "completion_tokens": len(json.dumps(message)) // 4}
        said = {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"] + self.knobs.revision,
            "system_fingerprint": "stub",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            **({"usage": usage | {"total_tokens": sum(usage.values())}} if self.knobs.usage else {}),
        }
        return 200, said, fault if slips or fault in ("refusal", "filter", *ODD) else "well"


def _half(message: dict[str, Any], finish: str) -> tuple[dict[str, Any], str]:
    if calls := message.get("tool_calls"):
        calls[0]["function"].update(name=calls[0]["function"]["name"] + "\ud83d", arguments='{"a": ["\\ud83d"], "\\ude00": 1}')
    else:
        message["content"] = f"{message['content'][:-1]}\ud83d{message['content'][-1:]}"
    return message, finish


def _as_text(message: dict[str, Any], finish: str, form: str = "[TOOL_CALLS]{name}{arguments}") -> tuple[dict[str, Any], str]:
    if not (calls := message.pop("tool_calls", None)):
        return message, finish
    return {**message, "content": form.format_map(calls[0]["function"])}, "stop"


TAGGED = '<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def _no_arguments(message: dict[str, Any], finish: str) -> tuple[dict[str, Any], str]:
    for call in message.get("tool_calls") or ():
        call["function"]["arguments"] = None
    return message, finish


def _two_calls(message: dict[str, Any], finish: str) -> tuple[dict[str, Any], str]:
    for call in list(message.get("tool_calls") or ()):
        message["tool_calls"].append({**call, "function": {**call["function"], "arguments": BROKEN}})
    return message, finish


ODD: dict[str, Callable[[dict[str, Any], str], tuple[dict[str, Any], str]]] = {
    "half": _half,
    "empty": lambda message, finish: ({**message, "content": None}, finish),
    "errored": lambda message, finish: ({"role": "assistant", "content": ""}, "error"),
    "cut": lambda message, finish: (message, "length"),
    "as_text": _as_text,
    "tagged": lambda message, finish: _as_text(message, finish, TAGGED),
    "no_arguments": _no_arguments,
    "two_calls": _two_calls,
}
"""Fault -> what becomes of (message, finish_reason)."""


def _wished(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The schema that a system message asks for in words."""
    _, found, schema = str(messages[0]["content"]).partition(WISH) if messages[0]["role"] == "system" else ("", "", "")
    return dict(json.loads(schema)) if found else None


def _slip(message: dict[str, Any], fault: str) -> str:
    """Spoil an answer; returns its finish_reason when that changes."""
    if calls := message.get("tool_calls"):
        function = calls[0]["function"]
        function["arguments"] = BROKEN if fault == "malformed" else function["arguments"][:-1]
    else:
        message["content"] = BROKEN if fault == "malformed" else message["content"][: len(message["content"]) // 2]
    return "length" if fault == "truncated" else ""


def _unbroken(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A conversation up to the first of our own malformed answers."""
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and message.get("content") == BROKEN:
            return list(messages[:place])
    return list(messages)


def _error(
    status: int, words: str, headers: Mapping[str, str] | None = None, code: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    return status, dict(headers or {}), json.dumps({"error": {"message": words, "type": "stub", "code": code}}).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection: HTTP/1.1 with Content-Length, which is all that our clients send."""

    def __init__(self, server: Server) -> None:
        self.server, self.waiting = server, b""
        self.transport: asyncio.Transport | None = None
        self.work: asyncio.Task[None] | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect one whole request, then answer it."""
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(rest) < int(headers.get("content-length", 0)):
            return
        self.waiting = b""
        self.work = asyncio.get_running_loop().create_task(self.reply(*first.split()[:2], rest, headers))

    def connection_lost(self, error: Exception | None) -> None:
        """The client went away."""
        self.gone.set()

    async def reply(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Route one request."""
        server = self.server
        if (method, path) == ("GET", "/counts"):
            return self.send(200, {}, json.dumps(server.counts()).encode())
        if (method, path) == ("PUT", "/knobs"):
            server.turn(json.loads(body))
            return self.send(200, {}, b"{}")
        if (method, path) == ("GET", "/v1/models") and server.knobs.models:
            return self.send(200, {}, server.listing())
        if (method, path) != ("POST", "/v1/chat/completions"):
            return self.send(*_error(404, f"no {path} here"))
        server.open += 1
        server.most = max(server.most, server.open)
        try:
            answer = await server.answer(body, headers.get("authorization", ""), self.gone)
        finally:
            server.open -= 1
        if answer is None and self.transport is not None:
            return self.transport.abort()
        assert answer is not None
        return self.send(*answer)

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write an answer in one piece."""
        assert self.transport is not None
        if self.gone.is_set():
            return
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        date = formatdate(usegmt=True)
        head = f"HTTP/1.1 {status} x\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        self.transport.write(head.encode() + body)


async def serve(knobs: Knobs, port: int) -> None:
    """Listen on a port of loopback (0: any that is free), say which, and go on until standard input ends. A port that cannot be had is
    said instead."""
    server = Server(knobs)
    loop = asyncio.get_running_loop()
    try:
        listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=1024)
    except (OSError, OverflowError) as error:
        print(getattr(error, "strerror", None) or error, flush=True)
        return
    print(listening.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    listening.close()


if __name__ == "__main__":
    given = Knobs(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
    asyncio.run(serve(given, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
