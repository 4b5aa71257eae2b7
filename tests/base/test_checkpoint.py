"""A checkpoint of somebody else's as base: what is kept of it, what is refused before anything is paid, and the road that begins with it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows import source_checks
from flows.forecast.checkpoint import of_source
from flows.model_card import base_of
from flows.records import Records
from tasks.base import Inputs
from tasks.base.checkpoint import Params, check_files, preflight, run
from tasks.chat import proof
from tasks.chat.local import kept
from tasks.checkpoints import folders, source
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import dvc_lock, sources
from tasks.engine.artifact import Store
from tasks.engine.dotted import overlay
from tasks.engine.dvc_yaml import listed
from tasks.engine.hashes import Hashes
from tasks.engine.job import job_of
from tasks.engine.key import Key
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings, load
from tests.base.outside import checkpoint, worlds
from tests.conftest import ROOT

NONE: Mapping[str, str] = {"tools": "none", "policy": "none"}
FULL: Mapping[str, str] = {"tools": "full", "policy": "full"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short proof: the long one is tests/chat's."""
    monkeypatch.setattr(proof, "find", partial(proof.find, count=30))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return worlds(tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose template knows no tools."""
    return checkpoint(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama, tmp_path / "copy")


def take(world: Path, given: Path, folder: Path, **params: Any) -> dict[str, Any]:
    """Run the method; its artifact is folder/out."""
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    wanted = Params(source=str(given), **{"chat_format": "hermes", **params})
    return run(Inputs(world, given), wanted, Context(0, folder / "out", folder / "scratch", prompt=NONE))


def settings_with(given: str, identity: str, **params: Any) -> Settings:
    section = {"method": "checkpoint", "checkpoint": {"source": given, "identity": identity, "chat_format": "hermes", **params}}
    return Settings(ROOT, overlay(load(ROOT, "smoke").tree, "base", section))


def states(folder: Path) -> Mapping[str, Any]:
    return folders.load(folder)[0].state_dict()


# What is kept.


def test_weights_are_kept_without_a_copy_and_the_format_is_proven_with_them(world: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (copy / "pytorch_model.bin").write_bytes(b"pickled, and left where it lies")
    figures = take(world, copy, tmp_path / "a", origin="somebody/llama")
    model = tmp_path / "a/out/model"
    assert sorted(path.name for path in model.iterdir()) == [
        "chat_format.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (model / "model.safetensors").read_bytes() == (copy / "model.safetensors").read_bytes()
    assert (figures["chat_form"], figures["license"], figures["origin"], figures["context"]) == (
        "whole",
        "apache-2.0",
        "somebody/llama",
        4096,
    )
    about = json.loads((tmp_path / "a/out/source.json").read_text())
    assert (about["license"], about["origin"], about["chat_format"]["style"]) == ("apache-2.0", "somebody/llama", "hermes")
    tokenizer = folders.load_tokenizer(model)
    assert kept.chat_of(tokenizer).style == "hermes" and tokenizer.pad_token
    take(world, copy, tmp_path / "b", origin="somebody/llama")
    hashes = Hashes(tmp_path / "state")
    assert hashes.listing(tmp_path / "a/out") == hashes.listing(tmp_path / "b/out"), "same inputs, same bytes"


def test_bytes_are_linked_where_the_file_system_can_and_copied_where_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"weights")
    (tmp_path / "named").symlink_to(given)
    monkeypatch.setattr(source, "_CLONE", 0)  # no such request: as on a file system without shared blocks
    source.place(tmp_path / "named", tmp_path / "linked")
    assert (tmp_path / "linked").samefile(given) and not (tmp_path / "linked").is_symlink()

    def no_links(*_: object) -> None:
        raise OSError(source._NO_LINKS[0], "another disk")

    monkeypatch.setattr(source.os, "link", no_links)
    source.place(given, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"weights" and not (tmp_path / "copied").samefile(given)


def test_another_dtype_writes_the_weights_anew(world: Path, llama: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    take(world, llama, tmp_path, dtype="bfloat16")
    given, written = load_file(llama / "model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    assert given.keys() == written.keys()
    assert all(written[name].dtype == torch.bfloat16 and written[name].equal(given[name].bfloat16()) for name in given)


def test_an_adapter_beside_its_base_is_merged(world: Path, copy: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    before = states(copy)
    wearing = get_peft_model(
        folders.load(copy)[0], LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    )
    wearing.peft_config["default"].base_model_name_or_path = "/nowhere"
    wearing.save_pretrained(str(copy))
    take(world, copy, tmp_path / "merged")
    after = states(tmp_path / "merged/out/model")
    assert {name for name in before if not before[name].equal(after[name])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)
    }


def test_a_format_that_was_kept_for_another_template_is_proven_anew(world: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "chat_format.json").write_bytes(
        (take(world, copy, tmp_path / "a") and tmp_path / "a/out/model/chat_format.json").read_bytes()
    )
    text = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(text + "{# edited #}")
    assert take(world, copy, tmp_path / "b")["chat_form"] == "whole"


def test_a_checkpoint_without_a_template_is_taught_one(world: Path, tmp_path: Path) -> None:
    figures = take(world, checkpoint(tmp_path / "base", template=None), tmp_path / "run")
    assert figures["chat_form"] == "whole"


# What is refused.


def refused(world: Path, given: Path, prompt: Mapping[str, str] = NONE, **params: Any) -> str:
    with pytest.raises(BadInput) as error:
        preflight(Inputs(world, given), Params(source=str(given), **{"chat_format": "hermes", **params}), prompt)
    return str(error.value)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def part_missing(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors", "lm_head.weight": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def tensors(folder: Path, kept: Callable[[str], bool] = lambda name: True, **changed: Any) -> None:
    """The weights of a folder, some left out, some changed."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    states = {name: value for name, value in load_file(path).items() if kept(name)}
    save_file({**states, **changed}, path, {"format": "pt"})


def index(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text) and None


def two_parts(folder: Path) -> None:
    path = folder / "model.safetensors"
    shutil.copy(path, folder / "model-00002-of-00002.safetensors")
    path.rename(folder / "model-00001-of-00002.safetensors")


def own_code(folder: Path) -> None:
    edit(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config"})


def adapter_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def adapter_of_another(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    sides = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": torch.zeros(2, 2) for side in "AB"}
    save_file(sides, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def adapter_that_says(folder: Path, **said: Any) -> None:
    import torch
    from safetensors.torch import save_file

    sides = {"A": torch.zeros(2, 32), "B": torch.zeros(32, 2)}
    save_file({f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": sides[side] for side in sides},
              folder / "adapter_model.safetensors")  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **said}))


def adapter_cut_off(folder: Path) -> None:
    adapter_that_says(folder)
    (folder / "adapter_config.json").write_text("{")


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def adapter_of_other_weights(folder: Path) -> None:
    adapter_of_another(folder)
    (folder / "base.json").write_text(json.dumps({"weights": "0" * 32}))


def other_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens([f"word{number}" for number in range(7)])
    tokenizer.save_pretrained(str(folder))


def no_round_trip(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": {"type": "Lowercase"}}))


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "params", "said"),
    [
        (pickled, {}, r"pickled \(pytorch_model.bin\).*save_pretrained"),
        (part_missing, {}, "model.safetensors.index.json names model-2.safetensors, which is not there"),
        (cut, {}, "model.safetensors cannot be read.*fetched whole"),
        (partial(tensors, kept=lambda name: "layers.1.mlp" not in name), {}, "names: 3 not there .model.layers.1.mlp.down_proj"),
        (
            partial(edit, tie_word_embeddings=False),
            {},
            r"names: 1 not there \(lm_head.weight\). Was it fetched whole, and is the config",
        ),
        (partial(edit, attention_bias=True), {}, "not there .model.layers.0.self_attn.k_proj.bias"),
        (partial(edit, num_hidden_layers=1), {}, "9 of no layer that it says .model.layers.1.input_layernorm.weight"),
        (partial(edit, num_key_value_heads=4), {}, "4 of another shape .model.layers.0.self_attn.k_proj.weight"),
        (partial(edit, quantization_config={"bits": 4}), {}, "transformers cannot load it: .*quantization config"),
        (index("{"), {}, "model.safetensors.index.json is no index of weights .JSONDecodeError"),
        (index("[]"), {}, "model.safetensors.index.json is no index of weights .TypeError"),
        (two_parts, {}, "2 files of weights .model-00001-of-00002.* no model.safetensors.index.json that says what is in which"),
        (own_code, {}, "code of its own .auto_map in config.json., and remote code is off"),
        (adapter_alone, {}, "an adapter alone. Put it beside its base's files"),
        (adapter_of_another, {}, r"an adapter of another base: model.layers.0.self_attn.q_proj is \(32, 32\), and .* for \(2, 2\)"),
        (adapter_of_other_weights, {}, "another base: it was trained on weights 0+, and beside it lie weights [0-9a-f]{32}"),
        *(
            (partial(adapter_that_says, **said), {}, f"adapter_config.json: {why}")
            for said, why in (
                ({"r": 0}, "r = 0: allowed are numbers above 0"),
                ({"r": 4}, "r = 4, and model.layers.0.self_attn.q_proj has rank 2"),
                ({"rank_pattern": {"q_proj": 3}}, r"rank_pattern\['q_proj'\] = 3, and"),
            )
        ),
        (adapter_cut_off, {}, "adapter_config.json cannot be read: Expecting"),
        (written("generation_config.json", "{"), {}, "generation_config.json is no JSON: .*fetched whole"),
        (written("generation_config.json", "[]"), {}, "generation_config.json holds no JSON object"),
        (written("config.json", "{"), {}, "config.json is no JSON"),
        (other_tokenizer, {}, "embedding has only"),
        (partial(edit, vocab_size=5000), {}, "vocab_size 5000, and the embedding has"),
        (partial(edit, num_hidden_layers="two"), {}, "config.json names no model that can be run here: .*num_hidden_layers"),
        (lambda folder: (folder / "tokenizer.json").write_text("{") and None, {}, "its tokenizer cannot be loaded: "),
        (no_round_trip, {}, "round trip"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), {"chat_format": "auto"}, "no chat template.*chat_format: hermes"),
        (lambda folder: None, {"chat_format": "auto"}, "drops the tools.*base.checkpoint.chat_format: hermes"),
        (template("{{ raise_exception('not today') }}"), {}, "not today"),
        (template("{% for message in messages %}{{ message.content }}{% endfor %}"), {}, "no token of the tokenizer ends a turn"),
    ],
)
def test_refused_with_the_reason(world: Path, copy: Path, spoil: Callable[[Path], None], params: dict[str, Any], said: str) -> None:
    spoil(copy)

    assert re.search(said, message := refused(world, copy, **params), re.DOTALL), message


