"""LoRA adapters as experts: the same model as PEFT makes of them, block by block, and refusals of what is something else.

Worked example: A = [[1, 2, 3]], B = [[1], [10]], alpha 4, rank 1: scaling 4, change [[4, 8, 12], [40, 80, 120]]; rank-stabilised with
rank 4 the scaling of alpha 4 is 4 / sqrt(4) = 2.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tasks.contract.params import BadInput
from tasks.merge.breadcrumbs import Params, formula
from tasks.merge.core.adapters import LowRank, open_adapter
from tasks.merge.core.headers import open_checkpoint
from tasks.merge.core.plan import make_plan
from tests.merge.arithmetic import digests, merged, scratch_of
from tests.merge.folders import save

PREFIX = "base_model.model."
KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 6},
    "patterns": {
        "target_modules": "all-linear",
        "r": 4,
        "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 3},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 32, r"layers\.\d\.mlp\.down_proj": 5, "gate_proj": 1},
    },
    "stabilised": {
        "target_modules": ["q_proj", "up_proj"],
        "r": 8,
        "lora_alpha": 16,
        "use_rslora": True,
        "rank_pattern": {"up_proj": 2},
    },
    "embedding": {"target_modules": ["q_proj", "embed_tokens"], "r": 4, "lora_alpha": 2},
    "norms": {"target_modules": ["o_proj"], "r": 2, "modules_to_save": ["norm"]},
    "table": {"target_modules": ["o_proj"], "r": 2, "modules_to_save": ["embed_tokens"]},
}
"""What PEFT is asked for; each is trained to random values."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen3 in `base` and PEFT's adapters of it in folders named as in KINDS."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tasks.checkpoints import folders
    from tests.rollout import tiny

    root = tmp_path_factory.mktemp("adapters")
    tiny.saved(root / "base")
    for name, asked in KINDS.items():
        model, _ = folders.load(root / "base")
        model.name_or_path = str(root / "base")
        adapted = get_peft_model(model, LoraConfig(**asked))
        torch.manual_seed(len(name))
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(0.05 * torch.randn_like(weight))
        adapted.save_pretrained(str(root / name))
    return root


def by_peft(base: Path, adapter: Path) -> dict[str, Any]:
    """What PEFT makes of an adapter and its base: tensors by name."""
    from peft import PeftModel

    from tasks.checkpoints import folders

    whole = PeftModel.from_pretrained(folders.load(base)[0], str(adapter)).merge_and_unload()
    return {name: value.detach().numpy() for name, value in whole.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_of_weight_one_is_what_peft_merges(trained: Path, tmp_path: Path, kind: str) -> None:
    """Both add alpha / r B A to the base in float32; the order of the sums may differ, by a few steps of 2^-24."""
    merged(trained / "base", {"it": trained / kind}, tmp_path / "m")
    found, wanted, start = (
        load_file(tmp_path / "m/model.safetensors"),
        by_peft(trained / "base", trained / kind),
        load(trained / "base"),
    )
    assert found.keys() == start.keys()
    moved = {name for name in found if found[name].tobytes() != start[name].tobytes()}
    assert len(moved) == {"plain": 4, "patterns": 14, "stabilised": 4, "embedding": 3, "norms": 11, "table": 3}[kind]
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=2e-6, atol=1e-6, err_msg=name)


