"""A vLLM server as an engine of the endpoint: token ids go in and come back as they are produced; the chat is the endpoint's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tasks.contract.params import BadInput, StageFailed
from tasks.players.local.generation import Generated, Sampling
from tasks.players.local.server.api import to_completions, words
from tasks.serving.endpoint.engine_thread import Watch

CALLS = 64
"""Turns that are asked for at a time; others wait. Ours, as many as the engine `own` decodes together."""
PATIENCE = 600.0
"""Seconds without a token after which a turn is given up."""


class VllmEngine:
    """`tasks.serving.endpoint.served.Engine` at a server. base: the base's name there. vocabulary, most: see there. stop: ends what was
    started for it."""

    def __init__(self, url: str, base: str, vocabulary: int, most: int, stop: Callable[[], None] = lambda: None) -> None:
        self.vocabulary, self.most = vocabulary, most
        self._url, self._base, self._stop = url, base, stop
        self._client = httpx.Client(base_url=url, timeout=PATIENCE, limits=httpx.Limits(max_connections=CALLS))
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="vllm")

    def ask(self, ids: Sequence[int], sampling: Sampling, watch: Watch | None = None) -> Future[Generated]:
        """A turn after `ids`; one that its watch has ended finishes with `stop`, and the server produces it no further. LookupError, in
        the future, for an adapter that the server does not have, StageFailed for a server that fails."""
        return self._pool.submit(self._turn, list(ids), sampling, watch)

    def load(self, name: str, folder: Path) -> Future[None]:
        """Let the server load an adapter, from a folder that it sees. BadInput, in the future, when it refuses."""
        path = str(folder.resolve())
        return self._pool.submit(self._change, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}, BadInput)

    def unload(self, name: str) -> Future[None]:
        """Let the server forget an adapter. RuntimeError, in the future, when it refuses."""
        return self._pool.submit(self._change, "/v1/unload_lora_adapter", {"lora_name": name}, RuntimeError)

    def end(self) -> None:
        """Stop; what is under way is not answered."""
        self._stop()
        self._pool.shutdown(cancel_futures=True)
        self._client.close()

    def _turn(self, ids: list[int], sampling: Sampling, watch: Watch | None) -> Generated:
        room, model = self.most - len(ids), sampling.adapter or self._base
        if room < 1:
            return Generated("", (), (), "full")
        body = {**to_completions(ids, sampling, model), "top_p": sampling.top_p, "stream": True}
        body["max_tokens"] = min(sampling.max_tokens, room)
        made: list[int] = []
        logprobs: list[float] = []
        try:
            with self._client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise (LookupError if answer.status_code == 404 else StageFailed)(f"vLLM at {self._url}: {words(answer)}")
                for choice in _choices(answer):
                    made += choice["token_ids"]
                    logprobs += choice["logprobs"]["token_logprobs"]
                    if watch is not None and watch(made):
                        return Generated("", made, logprobs, "stop")
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise StageFailed(f"vLLM at {self._url} gave no whole answer ({type(error).__name__}: {error})") from None
        if not made:
            raise StageFailed(f"vLLM at {self._url} produced nothing")
        return Generated("", made, logprobs, "stop" if made[-1] in sampling.stop else "length")

    def _change(self, path: str, body: dict[str, Any], refused: type[Exception]) -> None:
        answer = self._client.post(path, json=body)
        if answer.status_code != 200:
            raise refused(
                f"vLLM at {self._url}{path}: {words(answer)}. It takes adapters when it is started with --enable-lora, "
                "--max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and reads them from a folder that it sees."
            )


def _choices(answer: httpx.Response) -> Any:
    """What a stream says, chunk by chunk. ValueError for an error in the middle of it."""
    for line in answer.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise ValueError(str(chunk["error"])[:300])
            yield from chunk["choices"]