def test_weights_that_are_no_numbers_are_told_before_any_stage_is_paid_for_them(world: Path, copy: Path, tmp_path: Path) -> None:
    import torch

    broken = torch.ones(32)
    broken[3] = float("nan")
    tensors(copy, **{"model.norm.weight": broken})
    with pytest.raises(StageFailed, match=r"model.safetensors holds a weight that is NaN or infinite, in model.norm.weight"):
        take(world, copy, tmp_path / "linked")
    with pytest.raises(StageFailed, match=r"weights are NaN or infinite as torch.bfloat16: the checkpoint is broken"):
        take(world, copy, tmp_path / "written", dtype="bfloat16")


def test_the_same_weights_in_anothers_form_lie_beside_them(world: Path, copy: Path, tmp_path: Path) -> None:
    """As Mistral's folders have them."""
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    take(world, copy, tmp_path / "a")
    assert not (tmp_path / "a/out/model/consolidated.safetensors").exists()


def test_a_role_or_a_candidate_with_layers_of_chance_is_never_loaded(copy: Path) -> None:
    edit(copy, num_hidden_layers=3)
    with pytest.raises(StageFailed, match=r"copy: the weights are not those of the model that config.json names: 9 not there"):
        folders.load_model(copy)


@pytest.mark.parametrize("size", [4, 30, 80])
def test_a_gguf_file_that_is_cut_off_is_told_as_one(tmp_path: Path, size: int) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "whole.gguf", "llama")
    writer.add_context_length(64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "whole.gguf").read_bytes()[:size])
    for look in (check_files, of_source):
        with pytest.raises(BadInput, match=r"GGUF file .*\(was it fetched whole\?\): \w+"):
            look(cut)
    with pytest.raises(BadInput, match=r"holds no tokenizer.ggml.tokens: it is no model with its tokenizer"):
        of_source(tmp_path / "whole.gguf")


