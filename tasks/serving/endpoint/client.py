"""A client of the chat endpoint, asked as roles are (`tasks.contract.client`): what any OpenAI client sends, tools included."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tasks.chat.local.format import with_text_arguments
from tasks.contract.client import Message, Request
from tasks.serving.endpoint.prompting import with_read_arguments

PATIENCE = 600.0
"""Seconds for one answer of a server in this process; ours."""


class ChatClient:
    """url: up to /v1. model: its name there. refused: what the server said to the requests that it refused, in any order."""

    revision = ""

    def __init__(self, url: str, model: str, at_once: int) -> None:
        self.name, self._model, self._at_once = model, model, at_once
        self._http = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, limits=httpx.Limits(max_connections=at_once))
        self.refused: list[str] = []

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message a request, in order, with its `finish_reason`; a refused one is `lost`."""
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(self._answer, requests))

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def _answer(self, request: Request) -> Message:
        said = self._http.post("/chat/completions", json=self._body(request))
        if said.status_code >= 500:
            said.raise_for_status()
        if said.is_error:
            self.refused.append(said.json()["error"]["message"])
            return {"role": "assistant", "content": "", "finish_reason": "error", "lost": "not_accepted"}
        choice = said.json()["choices"][0]
        message = with_read_arguments(choice["message"])
        return {**message, "content": message.get("content") or "", "finish_reason": choice["finish_reason"]}

    def _body(self, request: Request) -> dict[str, Any]:
        wishes = {"temperature": request.temperature, "max_tokens": request.max_tokens, "seed": request.seed}
        return {
            "model": self._model,
            "messages": [with_text_arguments(one) for one in request.messages],
            "tools": request.tools,
            **wishes,
        }
