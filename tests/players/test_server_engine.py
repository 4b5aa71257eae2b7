"""The engine `server` against real HTTP servers on loopback: what it refuses by name, what it brings there, and rl through it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.contract.client import CallFailed
from tasks.contract.params import BadInput, StageFailed
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import server
from tasks.players.local.generation import Place, Sampling
from tasks.players.local.server.api import Api
from tasks.rl.core.loop import run
from tasks.rl.grpo import Params
from tasks.serving.endpoint.app import make
from tasks.serving.endpoint.opened import opened
from tasks.serving.endpoint.player import listening
from tests.players.served import serving
from tests.players.test_own_engine import model
from tests.rl.micro import SHORT, context, frozen
from tests.rl.test_mismatch import Adapted


def app(answer: Any, models: tuple[str, ...] = ("base",), seen: list[Any] | None = None) -> Any:
    """A server that lists models and answers everything else alike: with a body, or a status and a body."""
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    made = FastAPI()
    status, said = answer if isinstance(answer, tuple) else (200, answer)

    @made.get("/v1/models")
    async def listed() -> Any:
        return {"data": [{"id": one} for one in models]}

    @made.post("/{path:path}")
    async def posted(path: str, body: dict[str, Any]) -> Any:
        if seen is not None:
            seen.append((path, body))
        return JSONResponse(said, status_code=status)

    return made


def completion(**choice: Any) -> dict[str, Any]:
    return {"model": "base", "choices": [{"index": 0, "text": "a", "finish_reason": "length", **choice}]}


IDS = {"token_ids": [4], "logprobs": {"token_logprobs": [-0.5]}}


@pytest.mark.parametrize(
    ("answer", "models", "message"),
    [
        (completion(), ("base",), "a server without token ids: its answer has no token_ids .*it cannot play for rl"),
        (completion(logprobs=None, token_ids=[4]), ("base",), "a server without token ids"),
        ((400, {"error": {"message": "Unsupported fields: logprobs"}}), ("base",), "a server without token ids: .*Unsupported fields"),
        (completion(token_ids=[4, 5], logprobs={"token_logprobs": [-0.5]}), ("base",), "a server without token ids"),
        (completion(token_ids=[4], logprobs={"token_logprobs": ["nan"]}), ("base",), "no token_ids with a log-probability each"),
        (completion(**IDS), ("bass",), r"serves another model than asked for, 'base'. Did you mean 'bass'\? It has: bass"),
        ({**completion(**IDS), "model": "other"}, ("base",), "answers as the model 'other', asked for 'base'"),
        (completion(**IDS, prompt_token_ids=[0, 1]), ("base",), "read other tokens than were sent: 2 for 1.*renders or tokenises"),
    ],
)
def test_a_server_that_cannot_play_is_refused_by_name_before_anything_runs(answer: Any, models: Any, message: str) -> None:
    with listening(app(answer, models)) as url, pytest.raises(BadInput, match=message):
        server.meet(server.Params(base_url=url, model="base"), "")


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInput, match=r"127.0.0.1:9/v1/models gives no answer \(ConnectError.*Is the server running\?"):
        server.meet(server.Params(base_url="http://127.0.0.1:9", model="base", retries=1), "")
    with pytest.raises(CallFailed, match=r"gives no answer .*run again to go on"):  # in the middle: the stage may be tried again
        Api(server.Params(base_url="http://127.0.0.1:9", model="base", retries=1), "", 1).models()


def test_sglang_by_its_own_endpoint() -> None:
    """Ids and log-probabilities as its /generate gives them."""
    seen: list[Any] = []
    said = {"text": "a", "meta_info": {"output_token_logprobs": [[-0.25, 7, None], [-1.5, 2, None]]}}
    with listening(app(said, (), seen)) as url:
        made = server.opened(Path("nowhere"), rows=2, most=50, params=server.Params(base_url=url, kind="sglang"))
        made.submit("a", [1, 2, 3], Sampling(5, 0.7, 9, (2,)))
        (turn,) = made.poll()
    assert (list(turn.ids), list(turn.logprobs), turn.finish) == ([7, 2], [-0.25, -1.5], "stop")
    path, body = seen[-1]
    assert path == "generate" and body["input_ids"] == [1, 2, 3] and body["return_logprob"] is True
    assert body["sampling_params"]["stop_token_ids"] == [2] and body["sampling_params"]["max_new_tokens"] == 9


@pytest.mark.parametrize("kind", ["openai", "sglang"])
def test_a_whole_model_is_read_anew_from_a_folder(tmp_path: Path, kind: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    seen: list[Any] = []
    said = {**completion(**IDS), "meta_info": {"output_token_logprobs": [[-0.5, 4, None]]}}
    of = model()
    with listening(app(said, ("base",), seen)) as url:
        params = server.Params(base_url=url, model="base", kind=kind, push="weights")
        server.opened(of, rows=2, most=50, params=params, place=Place(tmp_path))
        with pytest.raises(BadInput, match="here the whole model trains or plays"):
            server.opened(of, rows=2, most=50, params=params.model_copy(update={"push": "adapter"}), place=Place(tmp_path))
        shared = params.model_copy(update={"folder": str(tmp_path / "shared")})
        for name in ("retail", "airline", "retail"):
            server.opened(of, rows=2, most=50, params=shared, place=Place(tmp_path / name))
    assert len([*(tmp_path / "shared").iterdir()]) == 2, "each training writes, and takes away, in a folder of its own"
    paths = dict(seen)
    told = paths["update_weights_from_disk"]["model_path"] if kind == "sglang" else paths["collective_rpc"]["kwargs"]["weights_path"]
    assert kind == "sglang" or "reset_prefix_cache" in paths
    kept = AutoModelForCausalLM.from_pretrained(told).state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in of.state_dict().items())


def test_rl_plays_at_a_server_that_gets_the_adapter_of_each_step(tmp_path: Path) -> None:
    """A step's conversations are played with the adapter as it is then, or the comparison with the trainer would stop the run; the
    adapters of steps before are taken from the server."""
    inputs = frozen(tmp_path)
    figures: dict[str, list[float]] = {}
    with serving(inputs.sft / "model") as url:
        params = server.Params(base_url=url, model="base")
        opened = partial(server.opened, params=params, place=Place(tmp_path / "engine"))
        of_checkpoint = partial(CheckpointAgent, engine=opened)
        log = lambda name, value, _: figures.setdefault(name, []).append(value)  # noqa: E731
        run(
            inputs,
            SHORT.model_copy(update={"min_trained": 0.0}),
            Adapted(params=Params()),
            context(tmp_path, of_checkpoint=of_checkpoint, log=log),
        )
        left = [one["id"] for one in httpx.get(f"{url}/v1/models").json()["data"]]
    assert len(figures["rl/mismatch_mean"]) == 2 and max(figures["rl/mismatch_mean"]) < 1e-5
    assert len(left) == 2 and left[1].startswith("cairn-")


def test_an_adapter_of_another_base_is_refused_by_the_server(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    other = get_peft_model(model("qwen3", hidden_size=36), LoraConfig(target_modules=["q_proj"]))
    other.save_pretrained(str(tmp_path / "other"))
    model("qwen3").save_pretrained(str(tmp_path / "base"))
    with serving(tmp_path / "base") as url, pytest.raises(StageFailed, match=r"was not loaded: .*an adapter of another base"):
        params = server.Params(base_url=url, model="base")
        server.opened(tmp_path / "base", {"a": tmp_path / "other"}, rows=2, most=50, params=params)


def test_cairn_serve_refuses_what_it_would_not_do(tmp_path: Path) -> None:
    model("llama").save_pretrained(str(tmp_path / "base"))
    with serving(tmp_path / "base") as url:
        for body, status, message in (
            ({"model": "nobody", "prompt": [1]}, 404, "does not exist"),
            ({"model": "base", "prompt": [1], "top_p": 0.5}, 400, "top_p = 0.5: allowed"),
            ({"model": "base", "prompt": [1], "beam": 2}, 400, "not known"),
            ({"model": "base", "prompt": "text"}, 400, "prompt: Value error, token ids, a list of integers"),
            ({"model": "base", "prompt": [1] * 400}, 400, "fill the context"),
            ({"model": "base", "prompt": [1, 10**6]}, 400, "the prompt holds token 1000000, and the model has"),
            ({"model": "base", "prompt": [-1]}, 400, "the prompt holds token -1"),
        ):
            said = httpx.post(f"{url}/v1/completions", json=body)
            assert said.status_code == status and message in said.text


def test_a_step_that_fails_is_told_to_whoever_waited_and_the_next_are_served(tmp_path: Path) -> None:
    """Unless it is, the server answers nobody any more, and everybody waits."""
    model("llama").save_pretrained(str(tmp_path / "base"))
    served = run_of(tmp_path / "base")
    norm = served.thread._engine.stack.weights["model.norm.weight"]
    whole = norm.clone()
    with listening(make(served)) as url:
        ask = partial(httpx.post, f"{url}/v1/completions", json={"model": "base", "prompt": [1, 2], "max_tokens": 2}, timeout=20)
        served.thread.call(lambda engine: norm.fill_(float("nan"))).result()
        said = ask()
        assert said.status_code == 500 and "computes no numbers (NaN or infinite logits)" in said.text
        served.thread.call(lambda engine: norm.copy_(whole)).result()
        assert ask().status_code == 200
    served.thread.end()


def run_of(folder: Path, **adapters: Path) -> Any:
    return opened(folder, adapters, "base", "cpu", "float32", 300)


def spoilt(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    states = load_file(path)
    save_file(change(states), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: spoilt(folder, lambda states: {}), "an adapter without weights: it would play as its base does"),
        (
            lambda folder: spoilt(folder, lambda states: {name: value for name, value in states.items() if "lora_B" not in name}),
            "q_proj has no lora_B",
        ),
        (
            lambda folder: spoilt(folder, lambda states: {name: value / 0 for name, value in states.items()}),
            "lora_A.weight holds a weight that is NaN or infinite",
        ),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"cut"), "this adapter cannot be read: .*header"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "this adapter cannot be read: Expecting"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json in it"),
    ],
)
def test_a_broken_adapter_is_not_served(tmp_path: Path, spoil: Any, message: str) -> None:
    from peft import LoraConfig, get_peft_model

    model("llama").save_pretrained(str(tmp_path / "base"))
    worn = get_peft_model(model("llama"), LoraConfig(target_modules=["q_proj"]))
    worn.save_pretrained(str(tmp_path / "adapter"))
    spoil(tmp_path / "adapter")
    with pytest.raises(BadInput, match=message):
        run_of(tmp_path / "base", a=tmp_path / "adapter")
