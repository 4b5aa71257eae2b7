"""The union of tokenizers: tokens by name, whatever their ids, and the rows that go with them.

Worked example, tables with one column, the base's tokenizer with a=0, b=1 and the added <s>=2:

    base  a 1   b 2   <s> 3                 table of 4 rows, the last one (9) padding
    one   a 1   b 4   <s> 3   <x> 10        ids 0 1 2 3
    two   a 1   b 2   <s> 5   <y> 30  <x> 20    ids 0 1 2 3 4

The union: <x>=3 (of one, which comes first), <y>=4. In the base <x> is (10 + 20) / 2 = 15 and <y> is 30.
With weights 1 for one and 0.5 for two: a 1; b 2 + 2 = 4; <s> 3 + 0.5 x 2 = 4; <x> 15 - 5 + 0.5 x 5 = 12.5; <y> 30.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks.contract.params import BadInput
from tasks.merge.breadcrumbs import Params, formula
from tasks.merge.core.headers import open_checkpoint
from tasks.merge.core.plan import make_plan
from tasks.merge.core.vocabulary import is_table, unite
from tests.merge.arithmetic import digests, merged
from tests.merge.folders import save

TABLE = "model.embed_tokens.weight"


def checkpoint(folder: Path, added: Mapping[str, int], rows: list[float], **about: Any) -> Path:
    """A checkpoint with this table, one entry a row; `about` goes into the entry of every added token."""
    made = save(folder, {TABLE: np.array(rows, np.float32)[:, None], "w": np.ones((2, 2), np.float32)}, vocab_size=len(rows))
    tokens = [{"id": index, "content": token, "special": False, **about} for token, index in added.items()]
    (made / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": tokens}))
    return made


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    base = checkpoint(tmp_path / "base", {"<s>": 2}, [1, 2, 3, 9])
    one = checkpoint(tmp_path / "one", {"<s>": 2, "<x>": 3}, [1, 4, 3, 10])
    two = checkpoint(tmp_path / "two", {"<s>": 2, "<y>": 3, "<x>": 4}, [1, 2, 5, 30, 20])
    return base, {"one": one, "two": two}


def table(folder: Path) -> list[float]:
    return [float(value) for value in load_file(folder / "model.safetensors")[TABLE][:, 0]]


def test_worked_example(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, experts = example
    report = merged(base, experts, tmp_path / "m", tokenizer="union", weights={"two": 0.5})
    assert table(tmp_path / "m") == [1, 4, 4, 12.5, 30]
    assert json.loads((tmp_path / "m/config.json").read_text())["vocab_size"] == 5
    added = json.loads((tmp_path / "m/tokenizer.json").read_text())["added_tokens"]
    assert [(entry["content"], entry["id"]) for entry in added] == [("<s>", 2), ("<x>", 3), ("<y>", 4)]
    rows = {row["model"]: row for row in report.rows if row["tensor"] == TABLE}
    assert rows["one"]["numel"] == 5 and rows["one"]["changed_n"] == 2, "b and <x>"
    assert rows["two"]["changed_n"] == 2 and rows["two"]["delta_l2"] == (2**2 + 5**2) ** 0.5, "<s> and <x>; <y> is its own mean"


def test_the_order_in_which_experts_are_given_does_not_matter(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, experts = example
    merged(base, experts, tmp_path / "m", tokenizer="union")
    merged(base, dict(reversed(experts.items())), tmp_path / "n", tokenizer="union", threads=2)
    assert digests(tmp_path / "m") == digests(tmp_path / "n")


def test_an_excluded_table_has_rows_for_the_added_tokens(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    """Also where the base's padding had room for them: the row of <x> is a mean, not what stood there."""
    base, experts = example
    merged(base, experts, tmp_path / "m", tokenizer="union", overrides=[{"match": "embed", "exclude": True}])
    assert table(tmp_path / "m") == [1, 2, 3, 15, 30]
    merged(base, {"one": experts["one"]}, tmp_path / "n", tokenizer="union", overrides=[{"match": "embed", "exclude": True}])
    assert table(tmp_path / "n") == [1, 2, 3, 10]


