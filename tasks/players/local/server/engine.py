"""The engine `server`: each owed turn is one call, and all calls are under way at once; a slow one holds up its own conversation alone.

Cost: a call a turn; what a conversation has read is the server's to remember (vLLM's and SGLang's prefix caches).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from tasks.players.local.generation import Generated, Sampling
from tasks.players.local.server.api import Api
from tasks.players.local.server.params import Params


class ServerEngine:
    """`tasks.players.local.generation.Engine` at a server. names: adapter's name here -> its name there. counts: ids read (sent as
    prompts), ids produced, calls."""

    def __init__(self, params: Params, secret: str, *, rows: int, most: int) -> None:
        self.rows, self.most, self.elsewhere = rows, most, True
        self.api, self._params = Api(params, secret, rows), params
        self.names: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(max_workers=rows, thread_name_prefix="engine-server")
        self._under_way: dict[str, Future[Generated]] = {}
        self._open: set[str] = set()
        self._count = {"read": 0, "produced": 0, "calls": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """See the class."""
        return dict(self._count)

    def submit(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> None:
        """Owe a turn after `ids`."""
        if sampling.adapter and sampling.adapter not in self.names:
            raise LookupError(f"no adapter {sampling.adapter!r} is loaded; there are: {', '.join(sorted(self.names)) or 'none'}")
        if conversation in self._under_way:
            raise RuntimeError(f"conversation {conversation} still owes a turn")
        if conversation not in self._open and len(self._open) >= self.rows:
            raise RuntimeError(f"all {self.rows} rows are in use; close one first")
        self._open.add(conversation)
        self._under_way[conversation] = self._pool.submit(self._turn, conversation, list(ids), sampling)

    def poll(self) -> list[Generated]:
        """The turns that are there, at least one when any is owed; what an answer lacks is raised here."""
        if not self._under_way:
            return []
        wait(self._under_way.values(), return_when=FIRST_COMPLETED)
        done = [name for name, future in self._under_way.items() if future.done()]
        made = [self._under_way.pop(name).result() for name in done]
        self._count["produced"] += sum(len(turn.ids) for turn in made)
        return made

    def close(self, conversation: str) -> None:
        """The conversation is over."""
        self._open.discard(conversation)
        if (future := self._under_way.pop(conversation, None)) is not None:
            future.cancel()

    def _turn(self, conversation: str, ids: Sequence[int], sampling: Sampling) -> Generated:
        room = self.most - len(ids)
        if room < 1:
            return Generated(conversation, (), (), "full")
        base = self._params.model if self._params.kind == "openai" else ""
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        made, logprobs = self.api.turn(ids, sampling, self.names.get(sampling.adapter, base) if sampling.adapter else base)
        self._count["read"] += len(ids)
        self._count["calls"] += 1
        return Generated(conversation, made, logprobs, "stop" if made[-1] in sampling.stop else "length")