def test_a_context_shorter_than_a_worlds_prompt_is_refused_with_the_numbers(world: Path, copy: Path) -> None:
    edit(copy, max_position_embeddings=512)
    preflight(Inputs(world, copy), Params(source=str(copy), chat_format="hermes"), NONE)
    assert "its context is 512 tokens, and the first prompt of world retail alone has " in refused(world, copy, FULL)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of the smoke road with a checkpoint as base; nothing else of the project's is looked at."""

    def made(given: Path | str, identity: str = "", **params: Any) -> Plan:
        text, store = str(given), Store(tmp_path / "state")
        named = identity or (sources.identity_of(Path(text), store) if Path(text).exists() else "0" * 32)
        return Plan.open(settings_with(text, named, **params), tmp_path / "state")

    return made


@pytest.mark.parametrize(
    ("family", "config", "said"),
    [
        ("Llama", {}, ""),
        ("Qwen3", {"head_dim": 8}, ""),
        ("Mistral", {"sliding_window": 64}, "a sliding window of 64 tokens"),
        ("Gemma", {"head_dim": 8}, "its model_type is gemma"),
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "its rope_type is dynamic"),
    ],
)
def test_what_the_engine_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, plan: Callable[..., Plan], family: str, config: dict[str, Any], said: str
) -> None:
    given = checkpoint(tmp_path / "model", family=family, **config)
    opened = plan(given)
    if not said:
        source_checks.check_sources(opened, ["worlds", "base"])
        return
    with pytest.raises(BadInput, match=rf"base.checkpoint.source = '{given}': engine own: it cannot run this checkpoint: .*{said}"):
        source_checks.check_sources(opened, ["worlds", "base"])
    source_checks.check_sources(opened, ["sft"])  # base is cached: nothing to look at


