"""`cairn serve --engine vllm` against a server that streams token ids as vLLM does; a real one is in `make test-vllm`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from flows.cli import main
from flows.serving import start, vllm_server
from flows.serving.source import Named
from flows.serving.vllm_engine import VllmEngine
from tasks.contract.params import BadInput, StageFailed
from tasks.players.local import own
from tasks.players.local.generation import Sampling
from tasks.serving.endpoint.engine_thread import EngineThread
from tests.flows.test_serve_two import USER, ask, client
from tests.players.served import listening
from tests.rollout import tiny

SAMPLING = Sampling(seed=3, temperature=1.0, max_tokens=9, stop=())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The stub's address and folder, the requests that it got, how many turns it gave whole, and the engine behind it."""
    folder = tiny.saved(tmp_path_factory.mktemp("vllm") / "model", seed=2)
    thread = EngineThread(own.opened(folder, rows=8, most=400, dtype="float32"))
    app, bodies, whole = FastAPI(), list[dict[str, Any]](), list[int]()

    async def chunks(ids: list[int], logprobs: list[float]) -> AsyncIterator[str]:
        for one, logprob in zip(ids, logprobs, strict=True):
            yield f"data: {json.dumps({'choices': [{'token_ids': [one], 'logprobs': {'token_logprobs': [logprob]}}]})}\n\n"
            await asyncio.sleep(0.01)
        whole.append(len(ids))
        yield "data: [DONE]\n\n"

    @app.post("/v1/completions")
    async def completions(request: Request) -> Any:
        bodies.append(body := await request.json())
        if body["model"] != "their-name":
            return JSONResponse({"error": {"message": f"The model `{body['model']}` does not exist."}}, status_code=404)
        if body["prompt"] == [9]:
            return StreamingResponse(iter(['data: {"error": {"message": "out of memory"}}\n\n']))
        how = Sampling(body["seed"], body["temperature"], body["max_tokens"], tuple(body["stop_token_ids"]), "", body["top_p"])
        made = await asyncio.wrap_future(thread.ask(body["prompt"], how))
        return StreamingResponse(chunks(list(made.ids), list(made.logprobs)))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "their-name", "max_model_len": 400}, {"id": "an-adapter", "parent": "their-name"}]}

    with listening(app) as url:
        yield SimpleNamespace(url=url, folder=folder, bodies=bodies, whole=whole, thread=thread)
    thread.end()


def test_it_chats_with_the_card_in_front_and_streams(server: SimpleNamespace, tmp_path: Path) -> None:
    """What the endpoint says with this process's engine, by token ids and the sampling of the request."""
    found = [Named(server.folder, "agent")]
    said = []
    for how in (start.How(most=400, dtype="float32"), start.How(vllm=True, server=f"{server.url}/v1")):
        with client(start.open_agents(found, {}, how)) as api:
            said.append([ask(api, "agent"), ask(api, "agent", top_p=0.5)])
            chunks = api.chat.completions.create(model="agent", messages=USER, stream=True, max_tokens=12, temperature=1, seed=7)
            assert "".join(one.choices[0].delta.content or "" for one in chunks) == said[-1][0]
    assert said[0] == said[1] and [body["top_p"] for body in server.bodies[-3:]] == [1.0, 0.5, 1.0]
    assert {"model": "their-name", "stream": True, "return_token_ids": True}.items() <= server.bodies[-1].items()


def test_a_turn_that_is_wanted_no_further_is_left(server: SimpleNamespace) -> None:
    engine = VllmEngine(server.url, "their-name", 300, 400)
    made = engine.ask([5, 6], SAMPLING).result()
    assert (
        list(made.ids) == list(server.thread.ask([5, 6], SAMPLING).result().ids) and len(made.logprobs) == 9 and made.finish == "length"
    )
    before = len(server.whole)
    cut = engine.ask([5, 6], SAMPLING, lambda ids: len(ids) == 2).result()
    assert (list(cut.ids), cut.finish, len(server.whole)) == (list(made.ids)[:2], "stop", before)
    assert engine.ask([5] * 400, SAMPLING).result().finish == "full"
    with pytest.raises(LookupError, match="The model `no` does not exist"):
        engine.ask([5], Sampling(0, 0.0, 1, (), "no")).result()
    with pytest.raises(StageFailed, match=r"gave no whole answer.*out of memory"):
        engine.ask([9], SAMPLING).result()
    with pytest.raises(BadInput, match=r"load_lora_adapter: status 404.*--enable-lora"):
        engine.load("x", server.folder).result()
    engine.end()


VLLM = """#!{python}
import http.server, pathlib, sys
pathlib.Path({place!r}).write_text(chr(10).join(sys.argv))
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


def test_a_vllm_that_was_started_ends_with_it(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has been given the folder, the context of the checkpoint and room for the adapters."""
    program = tmp_path / "python"
    program.write_text(VLLM.format(python=sys.executable, place=str(tmp_path / "given")))
    program.chmod(0o755)
    (tmp_path / "adapter_config.json").write_text('{"r": 20}')
    monkeypatch.setattr(vllm_server, "STATE", tmp_path / "state")
    monkeypatch.setattr(vllm_server, "_python", lambda: str(program))
    engine = vllm_server.started(server.folder, [tmp_path], "cpu", "float32", 10**6)
    given = (tmp_path / "given").read_text().splitlines()
    options = dict(zip(given[3::2], given[4::2], strict=False))
    most = json.loads((server.folder / "config.json").read_text())["max_position_embeddings"]
    assert (options["--model"], options["--max-model-len"], engine.most) == (str(server.folder), str(most), most)
    assert {"--enable-lora", "--max-lora-rank", "32", "--enforce-eager"} <= {*given}
    place = f"http://127.0.0.1:{given[given.index('--port') + 1]}/health"
    assert httpx.get(place).status_code == 200
    engine.end()
    with pytest.raises(httpx.ConnectError):
        httpx.get(place)


def test_without_vllm_it_says_what_installs_it_and_what_cannot_be_is_refused(
    server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vllm_server, "STATE", tmp_path / "state")
    folder, port = str(server.folder), "8124"
    for more, message in (
        (["--engine", "vllm"], "vLLM is not installed. `make .cairn/vllm/.ready`"),
        (["--engine", "vllm", "--server", "http://127.0.0.1:9"], "no list of models there"),
        (["--server", "http://127.0.0.1:9"], "allowed are own and vllm"),
        (["--engine", "magic"], "--engine 'magic'"),
        (["--engine", "vllm", "--server", server.url, str(tiny.saved(tmp_path / "other", seed=4))], "one server has one base"),
    ):
        assert main(["serve", folder, *more, "--port", port]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"r": 1000}')
    monkeypatch.setattr(vllm_server, "_python", lambda: sys.executable)
    with pytest.raises(BadInput, match="an adapter of rank 1000, and vLLM takes 512"):
        vllm_server.started(server.folder, [tmp_path / "adapter"], "cpu", "", 400)
    monkeypatch.setattr(vllm_server, "_python", lambda: "/bin/false")
    with pytest.raises(StageFailed, match="vLLM ended with 1"):
        vllm_server.started(server.folder, [], "cpu", "", 400)
