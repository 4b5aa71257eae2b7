"""Checkpoints as people have them: what says the same in other words is merged, what differs is refused with the key that settles it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.contract.params import BadInput
from tasks.merge import Inputs, linear
from tasks.merge.core import agree
from tasks.merge.core.headers import Checkpoint, open_checkpoint, read, read_templates, widen
from tasks.merge.core.meaning import compare, is_tied, meaning, same_template
from tests.merge.runs import outcome

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "eos_token_id": 2,
    "max_position_embeddings": 128,
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [
        {"id": 4, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": ["a b"]},
}


def save(folder: Path, seed: int = 0, config: Any = (), template: str | None = "{{ messages }}", **files: Any) -> Path:
    """A checkpoint with random weights; config replaces keys (None leaves a key out); files: name without its ending -> JSON or None."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    moved = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (40, 8), "model.layers.0.mlp.up_proj.weight": (16, 8), "model.norm.weight": (8,)}
    tensors = {name: (rng.normal(size=shape) + 0.05 * seed * moved.normal(size=shape)).astype("f4") for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    said = {key: value for key, value in {**QWEN, **dict(config)}.items() if value is not None}
    for name, value in {"config": said, "tokenizer": TOKENIZER, **files}.items():
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    if template is not None:
        (folder / "chat_template.jinja").write_bytes(template.encode())
    return folder


def half(folder: Path, code: Callable[[Any], Any]) -> Path:
    """The same checkpoint stored in another dtype."""
    tensors = {name: code(widen(read(spec), spec.dtype)) for name, spec in open_checkpoint("x", folder).tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def make(base: Path, expert: Path, out: Path, **params: Any) -> tuple[Checkpoint, dict[str, Any]]:
    shutil.rmtree(out, ignore_errors=True)  # of a merge that was refused
    settled = linear.Params(weights={}, **params)
    done = outcome(linear.run, Inputs(base, {"a": expert}), settled, out)
    return open_checkpoint("merged", out / "out/model"), done.figures


# --- what says the same ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": None, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"layer_types": ["full_attention"] * 2},
        {"hidden_act": "silu", "rms_norm_eps": 1e-6, "num_key_value_heads": None},  # defaults spelled out, or left out
        {
            "transformers_version": "5.0.0",
            "_name_or_path": "x/y",
            "use_cache": False,
            "attention_dropout": 0.1,
            "torch_dtype": "bfloat16",
        },
    ],
)
def test_a_configuration_in_other_words_is_the_same(tmp_path: Path, config: dict[str, Any]) -> None:
    compared = compare(
        QWEN | {"num_key_value_heads": 32}, {**QWEN, "num_key_value_heads": 32, **{k: v for k, v in config.items() if v}}
    )
    assert not compared.different and not compared.base_holds


@pytest.mark.parametrize(
    "config", [{"eos_token_id": [2, 4]}, {"pad_token_id": 3}, {"trainer_version": "1"}, {"max_position_embeddings": 256}]
)
def test_what_contradicts_nothing_is_told(tmp_path: Path, config: dict[str, Any]) -> None:
    (key,) = config
    there, figures = make(save(tmp_path / "b"), save(tmp_path / "e", 1, config), tmp_path / "m")
    assert there.config.get(key) == QWEN.get(key)
    assert f"a: config.json has {key} =" in figures["notes"][0] and f"`settle: {{{key}: a}}`" in figures["notes"][0]
    taken, figures = make(tmp_path / "b", tmp_path / "e", tmp_path / "t", settle={key: "a"})
    assert taken.config[key] == config[key] and "notes" not in figures


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"rope_theta": 1e6}, "rope_parameters"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ({"use_sliding_window": True, "sliding_window": 16}, "sliding_window"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"max_position_embeddings": 256, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_parameters"),
    ],
)
def test_a_real_difference_is_refused_until_the_recipe_settles_it(tmp_path: Path, config: dict[str, Any], key: str) -> None:
    base, expert = save(tmp_path / "b"), save(tmp_path / "e", 1, config)
    compared = compare(QWEN, {**QWEN, **config})
    assert key in compared.different
    with pytest.raises(BadInput, match=rf"config.json has {key} = .*`settle: {{{key}: base}}` or `settle: {{{key}: a}}`"):
        make(base, expert, tmp_path / "m")
    everything = dict.fromkeys({*compared.different, *compared.base_holds}, "base")
    ours, _ = make(base, expert, tmp_path / "ours", settle=everything)
    assert ours.config == QWEN
    its, _ = make(base, expert, tmp_path / "its", settle=dict.fromkeys(everything, "a"))
    again = compare({**QWEN, **config}, its.config)
    assert not again.different, "the merged model says what the expert says"