@pytest.mark.parametrize(
    "engine", [{"method": "transformers"}, {"method": "server", "server": {"base_url": "http://127.0.0.1:9", "model": "m"}}]
)
def test_another_engine_runs_what_the_engine_own_does_not(tmp_path: Path, plan: Callable[..., Plan], engine: dict[str, Any]) -> None:
    opened = plan(checkpoint(tmp_path / "model", family="Mistral", sliding_window=64))
    tree = opened.settings.tree
    for stage in ("rl", "evaluate"):
        tree = overlay(tree, f"{stage}.engine", engine)
    source_checks.check_sources(replace(opened, settings=Settings(ROOT, tree)), ["base"])


@pytest.mark.parametrize(
    ("stage", "adapter", "said"),
    [
        ("sft", {"targets": ["nolayer"]}, r"sft.loop.adapter.targets = \['nolayer'\]: .*not found"),
        ("rl", {"targets": ["q_proj", "gate_porj"]}, "rl.loop.adapter.targets names 'gate_porj', and no layer's name ends so"),
        ("rl", {"modules_to_save": ["embed"]}, "rl.loop.adapter.modules_to_save names 'embed', and no module's name ends so"),
        ("rl", {"targets": ["o_proj"], "modules_to_save": ["model.norm"]}, ""),
    ],
)
@pytest.mark.parametrize("outside", [True, False])
def test_layers_that_an_adapter_names_and_the_checkpoint_has_not_are_told_before_anything_starts(
    llama: Path, plan: Callable[..., Plan], stage: str, adapter: dict[str, Any], said: str, outside: bool
) -> None:
    """Also when base is cached, and of a checkpoint that the road builds."""
    opened = plan(llama)
    tree = opened.settings.tree if outside else load(ROOT, "smoke").tree
    tree = overlay(tree, f"{stage}.loop.adapter", {"kind": "lora", "r": 2, **adapter})
    opened = replace(opened, settings=Settings(ROOT, tree))
    if not said:
        return source_checks.check_sources(opened, [stage])
    with pytest.raises(BadInput, match=said):
        source_checks.check_sources(opened, [stage])


def test_a_registered_version_says_where_its_base_comes_from_and_its_licence(world: Path, copy: Path, tmp_path: Path) -> None:
    take(world, copy, tmp_path / "base", origin="somebody/llama", license="apache-2.0", identity="abc")
    store = Store(tmp_path / "state")
    base, model = store.put(tmp_path / "base/out"), store.put(copy)
    store.record(Key({"stage": "base", "inputs": {}}), base, {"figures": {}})
    store.record(Key({"stage": "merge", "inputs": {"base": base}}), model, {"figures": {}})
    known: Any = SimpleNamespace(store=store, settings=load(ROOT, "smoke"))
    wanted = {"origin": "somebody/llama", "license": "apache-2.0", "identity": "abc"}
    assert base_of(known, Records(store).behind(model)) == wanted
    assert base_of(known, Records(store).behind(base, "merge")) == {}


# Where it lies, and what it is called.


