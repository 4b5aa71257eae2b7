"""`sft.loop.adapter`: what trains, what is left, and what goes on from it.

The limit in which it is known: an adapter merged into its base says, token by token, what the base says that wears it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints import adapters, folders, saving, starting
from tasks.checkpoints.adapter_params import AdapterParams
from tasks.checkpoints.starting import put_new
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.sft import Inputs, sft
from tasks.sft.core import loop
from tasks.sft.core.hooks import Hooks, Training
from tasks.sft.core.params import Loop, check
from tests.base.test_tiny_qwen3 import same
from tests.chat.talks import dataset, tokenizer, worlds
from tests.sft.test_sft import SMALL, tiny

BASE = "b" * 32 + ".dir"
SMALLER = {"r": 2, "alpha": 4.0}
KINDS = ["lora", "dora", "rslora"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    saving.save(tiny(), tokenizer(), folder / "model")
    return Inputs(worlds(folder / "worlds"), folder, dataset(folder, 40))


notes: list[str] = []
"""What trainings told of their progress."""


def tune(inputs: Inputs, out: Path, *, stop: int = 0, hooks: Hooks | None = None, more: Any = None, **changed: Any) -> dict[str, Any]:
    """Train for a few steps; `changed`: of the adapter. Its scratch folder is beside `out`."""

    def progress(done: int, total: int, note: str) -> None:
        notes.append(note)
        if stop and done >= stop:
            raise KeyboardInterrupt

    out.mkdir(exist_ok=True)
    ctx = Context(
        seed=5, out=out, scratch=out.with_name(out.name + "-scratch"), progress=progress, artifacts={BASE: inputs.base, **(more or {})}
    )
    params = Loop(**{**SMALL, "max_steps": 6, "adapter": {**SMALLER, **changed.pop("adapter", {})}, **changed})
    return loop.run(inputs, params, hooks or sft.hooks(sft.Params(), ctx), ctx)


def states(model: Any) -> dict[str, Any]:
    return dict(model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_kind_trains_its_adapter_alone_with_every_optimizer(inputs: Inputs, tmp_path: Path, kind: str, optimizer: str) -> None:
    """The folder names its base; the base's weights are as they were; how many parameters train is told."""
    figures = tune(inputs, tmp_path / "a", adapter={"kind": kind}, optimizer=optimizer)
    made = tmp_path / "a" / "model"
    assert not list(made.glob("model*.safetensors")) and (made / adapters.WEIGHTS).is_file()
    base = json.loads((made / adapters.BASE).read_text())
    assert (base["artifact"], base["folder"]) == (BASE, "model") and base["weights"] == adapters.weights_of(inputs.base / "model")
    assert str(tmp_path) not in (made / adapters.CONFIG).read_text()
    worn, _ = adapters.load(made, {BASE: inputs.base})
    plain = folders.load(inputs.base / "model")[0].state_dict()
    assert all(value.equal(plain[name]) for name, value in worn.unload().state_dict().items())
    whole = states(adapters.load_whole(made, {BASE: inputs.base})[0])
    moved = {name for name in plain if not plain[name].equal(whole[name])}
    assert len(moved) == 14 and all("_proj" in name for name in moved)
    added = sum(2 * sum(value.shape) for name, value in plain.items() if "_proj" in name)
    lengths = sum(value.shape[0] for name, value in plain.items() if "_proj" in name) if kind == "dora" else 0
    assert figures["trained_parameters"] == added + lengths
    assert f"{added + lengths:,} of {figures['parameters']:,} parameters train" in " ".join(notes)


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "orthogonal"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_without_a_change_and_each_in_its_way(init: str, kind: str) -> None:
    """Also orthogonal, whose two sides are there from the start and cancel."""
    import torch

    ids = torch.arange(10)[None]
    plain, worn = tiny().eval(), put_new(tiny(), AdapterParams(kind=kind, init=init, r=4, alpha=8.0)).eval()
    assert float((worn(input_ids=ids).logits - plain(input_ids=ids).logits).detach().abs().max()) < 1e-4
    sides = {side: [value for name, value in worn.named_parameters() if f"lora_{side}" in name] for side in "AB"}
    assert all(bool(value.any()) for value in sides["A"])
    assert all(bool(value.any()) == (init == "orthogonal") for value in sides["B"])