def test_a_longer_context_is_a_difference_where_positions_are_stretched(tmp_path: Path) -> None:
    stretched = {**QWEN, "rope_theta": None, "rope_parameters": {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}}
    assert "max_position_embeddings" in compare(stretched, {**stretched, "max_position_embeddings": 256}).different


def test_a_type_that_no_library_knows_is_compared_as_it_stands() -> None:
    own = {"model_type": "of_my_own", "vocab_size": 8}
    assert not compare(own, {**own, "dtype": "float16"}).different
    assert list(compare(own, {**own, "layer_types": ["a"]}).different) == ["layer_types"]


def test_end_tokens_are_taken_where_text_is_made_too(tmp_path: Path) -> None:
    """generation_config.json outweighs config.json."""
    base = save(tmp_path / "b", generation_config={"eos_token_id": 2, "temperature": 0.5})
    expert = save(tmp_path / "e", 1, {"eos_token_id": [2, 4]})
    make(base, expert, tmp_path / "m", settle={"eos_token_id": "a"})
    said = json.loads((tmp_path / "m/out/model/generation_config.json").read_text())
    assert said == {"eos_token_id": [2, 4], "temperature": 0.5}


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ({"eos_tokn": "a"}, "settle: 'eos_tokn' is no key of any config.json here. Did you mean 'eos_token_id'?"),
        ({"eos_token_id": "b"}, "settle: no 'b'. Allowed: base, a."),
        ({"tokenizer": "a"}, "settle: tokenizer: a has none. Allowed: base."),
        ({"chat_template": "a"}, "settle: chat_template: a has none. Allowed: base."),
    ],
)
def test_taking_what_is_not_there_is_refused(tmp_path: Path, take: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        make(save(tmp_path / "b"), save(tmp_path / "e", 1, template=None, tokenizer=None), tmp_path / "m", settle=take)
    assert message in str(refused.value)


# --- tokenizer and template ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokenizer",
    [
        {**TOKENIZER, "model": {**TOKENIZER["model"], "merges": [["a", "b"]]}},  # type: ignore[dict-item]
        {**TOKENIZER, "model": {**TOKENIZER["model"], "dropout": None, "fuse_unk": False, "ignore_merges": False}},  # type: ignore[dict-item]
        {**TOKENIZER, "normalizer": None, "decoder": None, "truncation": {"max_length": 5}},
        None,  # an expert that was saved without one
    ],
)
def test_a_tokenizer_in_other_words_is_the_same(tmp_path: Path, tokenizer: Any) -> None:
    make(save(tmp_path / "b"), save(tmp_path / "e", 1, tokenizer=tokenizer), tmp_path / "m")
    assert json.loads((tmp_path / "m/out/model/tokenizer.json").read_text()) == TOKENIZER


def test_another_tokenizer_is_refused_until_the_recipe_settles_it(tmp_path: Path) -> None:
    other = {**TOKENIZER, "model": {**TOKENIZER["model"], "vocab": {"b": 0, "a": 1, "c": 2, "ab": 3}}}  # type: ignore[dict-item]
    base, expert = save(tmp_path / "b"), save(tmp_path / "e", 1, tokenizer=other)
    with pytest.raises(
        BadInput, match=r"the tokenizer's 'model' is not the base's.*`settle: {tokenizer: base}` or `settle: {tokenizer: a}`"
    ):
        make(base, expert, tmp_path / "m")
    make(base, expert, tmp_path / "m", settle={"tokenizer": "a"})
    assert json.loads((tmp_path / "m/out/model/tokenizer.json").read_text()) == other
    large = {**TOKENIZER, "model": {"type": "BPE", "vocab": {f"t{index}": index for index in range(50)}, "merges": []}}
    with pytest.raises(BadInput, match=r"ids up to 49, 'model\.embed_tokens.weight' has 40 rows. `tokenizer: union` adds rows."):
        make(base, save(tmp_path / "l", 1, tokenizer=large), tmp_path / "n", settle={"tokenizer": "a"})


