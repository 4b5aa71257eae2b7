"""What is sent to a server and read of its answers, for both kinds of API: token ids go in and come out, with log-probabilities."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.contract.client import CallFailed
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.players.local.generation import Sampling
from tasks.players.local.server.params import Params

if TYPE_CHECKING:
    import httpx

HELLO = Sampling(seed=0, temperature=0.0, max_tokens=1, stop=())
"""How a server is asked for a first token, to see whether it has token ids."""
PAUSE = 0.5
"""Seconds before the second attempt; twice as many before each further one."""
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status of answers that another attempt may change."""


class Refused(StageFailed):
    """A turn that the server refuses."""


class Api:
    """A server. Safe to use from several threads."""

    def __init__(self, params: Params, secret: str, connections: int) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self.params, self.url, self._secret = params, params.base_url.rstrip("/"), secret
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=params.timeout_seconds, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, tries: int | None = None) -> httpx.Response:
        """One answer, whatever its status; asked again while the connection fails or the server is busy. CallFailed when it stays."""
        import httpx

        tries = self.params.retries if tries is None else tries
        for tried in range(1, tries + 1):
            try:
                answer = self._client.request(method, path, json=body)
                if answer.status_code not in BUSY or tried == tries:
                    return answer
            except httpx.HTTPError as error:
                if tried == tries:
                    raise CallFailed(
                        f"engine server: {self.url}{path} gives no answer ({type(error).__name__}: {error}), asked {tries} times. Is "
                        "the server running? What is done is kept; run again to go on."
                    ) from None
            time.sleep(PAUSE * 2 ** (tried - 1))
        raise AssertionError("unreachable: at least one attempt is made")

    def done(self, path: str, body: Mapping[str, Any], hint: str) -> None:
        """Ask for something that is no turn. StageFailed with the server's words and a hint when it refuses."""
        answer = self.send("POST", path, body)
        if answer.status_code != 200:
            raise StageFailed(f"engine server: {self.url}{path}: {words(answer)}. {hint}")

    def models(self) -> list[str] | None:
        """Names of the models and adapters that it serves; None when it has no list."""
        answer = self.send("GET", "/v1/models")
        if answer.status_code in (401, 403):
            raise BadInput(f"engine server: {self.url} refuses the key: {words(answer)}")
        if answer.status_code != 200:
            return None
        try:
            return [str(one["id"]) for one in answer.json()["data"]]
        except (ValueError, LookupError, TypeError):  # a page of a proxy's, say
            return None

    def turn(self, ids: Sequence[int], sampling: Sampling, model: str) -> tuple[list[int], list[float]]:
        """Token ids of a turn and their log-probabilities. model: the base's or an adapter's name at the server. BadInput for a server
        without token ids, StageFailed for an answer that is not to what was asked."""
        if self.params.kind == "sglang":
            answer = self.send("POST", "/generate", _to_sglang(ids, sampling, model))
        else:
            answer = self.send("POST", "/v1/completions", to_completions(ids, sampling, model))
        if answer.status_code != 200:
            raise Refused(f"engine server: {self.url}, model {model!r}: {words(answer)}")
        try:
            body = answer.json()
            made, logprobs = _of_sglang(body) if self.params.kind == "sglang" else _of_completions(body)
        except (ValueError, KeyError, IndexError, TypeError):
            raise BadInput(self.without_ids("its answer has no token_ids with a log-probability each")) from None
        choice = body["choices"][0] if self.params.kind == "openai" else {}
        if choice and body.get("model", model) != model:
            raise BadInput(f"engine server: {self.url} answers as the model {body['model']!r}, asked for {model!r}. Look at model.")
        read = choice.get("prompt_token_ids") or body.get("prompt_token_ids")
        if read is not None and list(read) != list(ids):
            raise StageFailed(
                f"engine server: {self.url} read other tokens than were sent: {len(read)} for {len(ids)}. It renders or tokenises the "
                "prompt anew (a token of its own at the beginning?), so nothing of it can be trained on."
            )
        return made, logprobs

    def greet(self) -> None:
        """BadInput when the server has another model than the params name, or gives no token ids; StageFailed when none answers."""
        known, wanted = self.models(), self.params.model
        if known is not None and wanted and wanted not in known:
            raise BadInput(
                f"engine server: {self.url} serves another model than asked for, {wanted!r}.{nearest(wanted, known)} "
                f"It has: {', '.join(known)}."
            )
        try:
            self.turn([1], HELLO, wanted if self.params.kind == "openai" else "")
        except Refused as refused:
            raise BadInput(self.without_ids(str(refused))) from None

    def without_ids(self, why: str) -> str:
        """The words for a server that cannot be used."""
        return (
            f"engine server: {self.url} is a server without token ids: {why}. Text that is tokenised anew is not what the model said, "
            "so it cannot play for rl. Allowed: vLLM (return_token_ids), SGLang (kind: sglang), `cairn serve`. As a role (backend: "
            "openai_compatible) it may play a person, a teacher or the contender of evaluate."
        )


def to_completions(ids: Sequence[int], sampling: Sampling, model: str) -> dict[str, Any]:
    """A turn as vLLM's /v1/completions is asked for it, by token ids; `top_p` is 1."""
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "stop_token_ids": list(sampling.stop),
        "logprobs": 0,
        "return_token_ids": True,
        "add_special_tokens": False,
        "ignore_eos": True,  # the ids in stop_token_ids end a turn, and no others
        **_PLAIN,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


_PLAIN = {"top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
"""Said aloud, since servers take defaults of a checkpoint's generation_config.json that would change what is sampled from."""


def _to_sglang(ids: Sequence[int], sampling: Sampling, model: str) -> dict[str, Any]:
    wish = {
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_tokens,
        "stop_token_ids": list(sampling.stop),
        "sampling_seed": sampling.seed % 2**31,
        "ignore_eos": True,
        "top_k": -1,
        **_PLAIN,
    }
    adapter = {"lora_path": model} if model else {}
    return {"input_ids": list(ids), "sampling_params": wish, "return_logprob": True, **adapter}


def _of_completions(body: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    choice = body["choices"][0]
    ids, logprobs = [int(one) for one in choice["token_ids"]], [float(one) for one in choice["logprobs"]["token_logprobs"]]
    return _paired(ids, logprobs)


def _of_sglang(body: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    found = body["meta_info"]["output_token_logprobs"]  # (log-probability, id, text or None) of each
    return _paired([int(one[1]) for one in found], [float(one[0]) for one in found])


def _paired(ids: list[int], logprobs: list[float]) -> tuple[list[int], list[float]]:
    if not ids or len(ids) != len(logprobs) or not all(map(math.isfinite, logprobs)):
        raise ValueError(f"{len(ids)} ids and {len(logprobs)} log-probabilities, or one that is no number")
    return ids, logprobs


def words(answer: httpx.Response) -> str:
    """What a refusal says."""
    try:
        body = answer.json()
        error = body.get("error") or body.get("detail") or body.get("message") or body
        text = error.get("message", error) if isinstance(error, Mapping) else error
    except (ValueError, AttributeError):
        text = answer.text
    return f"status {answer.status_code}, {' '.join(str(text).split())[:300]}"