def says(folder: Path, inputs: Inputs, prompt: list[int]) -> tuple[list[int], list[float]]:
    """What a checkpoint folder says after a prompt, sampled by the own engine: ids and their log-probabilities."""
    from tasks.players.local import own
    from tasks.players.local.generation import Sampling

    model, _ = adapters.load(folder, {BASE: inputs.base})
    engine = own.opened(model, rows=1, most=64)
    engine.submit("it", prompt, Sampling(3, 1.0, 30, (), adapters.active_adapter(model)))
    (turn,) = engine.poll()
    return list(turn.ids), list(turn.logprobs)


@pytest.mark.parametrize(
    "how", [{"kind": "lora"}, {"kind": "dora"}, {"kind": "rslora"}, {"kind": "lora", "modules_to_save": ["embed_tokens"]}]
)
def test_a_merged_one_says_token_by_token_what_the_adapter_says(inputs: Inputs, tmp_path: Path, how: dict[str, Any]) -> None:
    """save: full leaves a whole checkpoint, and the adapter beside it; by the own engine both say the same, and the base another."""
    tune(inputs, tmp_path / "a", adapter={**how, "save": "full"}, learning_rate=0.05)
    assert not adapters.is_adapter(tmp_path / "a" / "model") and adapters.is_adapter(tmp_path / "a" / "adapter")
    (merged, sure), (worn, as_sure), (base, _) = (
        says(folder, inputs, [5, 6, 7]) for folder in (tmp_path / "a" / "model", tmp_path / "a" / "adapter", inputs.base / "model")
    )
    assert merged == worn != base and sure == pytest.approx(as_sure, abs=1e-4)