def test_padding_stays_the_bases_and_is_used_for_added_tokens(tmp_path: Path) -> None:
    """The base has rows for ids 3 to 6 that no token uses; <x> takes 3, the others stay, whatever the expert has there."""
    base = checkpoint(tmp_path / "base", {"<s>": 2}, [1, 2, 3, 91, 92, 93, 94])
    one = checkpoint(tmp_path / "one", {"<s>": 2, "<x>": 3}, [1, 2, 3, 10, 81, 82, 83, 84, 85])
    merged(base, {"one": one}, tmp_path / "m", tokenizer="union")
    assert table(tmp_path / "m") == [1, 2, 3, 10, 92, 93, 94]
    assert json.loads((tmp_path / "m/config.json").read_text())["vocab_size"] == 7


def test_a_token_at_another_id_and_one_in_a_gap_of_the_base(tmp_path: Path) -> None:
    """The base has <s> at 4, with a gap at 2 and 3; the expert has <x> in the gap, at 2, and <s> at 3."""
    base = checkpoint(tmp_path / "base", {"<s>": 4}, [1, 2, 70, 71, 5])
    one = checkpoint(tmp_path / "one", {"<x>": 2, "<s>": 3}, [1, 2, 30, 8])
    merged(base, {"one": one}, tmp_path / "m", tokenizer="union")
    assert table(tmp_path / "m") == [1, 2, 70, 71, 8, 30]


@pytest.mark.parametrize("rows", [[1, 2, 5], [1, 2, 5, 77, 78, 79]])
def test_tables_padded_differently_need_no_new_token(tmp_path: Path, rows: list[float]) -> None:
    base = checkpoint(tmp_path / "base", {"<s>": 2}, [1, 2, 3, 9])
    one = checkpoint(tmp_path / "one", {"<s>": 2}, rows)
    with pytest.raises(BadInput, match=r"one: config.json has vocab_size = \d, the base's has 4"):
        merged(base, {"one": one}, tmp_path / "m")
    merged(base, {"one": one}, tmp_path / "m", tokenizer="union")
    assert table(tmp_path / "m") == [1, 2, 5, 9]
    assert (tmp_path / "m/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_an_expert_without_one_of_the_bases_tokens_does_not_change_it(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", {"<s>": 2, "<t>": 3}, [1, 2, 3, 4])
    one = checkpoint(tmp_path / "one", {"<t>": 2}, [5, 2, 8])
    merged(base, {"one": one}, tmp_path / "m", tokenizer="union")
    assert table(tmp_path / "m") == [5, 2, 3, 8]


def test_the_same_tokenizers_have_no_union(tmp_path: Path) -> None:
    """And then the merge is the one without it, byte for byte."""
    base = checkpoint(tmp_path / "base", {"<s>": 2}, [1, 2, 3])
    one = checkpoint(tmp_path / "one", {"<s>": 2}, [1, 2, 4])
    assert unite(open_checkpoint("base", base), [open_checkpoint("one", one)]) is None
    merged(base, {"one": one}, tmp_path / "m")
    merged(base, {"one": one}, tmp_path / "n", tokenizer="union")
    assert digests(tmp_path / "m") == digests(tmp_path / "n")


def test_a_mask_counts_the_rows_of_the_union(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    """keep 0.2 of 5 entries is one: of `one` <x> (5 of 2, 5), of `two` <x> too (5 of 2, 5)."""
    base, experts = example
    merged(base, experts, tmp_path / "m", formula(Params(keep=0.2, trim_top=0.0, alpha=1.0)), tokenizer="union", weights={"two": 2})
    assert table(tmp_path / "m") == [1, 2, 3, 15 - 5 + 2 * 5, 30]


def test_added_tokens_without_the_union_are_refused_and_it_is_named(example: tuple[Path, dict[str, Path]]) -> None:
    base, experts = example
    with pytest.raises(BadInput, match=r"one: the tokenizer's 'added_tokens' is not the base's: .*`tokenizer: union` takes"):
        make_plan(base, {"one": experts["one"]})


def _other_pieces(folder: Path) -> None:
    said = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**said, "model": {"vocab": {"b": 0, "a": 1}}}))


def _no_size(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "vocab_size": None}))


def _wrong_size(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "vocab_size": 7}))


