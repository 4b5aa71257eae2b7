"""The exported package in verifiers' own evaluation: its tool server, its environment with the scripted user, and a model on loopback that
says the stored turns. The rewards are those that were stored."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.exports import stored

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1800)]  # eight minutes on a busy machine


class Model(BaseHTTPRequestHandler):
    """Says the next stored turn of the problem that a request names; after the last one, a goodbye that counts for nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = sum(message["role"] == "assistant" for message in asked["messages"])
        said = dict([*stored.turns(asked["metadata"]["problem"]), {"role": "assistant", "content": "Goodbye."}][place])
        if calls := said.pop("tool_calls", None):
            said["tool_calls"] = [
                {
                    **one,
                    "id": f"{place}-{one['id']}",
                    "function": {**one["function"], "arguments": json.dumps(one["function"]["arguments"])},
                }
                for one in calls
            ]
        choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": said}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        about = {"id": "c", "object": "chat.completion", "created": 0, "model": "stored", "usage": usage}
        body = json.dumps({**about, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def test_the_stored_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verifiers.v1.cli.eval.runner import run_eval
    from verifiers.v1.configs.cli.eval import EvalConfig

    out = stored.written("verifiers", tmp_path)
    for place in (out, Path(__file__).parent):
        monkeypatch.syspath_prepend(str(place))
    stored.stored()
    with model() as url:
        config = EvalConfig.model_validate(
            {
                "env": {"taskset": {"id": "cairn-retail"}, "agent": {"harness": {"id": "stored-harness"}}},
                "model": "stored",
                "client": {"type": "eval", "base_url": url, "api_key_var": "NO_KEY"},
                "output_dir": str(tmp_path / "runs"),
                "rich": None,
                "push": False,
                "max_concurrent": 8,
            }
        )
        episodes = asyncio.run(run_eval(config))
    found = {}
    for episode in episodes:
        assert episode.ok, (episode.errors, [one.errors for one in episode.traces])
        (trace,) = episode.traces
        found[trace.task.data.problem] = trace.reward
        assert trace.metrics["answered_otherwise"] == 0
        assert trace.messages[1].content == stored.spoken(trace.task.data.problem)[0]["content"]
    assert found == stored.rewards()
    assert "cairn_retail" in sys.modules