def test_kind_none_is_the_training_as_it_was(inputs: Inputs, tmp_path: Path) -> None:
    """Nothing else of `adapter` counts then: a whole checkpoint, the same bytes."""
    figures = tune(inputs, tmp_path / "a", adapter={"r": 8, "save": "full"})
    tune(inputs, tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b") and figures["trained_parameters"] == figures["parameters"]
    assert (tmp_path / "a" / "model" / "model.safetensors").is_file() and not (tmp_path / "a" / "adapter").exists()


@pytest.mark.parametrize("more", [{"optimizer": "muon"}, {"optimizer": "adamw", "adapter": {"dropout": 0.2, "kind": "dora"}}])
def test_a_killed_training_of_an_adapter_ends_in_the_same_bytes(inputs: Inputs, tmp_path: Path, more: dict[str, Any]) -> None:
    run = partial(tune, inputs, **{"adapter": {"kind": "lora"}, **more})
    run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop=6)
    run(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")


def test_a_later_step_trains_the_same_adapter_further(inputs: Inputs, tmp_path: Path) -> None:
    """It begins where the first ended, keeps its base, and refuses to become another; kind none merges it and trains all weights."""
    first, second = tmp_path / "a", tmp_path / "b"
    tune(inputs, first, adapter={"kind": "lora"})
    at = Inputs(inputs.worlds, first, inputs.rows)
    start = starting.begin(first / "model", AdapterParams(kind="lora", r=2, alpha=4.0), {BASE: inputs.base})
    was, _ = adapters.load(first / "model", {BASE: inputs.base})
    now = dict(start.wear(start.model).named_parameters())
    assert all(now[name].equal(value) for name, value in was.named_parameters())
    assert {name for name, value in now.items() if value.requires_grad} == {name for name in now if "lora_" in name}
    tune(at, second, adapter={"kind": "lora"}, more={BASE: inputs.base})
    assert (first / "model" / adapters.BASE).read_bytes() == (second / "model" / adapters.BASE).read_bytes()
    assert (first / "model" / adapters.WEIGHTS).read_bytes() != (second / "model" / adapters.WEIGHTS).read_bytes()
    with pytest.raises(StageFailed, match=r"begins with an adapter .*'r': 2.* says .*'r': 3.*one adapter cannot become another"):
        tune(at, tmp_path / "c", adapter={"kind": "lora", "r": 3}, more={BASE: inputs.base})
    tune(at, tmp_path / "d", more={BASE: inputs.base})
    assert not adapters.is_adapter(tmp_path / "d" / "model")
    with pytest.raises(StageFailed, match=f"its base is not at hand: model of artifact {BASE}, weights"):
        adapters.load(first / "model", {})


def test_added_tokens_are_trained_with_the_adapter(inputs: Inputs, tmp_path: Path) -> None:
    """A tokenizer with more entries than its model has rows: the embeddings grow, train whole, and are loaded again with the adapter."""
    words = folders.load_tokenizer(inputs.base / "model")
    words.add_tokens(["<new>", "<newer>"])
    model, _ = folders.load(inputs.base / "model")
    saving.save(model, words, tmp_path / "base" / "model")
    at = Inputs(inputs.worlds, tmp_path / "base", inputs.rows)
    tune(at, tmp_path / "a", adapter={"kind": "lora"}, more={BASE: at.base})
    worn, words = adapters.load(tmp_path / "a" / "model", {BASE: at.base})
    rows = model.get_input_embeddings().num_embeddings
    whole = worn.merge_and_unload()
    assert whole.get_input_embeddings().num_embeddings == len(words) == rows + 2
    assert whole.get_output_embeddings().weight is whole.get_input_embeddings().weight
    assert not whole.get_input_embeddings().weight[:rows].equal(model.get_input_embeddings().weight)


class Own(Hooks):
    """A method that puts in an adapter by itself."""

    def prepare(self, model: Any, training: Training) -> Any:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def test_a_methods_own_adapter_is_kept_like_any_and_stands_alone(inputs: Inputs, tmp_path: Path) -> None:
    tune(inputs, tmp_path / "a", hooks=Own(), max_steps=2)
    assert adapters.is_adapter(tmp_path / "a" / "model")
    with pytest.raises(StageFailed, match=r"puts in an adapter of its own, and loop.* is lora"):
        tune(inputs, tmp_path / "b", hooks=Own(), adapter={"kind": "lora"})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kind": "qlora"}, "adapter.kind: qlora needs the package bitsandbytes, which is not installed here"),
        ({"r": 8, "alpha": 16.0}, "adapter.kind is missing: beside alpha, r alone all weights would train"),
        ({"kind": "none", "r": 8, "save": "full"}, r"kind: none beside r: all weights train, and nothing reads that\. Leave it out"),
        ({"kind": "lora", "targets": []}, "adapter.targets is empty"),
        ({"kind": "lora", "targets": ["q_proj", "lm_head"]}, r"targets names lm_head: .*adapter.modules_to_save: \[lm_head\]"),
        ({"kind": "lora", "init": "orthogonal", "r": 3}, "r = 3 with init: orthogonal"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_edge(how: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Loop(adapter=AdapterParams(**how)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"targets": ["z_proj"]}, r"loop.adapter.targets = \['z_proj'\]: .*not found"),
        ({"targets": ["q_proj", "gate_porj"]}, "targets names 'gate_porj', and no layer's name ends so"),
        ({"modules_to_save": ["embed"]}, "modules_to_save names 'embed', and no module's name ends so"),
        ({"kind": "qlora"}, "qlora needs an NVIDIA GPU, and device is cpu"),
    ],
)
def test_layers_and_machines_that_are_not_there_are_named(inputs: Inputs, tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(StageFailed, match=message):
        tune(inputs, tmp_path / "a", adapter={"kind": "lora", **how})