@pytest.mark.parametrize("template", ["{{ messages }}\n", "{{ messages }}", None])
def test_a_last_newline_of_a_template_says_nothing(tmp_path: Path, template: str | None) -> None:
    make(save(tmp_path / "b"), save(tmp_path / "e", 1, template=template), tmp_path / "m")
    assert (tmp_path / "m/out/model/chat_template.jinja").read_text() == "{{ messages }}"
    assert same_template("a\r\nb\r\n", "a\nb") and not same_template("a\n\n", "a")


def test_the_only_template_is_taken_and_two_are_a_difference(tmp_path: Path) -> None:
    base = save(tmp_path / "b", template=None, tokenizer_config={"model_max_length": 5})
    expert = save(tmp_path / "e", 1, template=None, tokenizer_config={"chat_template": "{{ hers }}"})
    _, figures = make(base, expert, tmp_path / "m")
    assert "the base has no chat template; that of a is taken" in figures["notes"]
    assert (tmp_path / "m/out/model/chat_template.jinja").read_text() == "{{ hers }}"
    assert json.loads((tmp_path / "m/out/model/tokenizer_config.json").read_text()) == {"model_max_length": 5}

    base = save(tmp_path / "b2", template=None, tokenizer_config={"chat_template": [{"name": "default", "template": "{{ his }}"}]})
    with pytest.raises(
        BadInput, match=r"the chat template is not the base's.*`settle: {chat_template: base}` or `settle: {chat_template: a}`"
    ):
        make(base, expert, tmp_path / "n")
    make(base, expert, tmp_path / "n", settle={"chat_template": "a"})
    assert (tmp_path / "n/out/model/chat_template.jinja").read_text() == "{{ hers }}"
    assert "chat_template" not in json.loads((tmp_path / "n/out/model/tokenizer_config.json").read_text()), "one place says it"


def test_a_base_without_tokenizer_gets_the_only_one(tmp_path: Path) -> None:
    base = save(tmp_path / "b", template=None, tokenizer=None)
    _, figures = make(base, save(tmp_path / "e", 1, special_tokens_map={"eos_token": "<|end|>"}), tmp_path / "m")
    assert "the base has no tokenizer; that of a is taken" in figures["notes"]
    for name in ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (tmp_path / "m/out/model" / name).read_bytes() == (tmp_path / "e" / name).read_bytes()


# --- tensors ---------------------------------------------------------------------------------------------------------


def test_other_storage_dtypes_are_merged_in_float32_and_stored_as_said(tmp_path: Path) -> None:
    base, expert = save(tmp_path / "b"), half(save(tmp_path / "e", 1, {"torch_dtype": "float16"}), lambda value: value.astype("f2"))
    there, figures = make(base, expert, tmp_path / "m")
    wanted = {name: read(spec).astype("f4") for name, spec in open_checkpoint("e", expert).tensors.items()}
    assert "a: stored as F16 against the base's F32" in figures["notes"][0]
    for name, spec in there.tensors.items():
        assert spec.dtype == "F32" and np.allclose(read(spec), wanted[name], atol=1e-6), "the average of one expert is that expert"

    there, figures = make(base, expert, tmp_path / "t", settle={"dtype": "a"}, overrides=[{"match": "norm", "exclude": True}])
    assert {spec.dtype for spec in there.tensors.values()} == {"F16"} and there.config["torch_dtype"] == "float16"
    assert "notes" not in figures
    kept = read(open_checkpoint("b", base).tensors["model.norm.weight"]).astype("f2")
    assert np.array_equal(read(there.tensors["model.norm.weight"]), kept), "also what is left as in the base"