def load(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def test_adapters_and_checkpoints_are_merged_together(trained: Path, tmp_path: Path) -> None:
    """The sum of weight x change, in any mixture; the changes of the adapters are the sums, not products of sums of A and B."""
    start = load(trained / "base")
    moved = {name: values + np.float32(0.01) for name, values in start.items()}
    shutil.copytree(trained / "base", tmp_path / "full")
    save_file(moved, tmp_path / "full/model.safetensors")
    experts = {"a": trained / "plain", "b": trained / "patterns", "full": tmp_path / "full"}
    report = merged(trained / "base", experts, tmp_path / "m", weights={"a": 0.5, "full": 2.0})
    whole = {name: by_peft(trained / "base", trained / kind) for name, kind in (("a", "plain"), ("b", "patterns"))}
    for name, values in load(tmp_path / "m").items():
        wanted = (
            start[name] + 0.5 * (whole["a"][name] - start[name]) + (whole["b"][name] - start[name]) + 2 * (moved[name] - start[name])
        )
        np.testing.assert_allclose(values, wanted, rtol=2e-6, atol=2e-6, err_msg=name)
    still = [row for row in report.rows if row["model"] == "a" and row["tensor"].endswith("embed_tokens.weight")]
    assert [(row["changed_n"], row["delta_l2"]) for row in still] == [(0, 0.0)], "what an adapter leaves alone has not moved"


def test_masked_adapters_give_the_same_bytes_for_any_threads_and_order(trained: Path, tmp_path: Path) -> None:
    experts = {kind: trained / kind for kind in ("plain", "patterns", "stabilised")}
    found = []
    for number, threads in enumerate((1, 2, 4)):
        turned = dict(sorted(experts.items(), reverse=bool(number % 2)))
        merged(trained / "base", turned, tmp_path / f"m{number}", formula(Params(keep=0.1)), threads)
        found.append(digests(tmp_path / f"m{number}"))
    assert found[0] == found[1] == found[2]


def test_a_change_by_hand_in_any_slice() -> None:
    """The worked example, flipped as for an embedding, and every slice of a larger product."""
    left, right = np.array([[1], [10]], np.float32), np.array([[1, 2, 3]], np.float32)
    flat = LowRank(left, right, 4.0).change(slice(0, 6), np.zeros(6, np.float32))
    assert flat.tolist() == [4, 8, 12, 40, 80, 120]
    rng = np.random.default_rng(0)
    one = LowRank(rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32), 0.5)
    whole = (0.5 * one.left.astype(np.float64) @ one.right).reshape(-1)
    for where in (slice(0, 35), slice(5, 20), slice(0, 35, 3), slice(2, 30, 7), slice(3, 11), slice(0, 0)):
        there = one.change(where, np.zeros(len(range(*where.indices(35))), np.float32))
        assert there.dtype == np.float32
        np.testing.assert_allclose(there, whole[where], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 1.0), (True, 2.0)])
def test_scaling_by_hand(tmp_path: Path, rslora: bool, scaling: float) -> None:
    base, folder = _by_hand(tmp_path, use_rslora=rslora)
    (one,) = open_adapter("it", folder, open_checkpoint("base", base), "").matrices.values()
    assert one.scaling == scaling


def _by_hand(root: Path, **changed: Any) -> tuple[Path, Path]:
    """A base of one matrix [6, 5] and an adapter of rank 4 with alpha 4; `changed` goes into its config."""
    base = save(root / "base", {"layers.0.w.weight": np.ones((6, 5), np.float32)})
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 4, **changed}
    return base, _adapter(root / "it", {"layers.0.w": (np.ones((4, 5), np.float32), np.ones((6, 4), np.float32))}, config)


def _adapter(folder: Path, pairs: Mapping[str, Any], config: Mapping[str, Any], **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sides = {f"{PREFIX}{name}.lora_{side}.weight": pair["AB".index(side)] for name, pair in pairs.items() for side in "AB"}
    save_file({**sides, **more}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_dora": True}, "use_dora is set; merge this adapter into its base with PEFT first"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is set"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changed the base before training"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA adapters are merged"),
        ({"r": 8}, r"layers\.0\.w has rank 4, its adapter_config.json says 8"),
        ({"rank_pattern": ["w"]}, "rank_pattern and alpha_pattern map regular expressions to numbers"),
        ({"alpha_pattern": {"(": 2}}, "rank_pattern and alpha_pattern map regular expressions to numbers"),
        ({"base_model_name_or_path": "x" * 5000}, "its adapter was trained on"),
        ({"rank_pattern": {"w": 2}}, r"layers\.0\.w has rank 4, its adapter_config.json says 2"),
        ({"base_model_name_or_path": "org/model"}, "trained on 'org/model', which is no folder here.* adapter_base: 'org/model'"),
        ({"base_model_name_or_path": None}, "trained on '', which is no folder here"),
    ],
)
def test_other_adapters_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    base, folder = _by_hand(tmp_path, **changed)
    with pytest.raises(BadInput, match=rf"^it: .*{message}"):
        merged(base, {"it": folder}, tmp_path / "m")
    assert not (tmp_path / "m").exists() and not list(scratch_of(tmp_path / "m").iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"r": 8, "rank_pattern": {"w": 4}},
        {"rank_pattern": {"0": 2, "ayers.0.w": 2}},
        {"lora_alpha": 8, "alpha_pattern": {"0.w": 4, "w": 16}},
    ],
)
def test_harmless_settings_are_not_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A pattern is a module's name or the end of it after a dot, and the first that fits counts. 1 + 4 / 4 x four products of ones."""
    base, folder = _by_hand(tmp_path, **changed)
    merged(base, {"it": folder}, tmp_path / "m")
    assert load(tmp_path / "m")["layers.0.w.weight"].tolist() == [[5.0] * 5] * 6