def _other_width(folder: Path) -> None:
    save(folder, {TABLE: np.ones((4, 2), np.float32), "w": np.ones((2, 2), np.float32)}, vocab_size=4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_pieces, "one: the tokenizer's 'model' is not the base's"),
        (_no_size, "one: config.json says vocab_size = None; tokenizer: union needs the number of rows"),
        (_wrong_size, rf"one: tensor '{TABLE}' has 4 rows, config.json says vocab_size = 7"),
        (_other_width, rf"one: tensor '{TABLE}' has shape \[4, 2\], the base's has \[4, 1\]"),
        (lambda folder: checkpoint(folder, {"<s>": 2}, [1, 2, 3], special=True), "one: its token '<s>' is not treated as the base"),
    ],
)
def test_what_no_union_can_mend_is_refused(example: tuple[Path, dict[str, Path]], tmp_path: Path, spoil: Any, message: str) -> None:
    base, experts = example
    spoil(experts["one"])
    with pytest.raises(BadInput, match=message):
        merged(base, experts, tmp_path / "m", tokenizer="union")
    assert not (tmp_path / "m").exists()


def test_experts_that_treat_an_added_token_differently_are_refused(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, experts = example
    checkpoint(experts["two"], {"<x>": 3}, [1, 2, 3, 4], lstrip=True)
    with pytest.raises(BadInput, match="two: its token '<x>' is not treated as one treats it"):
        merged(base, experts, tmp_path / "m", tokenizer="union")


def test_tables_by_name() -> None:
    names = ("model.embed_tokens.weight", "transformer.wte.weight", "lm_head.weight", "model.norm.weight", "lm_head.bias")
    assert [is_table(name) for name in names] == [True, True, True, False, False]


@pytest.mark.parametrize("tied", [True, False])
def test_a_merged_model_reads_the_added_tokens_with_their_rows(tmp_path: Path, tied: bool) -> None:
    """Two real checkpoints that each added a token under the same id, one of them padded to a multiple of 64: the merged folder
    loads, its tokenizer finds both tokens, and each model's rows stand where the tokenizer says."""
    import torch

    from tasks.checkpoints import folders, saving
    from tests.rollout import tiny

    names = {"one": ["<red>", "<blue>"], "two": ["<blue>", "<green>"]}
    base = tiny.model(seed=0)
    if not tied:
        base.config.tie_word_embeddings = False
        base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach() * 2)
    saving.save(base, tiny.tokenizer(), tmp_path / "base")
    saved = {}
    for number, (name, tokens) in enumerate(names.items()):
        model, tokenizer = folders.load(tmp_path / "base")
        tokenizer.add_tokens(tokens)
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64 if number else None, mean_resizing=False)
        torch.manual_seed(number)
        with torch.no_grad():
            model.get_input_embeddings().weight[-len(tokens) - 30 * number :] += 0.1
        saving.save(model, tokenizer, tmp_path / name)
        saved[name] = {key: value for key, value in load_file(tmp_path / name / "model.safetensors").items()}
    merged(tmp_path / "base", {name: tmp_path / name for name in names}, tmp_path / "m", tokenizer="union")
    model, tokenizer = folders.load(tmp_path / "m")
    rows = model.get_input_embeddings().weight.detach().numpy()
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    size = len(tiny.tokenizer())
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<red>", "<blue>", "<green>")}
    assert ids == {"<red>": size, "<blue>": size + 1, "<green>": size + 2} and len(rows) == size + 3 == model.config.vocab_size
    assert tokenizer("Hello<green>,<red>")["input_ids"] == [
        *tiny.tokenizer()("Hello")["input_ids"],
        ids["<green>"],
        *tiny.tokenizer()(",")["input_ids"],
        ids["<red>"],
    ]
    np.testing.assert_array_equal(rows[ids["<red>"]], saved["one"][TABLE][size])
    np.testing.assert_array_equal(rows[ids["<green>"]], saved["two"][TABLE][size + 1])
    mean = (saved["one"][TABLE][size + 1] + saved["two"][TABLE][size]) / 2
    np.testing.assert_allclose(rows[ids["<blue>"]], mean, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([list(ids.values())])).logits).all()


def test_what_a_tokenizer_config_says_of_added_tokens_is_carried(example: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    base, experts = example
    shutil.copytree(base, tmp_path / "old")
    (tmp_path / "old/tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"2": {"content": "<s>"}}}))
    merged(tmp_path / "old", experts, tmp_path / "m", tokenizer="union")
    said = json.loads((tmp_path / "m/tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {index: entry["content"] for index, entry in said.items()} == {"2": "<s>", "3": "<x>", "4": "<y>"}
    assert all("id" not in entry for entry in said.values())