def test_padded_tables_name_the_union(tmp_path: Path) -> None:
    expert = save(tmp_path / "e", 1, {"vocab_size": 48})
    tensors = {name: read(spec) for name, spec in open_checkpoint("e", expert).tensors.items()}
    tensors["model.embed_tokens.weight"] = np.vstack([tensors["model.embed_tokens.weight"], np.zeros((8, 8), "f4")])
    save_file(tensors, expert / "model.safetensors")
    with pytest.raises(BadInput, match=r"one of them perhaps padded, are merged by `tokenizer: union`"):
        make(save(tmp_path / "b"), expert, tmp_path / "m")
    there, _ = make(tmp_path / "b", expert, tmp_path / "m", tokenizer="union")
    assert there.tensors["model.embed_tokens.weight"].shape == (40, 8)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"ghost.weight": "model-1.safetensors"}, "says that model-1.safetensors holds the tensor 'ghost.weight', which is not there"),
        ({"model.norm.weight": "model-2.safetensors"}, "'model.norm.weight', which is not there"),
    ],
)
def test_an_index_of_other_files_is_refused(tmp_path: Path, index: dict[str, str], message: str) -> None:
    folder = save(tmp_path / "b")
    names = list(open_checkpoint("b", folder).tensors)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file({"other": np.zeros(2, "f4")}, folder / "model-2.safetensors")
    weight_map = {**dict.fromkeys(names, "model-1.safetensors"), "other": "model-2.safetensors", **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadInput, match=message):
        open_checkpoint("b", folder)


def test_an_index_beside_a_whole_file_is_refused(tmp_path: Path) -> None:
    """transformers reads model.safetensors, whatever the index says."""
    folder = save(tmp_path / "b")
    (folder / "model-1.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(open_checkpoint("b", folder).tensors, "model-1.safetensors")}))
    with pytest.raises(BadInput, match="two models, of which transformers reads the first"):
        open_checkpoint("b", folder)
    (folder / "model.safetensors").unlink()
    open_checkpoint("b", folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tokenizer.json", '{"added_tokens": [{"content": "x"}]}', "an added token has no id"),
        ("tokenizer.json", '{"added_tokens": "x"}', "not as the tokenizers library writes it"),
        ("tokenizer.json", '{"model": {"vocab": {"a": "x"}}}', "not as the tokenizers library writes it"),
        ("config.json", "[" * 100_000, "not valid JSON"),
        ("model.safetensors", (4000).to_bytes(8, "little").decode("latin-1") + "[" * 4000, "not a readable safetensors file"),
        ("model.safetensors.index.json", json.dumps({"weight_map": {"a": "x" * 300}}), "names the shard"),
    ],
)
def test_files_of_another_shape_are_refused_in_words(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = save(tmp_path / "b")
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=message):
        open_checkpoint("b", folder)


def test_a_tied_head_may_be_left_to_the_default(tmp_path: Path) -> None:
    assert is_tied({"tie_word_embeddings": True}) and not is_tied({"tie_word_embeddings": False})
    assert not is_tied({"model_type": "llama"}) and is_tied({"model_type": "gemma"})


# --- what lies deeper ------------------------------------------------------------------------------------------------


def test_rope_types_said_twice_are_the_same(tmp_path: Path) -> None:
    """transformers 4 wrote `type` beside `rope_type`."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    base = save(tmp_path / "b", 0, {"rope_scaling": yarn})
    _, figures = make(base, save(tmp_path / "e", 1, {"rope_scaling": {**yarn, "type": "yarn"}}), tmp_path / "m")
    assert "notes" not in figures


def test_what_differs_of_a_long_value_is_shown() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0}
    told = agree._difference("a", "rope_parameters", yarn, {**yarn, "factor": 8.0})
    assert told == 'a: config.json has rope_parameters = {"factor": 8.0}, the base\'s has {"factor": 4.0}'


@pytest.mark.parametrize(
    ("base", "other", "key"),
    [
        ({"model_type": "mistral", "sliding_window": 64}, {"model_type": "mistral", "sliding_window": None}, "sliding_window"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16, "num_hidden_layers": 2},
            {"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 16, "num_hidden_layers": 2},
            "sliding_window",
        ),
        (
            {"model_type": "gemma3_text", "rope_local_base_freq": 1e4},
            {"model_type": "gemma3_text", "rope_local_base_freq": 2e4},
            "rope_parameters",
        ),
    ],
)
def test_what_is_settled_means_what_it_means_there(base: dict[str, Any], other: dict[str, Any], key: str) -> None:
    """A null is a value: left out, the class's default would take its place."""
    written, lost = agree._with(base, {key: Checkpoint("a", Path(), {}, other, {}, "")})
    assert meaning(base)[key] != meaning(other)[key] == meaning(written)[key] and not lost