@pytest.mark.parametrize(
    ("pairs", "more", "message"),
    [
        ({"layers.1.w": ((4, 5), (6, 4))}, {}, r"changes 'layers\.1\.w\.weight', which the base does not have"),
        ({"layers.0.w": ((4, 6), (5, 4))}, {}, r"'layers\.0\.w\.weight' has shape \[5, 6\], the base's has \[6, 5\]"),
        ({"layers.0.w": ((4, 5), (6, 3))}, {}, r"A \[4, 5\] and B \[6, 3\] cannot be multiplied as B A"),
        ({"layers.0.w": ((4, 5, 1, 1), (6, 4, 1, 1))}, {}, "cannot be multiplied"),
        (
            {"layers.0.w": ((4, 5), (6, 4))},
            {"layers.0.norm.weight": (5,)},
            r"changes 'layers\.0\.norm\.weight', which the base does not",
        ),
        ({"layers.0.w": ((4, 5), (6, 4))}, {"layers.0.v.lora_A.weight": (4, 5)}, r"layers\.0\.v has only one of lora_A and lora_B"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(tmp_path: Path, pairs: Mapping[str, Any], more: Mapping[str, Any], message: str) -> None:
    base, _ = _by_hand(tmp_path)
    arrays = {name: tuple(np.ones(shape, np.float32) for shape in both) for name, both in pairs.items()}
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 4}
    folder = _adapter(tmp_path / "odd", arrays, config, **{PREFIX + name: np.ones(shape, np.float32) for name, shape in more.items()})
    with pytest.raises(BadInput, match=rf"odd: .*{message}"):
        make_plan(base, {"odd": folder})


def test_values_that_are_no_numbers_and_pickles_are_refused(tmp_path: Path) -> None:
    base, folder = _by_hand(tmp_path)
    wrong = np.full((4, 5), np.nan, np.float32)
    _adapter(folder, {"layers.0.w": (wrong, np.ones((6, 4), np.float32))}, json.loads((folder / "adapter_config.json").read_text()))
    with pytest.raises(BadInput, match=r"it: tensor 'layers\.0\.w': lora_A holds NaN or infinity"):
        make_plan(base, {"it": folder})
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"it: .* has no adapter_model\.safetensors; only safetensors are read, pickles are not"):
        make_plan(base, {"it": folder})


def test_the_base_must_be_the_adapters_own(tmp_path: Path) -> None:
    """By its bytes, wherever it lies; a name on a hub is taken on the user's word alone."""
    base, folder = _by_hand(tmp_path)
    shutil.copytree(base, tmp_path / "elsewhere")
    assert make_plan(tmp_path / "elsewhere", {"it": folder}).labels == ["it"]
    other = save(tmp_path / "other", {"layers.0.w.weight": np.full((6, 5), 2, np.float32)})
    with pytest.raises(
        BadInput, match=re.escape(f"it: its adapter was trained on {base}, whose weights are not those of the base {other}")
    ):
        make_plan(other, {"it": folder})
    _, named = _by_hand(tmp_path, base_model_name_or_path="org/model")
    with pytest.raises(BadInput, match="adapter_base: 'org/model'"):
        merged(base, {"it": named}, tmp_path / "m", adapter_base="org/other")
    merged(base, {"it": named}, tmp_path / "m", adapter_base="org/model")
    assert load(tmp_path / "m")["layers.0.w.weight"][0, 0] == 5.0


def test_an_adapted_table_that_was_not_the_bases_is_refused(trained: Path, tmp_path: Path) -> None:
    """PEFT saves an embedding that it adapts as it was; one that was resized or exchanged is not the base's any more."""
    shutil.copytree(trained / "embedding", tmp_path / "odd")
    tensors = load_file(tmp_path / "odd/adapter_model.safetensors")
    key = f"{PREFIX}model.embed_tokens.base_layer.weight"
    tensors[key] = tensors[key].astype(np.float16)
    save_file(tensors, tmp_path / "odd/adapter_model.safetensors")
    assert make_plan(trained / "base", {"odd": tmp_path / "odd"}).labels == ["odd"], "rounded to the precision it was trained in"
    tensors[key] = tensors[key] + 1
    save_file(tensors, tmp_path / "odd/adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"odd: the adapter was trained on another 'model\.embed_tokens\.weight' than the base's"):
        make_plan(trained / "base", {"odd": tmp_path / "odd"})


def test_a_change_of_a_tied_output_layer_is_not_dropped_in_silence(tmp_path: Path) -> None:
    """The base stores the tied layer twice; merged is the embedding, so a change of the copy alone has no place."""
    table = np.ones((8, 4), np.float32)
    base = save(tmp_path / "base", {"model.embed_tokens.weight": table, "lm_head.weight": table})
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 2}
    folder = _adapter(tmp_path / "it", {"lm_head": (np.ones((2, 4), np.float32), np.ones((8, 2), np.float32))}, config)
    with pytest.raises(
        BadInput, match=r"it: the adapter changes 'lm_head\.weight', which the base ties to its embeddings: .* Untie the base"
    ):
        make_plan(base, {"it": folder})


def test_a_union_of_tokenizers_wants_whole_checkpoints(tmp_path: Path) -> None:
    base, folder = _by_hand(tmp_path)
    with pytest.raises(BadInput, match="tokenizer: union is for whole checkpoints; merge the adapters into their base first"):
        merged(base, {"it": folder}, tmp_path / "m", tokenizer="union")


def test_each_adapter_may_call_the_base_by_its_own_name(tmp_path: Path) -> None:
    base, there = _by_hand(tmp_path, base_model_name_or_path="/data/models/base")
    there = there.rename(tmp_path / "there")
    _, named = _by_hand(tmp_path, base_model_name_or_path="org/model")
    both = {"one": named, "two": there}
    for names in (["org/model", "/data/models/base"], {"one": "org/model", "two": "/data/models/base"}):
        merged(base, both, tmp_path / f"m{len(str(names))}", adapter_base=names)
    with pytest.raises(
        BadInput, match=r"two: its adapter was trained on '/data/models/base'.*adapter_base: {two: '/data/models/base'}"
    ):
        merged(base, both, tmp_path / "n", adapter_base={"one": "org/model"})
    with pytest.raises(BadInput, match=r"merge: adapter_base: no 'three'\..*Allowed: one, two"):
        merged(base, both, tmp_path / "o", adapter_base={"three": "org/model"})


def test_an_adapter_settles_no_key_of_a_configuration_it_does_not_have(tmp_path: Path) -> None:
    base, folder = _by_hand(tmp_path)
    with pytest.raises(BadInput, match=r"settle: vocab_size: it is an adapter, which has no config.json\. Allowed: base\."):
        merged(base, {"it": folder}, tmp_path / "m", settle={"vocab_size": "it"})


def test_an_adapter_with_a_tokenizer_or_template_of_its_own_is_no_adapter_without(tmp_path: Path) -> None:
    base, own = _by_hand(tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (own / name).write_bytes((base / name).read_bytes())
    merged(base, {"it": own}, tmp_path / "same")
    (own / "chat_template.jinja").write_text("{{ mine }}")
    with pytest.raises(BadInput, match=r"it: the chat template is not the base's.*`settle: {chat_template: it}`"):
        merged(base, {"it": own}, tmp_path / "m")
    merged(base, {"it": own}, tmp_path / "settled", settle={"chat_template": "it"})
    (base / "chat_template.jinja").unlink()
    merged(base, {"it": own}, tmp_path / "carried")
    for name in ("settled", "carried"):
        assert next((tmp_path / name).rglob("chat_template.jinja")).read_text() == "{{ mine }}"
    (own / "tokenizer.json").write_text('{"model": {"vocab": {"b": 0, "a": 1}}}')
    with pytest.raises(BadInput, match=r"it: the tokenizer's 'model' is not the base's"):
        merged(base, {"it": own}, tmp_path / "n")
