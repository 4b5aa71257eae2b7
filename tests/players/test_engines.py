"""Engines are chosen by params, and say the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, Params
from tasks.engine import methods, together
from tasks.engine.closure import closure
from tasks.engine.dvc_yaml import listed
from tasks.engine.key import params_of
from tasks.engine.settings import Settings, load
from tasks.players.local.generation import Engine
from tests.conftest import ROOT
from tests.players.served import serving
from tests.players.test_own_engine import logprobs_of, model, prompts, sampling, turns


def with_engine(section: object, stage: str = "rl") -> Settings:
    settings = load(ROOT, "smoke")
    return Settings(ROOT, {**settings.tree, stage: {**settings.tree[stage], "engine": section}})


@pytest.mark.parametrize("name", methods.engines())
def test_an_engine_states_what_it_needs(name: str) -> None:
    module = methods.engine_module(name)
    assert issubclass(module.Params, Params) and callable(module.opened) and set(module.Params.model_fields) >= module.WAYS


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "owm"}, r"rl.engine.method: no engine 'owm'. Did you mean 'own'\? Known: own"),
        (None, r"rl.engine.method is missing: with what its checkpoints generate. Write engine: {method: own}"),
        ({"method": "own", "memory": 2}, "rl.engine: unknown key 'memory'. Known: method, own"),
        ({"method": "own", "own": {"memory": -1}}, "rl.engine.own: .*memory"),
        ({"method": "server"}, "rl.engine.server.base_url is missing"),
        ({"method": "server", "server": {"base_url": "http://a:1/v1", "model": "b"}}, "without /v1"),
        ({"method": "server", "server": {"base_url": "http://u:p@a:1", "model": "b"}}, "without user, password"),
        ({"method": "server", "server": {"base_url": "http://a:1"}}, "rl.engine.server.model is missing: the base's name"),
        (
            {"method": "server", "server": {"base_url": "http://a:1", "model": "b", "key_env": "sk-secret"}},
            "rl.engine.server.key_env: the NAME of an environment variable",
        ),
    ],
)
def test_bad_params_are_named(section: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        with_engine(section).engine("rl")


@pytest.mark.parametrize(
    ("stage", "push", "sft", "message"),
    [
        ("rl", "weights", {"kind": "none"}, ""),
        ("rl", "weights", {"kind": "lora"}, r"rl.engine.server.push: weights brings whole models .*of rl an adapter would play"),
        ("rl", "adapter", {"kind": "lora"}, ""),
        (
            "rl",
            "adapter",
            {"kind": "none"},
            r"rl.engine.server.push: adapter brings LoRA adapters .*of rl a whole checkpoint would play",
        ),
        ("evaluate", "adapter", {"kind": "none"}, "of base, sft, rl, merge a whole checkpoint would play"),
        ("evaluate", "weights", {"kind": "none"}, ""),
        ("evaluate", "weights", {"kind": "lora"}, r"evaluate.engine.server.push: weights .*of sft, rl an adapter would play"),
        ("evaluate", "weights", {"kind": "lora", "save": "full"}, ""),
        ("evaluate", "adapter", {"kind": "lora"}, r"push: adapter .*of base, merge a whole checkpoint would play"),
    ],
)
def test_what_the_server_would_not_take_is_refused_before_it_is_trained(
    stage: str, push: str, sft: dict[str, str], message: str
) -> None:
    section = {"method": "server", "server": {"base_url": "http://a:1", "model": "b", "push": push}}
    tree: dict[str, Any] = {**with_engine(section, stage).tree}
    for name in ("sft", "rl"):
        tree[name] = {**tree[name], "loop": {**tree[name]["loop"], "adapter": sft}}
    on_gpu = Settings(ROOT, {**tree, "device": "cuda"})
    if message:
        with pytest.raises(BadInput, match=message):
            together.check_together(on_gpu, {name: on_gpu.params(name) for name in on_gpu.road.names})
        return
    together.check_together(on_gpu, {name: on_gpu.params(name) for name in on_gpu.road.names})
    if push == "weights":
        with pytest.raises(BadInput, match="the server holds one model, and on device: cpu several play at once"):
            Settings(ROOT, tree).check()


def test_only_rooms_whose_checkpoints_play_have_an_engine() -> None:
    assert load(ROOT, "smoke").engine("generate") is None
    with pytest.raises(BadInput, match="generate: unknown key 'engine'"):
        with_engine({"method": "own"}, "generate").method("generate")


@pytest.mark.parametrize("name", methods.engines())
def test_a_key_holds_the_chosen_engines_code_alone(name: str) -> None:
    settings = with_engine({"method": name, name: NEEDED.get(name, {})})
    about = listed(settings)["rl"]
    others = [f"tasks/players/local/{other}" for other in methods.engines() if other != name]
    assert f"tasks/players/local/{name}" in about.code and f"tasks/players/local/{name}/__init__.py" in closure(settings, about)
    assert not any(path.startswith(other) for other in others for path in (*about.code, *closure(settings, about)))


NEEDED: dict[str, dict[str, object]] = {"server": {"base_url": "http://127.0.0.1:8000", "model": "base"}}
"""Params without which an engine cannot be chosen."""


def test_what_changes_no_answer_is_in_no_key() -> None:
    plain, roomy = ({"method": "own", "own": {"memory": memory}} for memory in (None, 2.0))
    settings = [with_engine(section) for section in (plain, roomy)]
    assert settings[0].engine("rl") != settings[1].engine("rl")
    assert params_of(settings[0], listed(settings[0])["rl"]) == params_of(settings[1], listed(settings[1])["rl"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with random weights, `base`, and two adapters of it, `one` and `two`."""
    import torch
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("engines")
    model("llama").save_pretrained(str(root / "base"))
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        worn = get_peft_model(model("llama"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        worn.save_pretrained(str(root / name))
    return root


def in_process(name: str) -> Any:
    return lambda root: methods.engine_module(name).opened(
        root / "base", {"one": root / "one", "two": root / "two"}, rows=8, most=300, dtype="float32"
    )


def talk(
    given: Engine, conversations: int = 6, temperature: float = 0.0, adapters: Sequence[str] = ("", "one", "two")
) -> dict[str, tuple[list[int], list[float]]]:
    """Two turns of each conversation, the adapters ("" for none) by turns; who finishes first goes on first."""
    who = [adapters[at % len(adapters)] for at in range(conversations)]
    sampled = {str(at): sampling(at, temperature, 3 + 5 * at, (5,), who[at]) for at in range(conversations)}
    said: dict[str, tuple[list[int], list[float]]] = {name: ([], []) for name in sampled}
    read = {name: list(ids) for name, ids in zip(sampled, prompts(conversations), strict=True)}
    for name, how in sampled.items():
        given.submit(name, read[name], how)
    turn = dict.fromkeys(sampled, 1)
    while open_ones := [name for name in sampled if turn[name] < 3]:
        found = given.poll()
        assert found, open_ones
        for made in found:
            ids, logprobs = said[made.conversation]
            ids += made.ids
            logprobs += made.logprobs
            assert made.finish == ("stop" if made.ids[-1] == 5 else "length") and len(made.ids) == len(made.logprobs)
            turn[made.conversation] += 1
            if turn[made.conversation] < 3:
                read[made.conversation] += [*made.ids, 1, 2, 3]
                given.submit(made.conversation, read[made.conversation], sampled[made.conversation])
            else:
                given.close(made.conversation)
    return said


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_all_engines_say_the_same_tokens(folders: Path, temperature: float) -> None:
    """Token by token, over two turns, with two adapters and without; at temperature 1 too where the noise is ours."""
    own = talk(in_process("own")(folders), temperature=temperature)
    other = in_process("transformers")(folders)
    for name, (ids, logprobs) in talk(other, temperature=temperature).items():
        assert ids == own[name][0] and logprobs == pytest.approx(own[name][1], abs=1e-4)
    with serving(folders / "base") as url:
        served = methods.engine_module("server")
        params = served.Params(base_url=url, model="base")
        adapters = {name: folders / name for name in ("one", "two")}
        third = served.opened(folders / "base", adapters, rows=8, most=300, params=params)
        for name, (ids, logprobs) in talk(third, temperature=temperature).items():
            assert ids == own[name][0] and logprobs == pytest.approx(own[name][1], abs=1e-5)
    read = sum(map(len, prompts(6)))
    assert other.counts["read"] < read + 6 * 5, "what a conversation has read and said is not computed again"
    assert len({tuple(ids) for ids, _ in own.values()}) == 6


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mistral", {"sliding_window": 24}),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
        ("qwen3_5_text", {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}),
    ],
)
def test_architectures_that_own_refuses(family: str, more: dict[str, Any]) -> None:
    """Against one pass of transformers over each whole conversation."""
    of = model(family, **more)
    given = methods.engine_module("transformers").opened(of, rows=8, most=200)
    asked = prompts(4)
    for at, ids in enumerate(asked):
        given.submit(str(at), ids, sampling(at, 1.0, 6 + at))
    for name, made in turns(given).items():
        assert list(made.logprobs) == pytest.approx(logprobs_of(of, asked[int(name)], made.ids), abs=1e-4)