def test_what_cannot_be_taken_over_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agree.meaning, "meaning", lambda config: {"x": config["y"]})
    _, lost = agree._with({"x": 1, "y": 1}, {"x": Checkpoint("a", Path(), {}, {"x": 2, "y": 2}, {}, "")})
    assert lost == {"x": (1, 2)}


def test_a_configuration_inside_another_is_compared_by_what_it_means(tmp_path: Path) -> None:
    inner = {"model_type": "gemma3_text", "hidden_size": 8, "num_hidden_layers": 2, "rope_theta": 1e6, "torch_dtype": "float32"}
    said = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": inner, "rope_theta": None}
    base = save(tmp_path / "b", 0, said)
    same = {**inner, "torch_dtype": "bfloat16", "use_cache": False, "rms_norm_eps": 1e-6}
    make(base, save(tmp_path / "e", 1, {**said, "text_config": same}), tmp_path / "m")
    other = save(tmp_path / "o", 1, {**said, "text_config": {**inner, "rms_norm_eps": 1e-5}})
    with pytest.raises(BadInput, match=r"text_config.rms_norm_eps = 1e-05.*`settle: {text_config.rms_norm_eps: a}`"):
        make(base, other, tmp_path / "n")
    there, _ = make(base, other, tmp_path / "s", settle={"text_config.rms_norm_eps": "a"})
    assert there.config["text_config"] == {**inner, "rms_norm_eps": 1e-5}
    make(base, other, tmp_path / "w", settle={"text_config": "a"})


def test_a_configuration_that_the_class_refuses_is_compared_as_it_stands() -> None:
    found = compare({**QWEN, "rope_scaling": "yarn"}, QWEN)
    assert set(found.different) == {"rope_scaling"} and not found.base_holds


def inline(folder: Path, **templates: str) -> Path:
    """Chat templates by name in tokenizer_config.json."""
    said = [{"name": name, "template": text} for name, text in templates.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": said}))
    return folder


def in_files(folder: Path, **templates: str) -> Path:
    """Chat templates besides the default, as transformers 5 saves them."""
    (folder / "additional_chat_templates").mkdir()
    for name, text in templates.items():
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text)
    return folder


@pytest.mark.parametrize("way", ["inline", "in files"])
def test_chat_templates_by_name(tmp_path: Path, way: str) -> None:
    """A model with tools reads `tool_use`, not the default: it is compared, carried and settled too."""

    def folder(name: str, seed: int, **named: str) -> Path:
        if way == "inline":
            return inline(save(tmp_path / name, seed, template=None), default="{{ d }}", **named)
        return in_files(save(tmp_path / name, seed, template="{{ d }}"), **named)

    base, other = folder("b", 0, tool_use="{{ t }}"), folder("o", 1, tool_use="{{ u }}")
    there, figures = make(base, folder("e", 1, tool_use="{{ t }}\n"), tmp_path / "m")
    assert read_templates(there.folder) == {"default": "{{ d }}", "tool_use": "{{ t }}"} and "notes" not in figures
    with pytest.raises(BadInput, match=r"a: the chat template 'tool_use' is not the base's.*`settle: {chat_template: a}`"):
        make(base, other, tmp_path / "n")
    there, _ = make(base, other, tmp_path / "s", settle={"chat_template": "a"})
    assert read_templates(there.folder) == {"default": "{{ d }}", "tool_use": "{{ u }}"}
    there, figures = make(base, folder("q", 1), tmp_path / "p")
    assert "a: lacks a chat template 'tool_use', unlike the base's" in figures["notes"][0]
    assert read_templates(there.folder)["tool_use"] == "{{ t }}"


def test_a_templates_name_is_no_path(tmp_path: Path) -> None:
    base = save(tmp_path / "b", template=None)
    other = inline(save(tmp_path / "e", 1, template=None), default="{{ d }}", **{"../../x": "{{ x }}"})
    with pytest.raises(BadInput, match="allowed in a name are letters"):
        make(base, other, tmp_path / "m")
