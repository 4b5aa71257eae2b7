"""The GPU proof on a CPU: its path from the worlds to the merged model on two layers, and what it says without a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import gpu_proof, gpu_stages, gpu_throughput
from tasks.engine.settings import load
from tasks.sft.core.data import IGNORED, Row
from tests.conftest import ROOT
from tests.warm import WARM


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # main() sets it: put back afterwards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_it_says_so_and_writes_nothing(no_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_proof.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "no GPU here" in said.err and "--device cpu --tiny" in said.err
    assert not said.out and not list(tmp_path.iterdir())


def test_an_override_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--device", "cpu", "--tiny", "--set", "rl.loop.group=3", "--out", str(tmp_path)]
    assert gpu_proof.main(asked) == 2
    assert "rl.loop" in capsys.readouterr().err and not list(tmp_path.iterdir())


def proof(folder: Path, tiny: bool) -> gpu_stages.Proof:
    return gpu_stages.Proof(folder, "cpu", tiny, (), folder / "gpu_proof.json", ends=0.0)


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("part", list(gpu_stages.SIZES))
def test_the_sizes_are_params_of_the_rooms(part: str, tiny: bool, tmp_path: Path) -> None:
    """Those for a GPU are not run here; they must at least be accepted."""
    proof(tmp_path, tiny).settings(part).check()


def test_the_roads_model_has_about_50_million_parameters(tmp_path: Path) -> None:
    params: Any = proof(tmp_path, tiny=False).settings("road").params("base")
    wide = -(-8 * params.width // 96) * 32
    weights = params.vocab * params.width + params.layers * (4 * params.width**2 + 3 * params.width * wide)
    assert 45e6 < weights < 55e6


@pytest.mark.parametrize(("size", "billions"), [("0.6b", 0.6), ("4b", 4.02)])
def test_the_shapes_are_of_their_names_sizes(size: str, billions: float) -> None:
    """With the published vocabulary, tied; built without numbers."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.device("meta"):
        made = Qwen3ForCausalLM(Qwen3Config(vocab_size=151_936, tie_word_embeddings=True, **gpu_throughput.SHAPES[size]))
    assert made.num_parameters() / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("tiny", [False, True])
def test_throughput_trains_adapters(tiny: bool, tmp_path: Path) -> None:
    settings = proof(tmp_path, tiny).settings("throughput")
    loops: list[Any] = [settings.loop(stage) for stage in ("sft", "rl")]
    assert [(one.adapter.kind, one.adapter.save) for one in loops] == [("lora", "full"), ("lora", "adapter")]


def test_a_spent_budget_starts_no_stage(tmp_path: Path) -> None:
    spent = proof(tmp_path, tiny=True)
    with pytest.raises(gpu_stages.Spent, match="before worlds"):
        spent.run(spent.settings(), "worlds", {})


def test_the_tokens_of_a_step_are_those_of_all_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: ten rows of ten tokens, nine of which train, two a batch, two batches a step."""
    rows = [Row(str(number), [7] * 10, [IGNORED, *[7] * 9], 1.0) for number in range(10)]
    monkeypatch.setattr("tasks.checkpoints.folders.load_tokenizer", lambda _: None)
    monkeypatch.setattr("tasks.sft.core.data.load_data", lambda *_: SimpleNamespace(train=rows))
    settings = load(ROOT, "smoke", [("sft.loop.batch_tokens", 20), ("sft.loop.accumulate", 2), ("sft.loop.max_steps", 0)])
    inputs = {"worlds": tmp_path, "base": tmp_path, "rows": tmp_path}
    found = gpu_throughput.planned_tokens(settings, inputs, proof(tmp_path, tiny=True))
    assert found == [(40, 40, 36), (40, 40, 36), (20, 20, 18)]


@pytest.mark.smoke
def test_the_whole_proof_on_a_cpu(tmp_path: Path) -> None:
    command = ("-m", "infra.gpu_proof", "--device", "cpu", "--tiny", "--vocab", "2000", "--out", str(tmp_path))
    answer = WARM.run(command, ROOT, {**os.environ, "PATH": f"{WARM.folder}{os.pathsep}{os.environ['PATH']}"}, timeout=300)
    assert answer.returncode == 0, answer.stderr
    text = (tmp_path / "gpu_proof.json").read_text()
    record = json.loads(text)
    figures = {(row["part"], row["stage"], row["figure"]): row["value"] for row in record["rows"]}
    for stage, figure in (
        ("sft", "steps/s"),
        ("sft", "tokens/s, without padding"),
        ("grpo", "steps/s"),
        ("grpo", "produced tokens/s of play"),
    ):
        assert figures["throughput", stage, figure] > 0
    assert figures["throughput", "grpo", "trained tokens/s of the update"] > 0, "every group trains"
    assert figures["throughput", "sft", "peak GPU memory, GiB"] is None, "no GPU, no figure"
    assert record["throughput"]["model"]["stored_in"] == ["BF16"] and record["throughput"]["model"]["vocabulary"] == 2000
    assert record["throughput"]["sft_computed_in"] == {"training": "float32 (weights float32)"}
    assert set(record["throughput"]["grpo_computed_in"]) == {"rollout", "training"}
    played = [(row["stage"], row["world"]) for row in record["rows"] if row["figure"] == "pass^1"]
    stages = ["base", "sft", "rl_airline", "rl_retail", "merged"]
    assert played == [(stage, world) for stage in stages for world in ("airline", "retail")]
    minutes = [row["minutes"] for row in record["rows"] if row["figure"] == "pass^1"]
    assert minutes == sorted(minutes) and not record["left_out"]
    assert record["machine"]["gpu"] is None and str(ROOT) not in text and str(tmp_path) not in text