def test_the_bytes_are_the_key_not_the_place(llama: Path, copy: Path, tmp_path: Path, plan: Callable[..., Plan]) -> None:
    """For both drivers: `cairn run` by the key, `dvc repro` by what dvc.lock holds."""
    one, two = plan(llama), plan(copy)
    inputs = {"worlds": "0" * 32 + ".dir"}
    first, second = (job_of(each, "base", inputs).key for each in (one, two))
    assert first.digest == second.digest and "source" not in first.parts["params"]
    about = listed(one.settings)["base"]
    params = {key: one.settings.tree[key] for key in about.settings}
    versions = yaml.safe_load((ROOT / "params/versions.yaml").read_text())
    entry = {
        "deps": [{"path": "data/worlds", "md5": inputs["worlds"]}, *({"path": p, "md5": m} for p, m in first.parts["code"].items())],
        "params": {"params/pipeline.yaml": params, "params/versions.yaml": versions},
        "outs": [{"path": "data/base", "md5": "1" * 32 + ".dir"}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"base": entry}}))
    shutil.copytree(ROOT / "params", tmp_path / "params")
    for each in (one, two):
        assert dvc_lock.held(tmp_path, about, first, each.settings.tree) == "1" * 32 + ".dir"
    edit(copy, rope_theta=5.0)
    other = plan(copy)
    assert (moved := job_of(other, "base", inputs).key).digest != first.digest
    assert dvc_lock.held(tmp_path, about, moved, other.settings.tree) is None


def test_other_bytes_than_the_params_name_are_refused_and_never_recorded(copy: Path, plan: Callable[..., Plan]) -> None:
    with pytest.raises(BadInput, match=r"base.checkpoint.identity = '0+': the bytes of .* are '[0-9a-f]{32}.dir'. Write that"):
        plan(copy, "0" * 32)
    opened = plan(copy)
    read = next(sources.named(opened.settings))
    sources.check_read(read, ROOT, opened.store, trust=False)
    edit(copy, rope_theta=5.0)
    with pytest.raises(StageFailed, match="Was it altered"):
        sources.check_read(read, ROOT, opened.store, trust=True)


def test_what_is_not_read_is_not_in_the_identity(copy: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    before = sources.identity_of(copy, store)
    (copy / "optimizer.pt").write_bytes(b"1")
    (copy / ".cache").mkdir()
    (copy / ".cache/times.json").write_text("{}")
    assert (
        sources.identity_of(copy, store)
        == before
        == Hashes(tmp_path / "other").path(shutil.copytree(copy, tmp_path / "x", ignore=ignored))
    )


ignored = shutil.ignore_patterns("optimizer.pt", ".cache")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hub:somebody/llama", "without a revision it is whatever lies there, which moves. Pin the commit"),
        ("hub:somebody/llama@main", "'main' is a branch or a tag, which moves. Pin the commit, hub:somebody/llama@<40 digits>"),
        (f"hub:somebody/llama@{COMMIT}", "is not in the local cache .* HF_HUB_OFFLINE=0"),
        ("hub:llama", "names no checkpoint. Allowed: a folder, artifact:"),
        ("models:/llama", "names no checkpoint"),
        ("somebody/llama", "nothing lies at .* Of the hub. Write hub:somebody/llama@<commit>"),
        ("/nowhere", r"nothing lies at /nowhere. Allowed: a GGUF file, a folder.*40 digits>\.$"),
        ("{empty}", "no file of a checkpoint is in it"),
        ("", "base.checkpoint.source is missing"),
    ],
)
def test_a_name_that_names_nothing_or_something_that_moves(
    tmp_path: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=said):
        source_checks.check_sources(plan(text.replace("{empty}", str(tmp_path / "empty"))), ["base"])


def test_a_commit_of_the_hub_in_the_local_cache(
    world: Path, llama: Path, tmp_path: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub's own layout: names in a snapshot are links to blobs."""
    from huggingface_hub import snapshot_download

    blobs, snapshot = (tmp_path / "hub/models--somebody--llama" / name for name in ("blobs", f"snapshots/{COMMIT}"))
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in llama.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", partial(snapshot_download, cache_dir=tmp_path / "hub"))
    text, store = f"hub:somebody/llama@{COMMIT}", Store(tmp_path / "state")
    opened = plan(text, sources.identity_of(llama, store))
    found = sources.found(next(sources.named(opened.settings)), ROOT, store)
    assert found == snapshot
    figures = take(world, found, tmp_path / "run", origin=Params(source=text).origin)
    assert figures["origin"] == f"somebody/llama@{COMMIT}"
    assert not (tmp_path / "run/out/model/model.safetensors").is_symlink()


def test_an_artifact_by_its_identity(llama: Path, tmp_path: Path, plan: Callable[..., Plan]) -> None:
    store = Store(tmp_path / "state")
    shutil.copytree(llama, tmp_path / "artifact/model")
    artifact = store.put(tmp_path / "artifact")
    opened = plan(f"artifact:{artifact}", sources.identity_of(llama, store))
    assert sources.found(next(sources.named(opened.settings)), ROOT, store).name == "model"
