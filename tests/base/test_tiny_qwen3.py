"""The tiny base: recurring segments, previous-token heads, the same bytes after a kill.

By hand: with one segment "x y z" (segments 1, shortest = longest = 3) and 9 tokens, a row reads x y z x y z x y z; the segment has
been seen from position 3 on, and its first token is never predictable: positions 4, 5, 7, 8 count. The previous-token query and
key for a single frequency w and phase p are (cos(p - w), sin(p - w)) and (cos p, sin p): turned by w per position, their product at
distance d (key minus query) is cos((d + 1) w), which is 1 at d = -1.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tasks.base import Inputs, tiny_qwen3
from tasks.base.core import looking_back
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.worlds.api.frozen import freeze_world, load_all
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tests.chat.talks import worlds

MICRO = {"width": 32, "heads": 2, "vocab": 400, "corpus_dialogues": 4, "batch": 4, "length": 24, "longest": 4, "segments": 3}


def test_only_what_recurs_is_predictable() -> None:
    import torch

    params = tiny_qwen3.Params(batch=2, length=16, segments=1, shortest=3, longest=3)
    ids, predictable = tiny_qwen3.recurring(params, 300, torch.Generator().manual_seed(0))
    assert torch.equal(ids[:, :3], ids[:, 3:6]) and torch.equal(ids[:, :3], ids[:, 6:9])
    assert predictable[0, :9].nonzero().flatten().tolist() == [4, 5, 7, 8]


def test_a_predictable_token_has_stood_after_the_same_token_before() -> None:
    import torch

    ids, predictable = tiny_qwen3.recurring(tiny_qwen3.Params(), 2048, torch.Generator().manual_seed(1))
    for row, counts in zip(ids.tolist(), predictable.tolist(), strict=True):
        seen: set[tuple[int, int]] = set()
        for t in range(1, len(row)):
            assert not counts[t] or (row[t - 1], row[t]) in seen
            seen.add((row[t - 1], row[t]))
    assert 0.4 < predictable.float().mean() < 0.65


def test_the_previous_token_scores_highest() -> None:
    import torch

    frequencies = 10000.0 ** -(torch.arange(16) / 16)
    torch.manual_seed(0)
    query, key = looking_back._previous_token(frequencies)
    half = len(frequencies)

    def product(distance: int) -> float:
        turned = key[:half] * (distance * frequencies).cos() - key[half:] * (distance * frequencies).sin()
        other = key[half:] * (distance * frequencies).cos() + key[:half] * (distance * frequencies).sin()
        return float(query[:half] @ turned + query[half:] @ other)

    scores = {distance: product(distance) for distance in range(-40, 1)}
    assert max(scores, key=scores.__getitem__) == -1
    assert math.isclose(scores[-1], looking_back.FAST, rel_tol=1e-5)


def test_heads_look_back_before_any_step() -> None:
    """After initialisation alone, the first layer's position heads put most of their attention one token back."""
    import torch

    from tasks.checkpoints import tiny
    from tests.chat.talks import tokenizer

    torch.manual_seed(0)
    model = tiny.tiny_qwen3(tokenizer(), layers=2, width=128, heads=4).eval()
    with torch.no_grad():
        looking_back.look_back(model)
        model.set_attn_implementation("eager")
        attention = model(torch.randint(7, 300, (1, 40)), output_attentions=True).attentions[0][0]
    back = attention.diagonal(offset=-1, dim1=1, dim2=2)
    assert back[:2, 10:].mean() > 5 * back[2:, 10:].mean()


def build(worlds_folder: Path, out: Path, scratch: Path, stop: int = 0, **more: object) -> dict[str, object]:
    def progress(done: int, total: int, note: str) -> None:
        if stop and done >= stop:
            raise KeyboardInterrupt

    out.mkdir()
    params = tiny_qwen3.Params(**{**MICRO, "steps": 12, "log_every": 2, "save_every": 5, **more})
    return tiny_qwen3.run(Inputs(worlds_folder), params, Context(seed=3, out=out, scratch=scratch, progress=progress))


def same(one: Path, two: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_the_same_bytes_again_and_after_a_kill(tmp_path: Path) -> None:
    frozen = worlds(tmp_path / "worlds")
    figures = build(frozen, tmp_path / "a", tmp_path / "sa")
    assert figures == build(frozen, tmp_path / "b", tmp_path / "sb")
    assert same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        build(frozen, tmp_path / "c", tmp_path / "sc", stop=8)
    assert (tmp_path / "sc" / "practice.pt").is_file()
    assert figures == build(frozen, tmp_path / "d", tmp_path / "sc")
    assert same(tmp_path / "a", tmp_path / "d")
    curve = (tmp_path / "a" / "curves.csv").read_text().splitlines()
    assert curve[0] == "step,loss" and [line.split(",")[0] for line in curve[1:]] == ["1", "2", "4", "6", "8", "10", "12"]


def adapted(folder: Path) -> Path:
    """A folder with a world that has no scripts, frozen."""
    address = "tests.worlds.kiosk:Adapted"
    freeze_world(World.build(world_class(address, ("tests",)), 3, 0, address), folder / "kiosk", ("tests",))
    return folder


def test_a_world_without_scripts_is_learned_from_what_its_agent_reads_and_writes(tmp_path: Path) -> None:
    frozen = adapted(tmp_path / "worlds")
    ctx = Context(seed=3, out=tmp_path, scratch=tmp_path, prompt={"tools": "none", "policy": "none"})
    texts, words = tiny_qwen3.corpus(frozen, 12, ctx)
    whole = "\n".join(texts)
    assert "Cancel only what is pending." in whole and "Look an order up." in whole, "policy and schemas"
    for name in load_all(frozen)["kiosk"].tools:
        assert f'"name": "{name}", "arguments"' in whole, "calls"
    assert '"status": "pending"' in whole and "pending" in words, "rows"
    assert (texts, words) == tiny_qwen3.corpus(frozen, 12, ctx)
    figures = build(frozen, tmp_path / "a", tmp_path / "s")
    assert figures["corpus_texts"] == len(tiny_qwen3.corpus(frozen, MICRO["corpus_dialogues"], ctx)[0])


@pytest.mark.smoke
def test_it_learns_to_look_back(tmp_path: Path) -> None:
    figures = build(worlds(tmp_path / "worlds"), tmp_path / "a", tmp_path / "s", width=64, batch=16, length=64, steps=150)
    assert figures["final_loss"] < 0.3 * figures["first_loss"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 100, "heads": 4}, "width 100 is not a multiple of twice the heads"),
        ({"shortest": 9}, "segments of 9 to 8 tokens cannot recur in 96"),
        ({"longest": 60}, "segments of 2 to 60 tokens cannot recur in 96"),
    ],
)
def test_shapes_that_make_no_model_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        tiny_qwen3.check(tiny_qwen3.Params(**values))
