"""`cairn forecast`: its sums against what torch and the engine really hold, its counts against rows that are there."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.cli import main
from flows.forecast import Forecast, of
from flows.forecast import forecast as forecast_of
from flows.forecast.amounts import Counter, Rows, Talk
from flows.forecast.checkpoint import at
from flows.forecast.compare import Taken
from flows.forecast.playing import Playing
from flows.forecast.shape import Shape, read
from flows.forecast.speed import DEFAULT, FILE, Lengths, Plays, Speeds, Trains, Way
from flows.forecast.stages import GIB, ROOMS, Case, Stage, _busy, _computed, sliced, training_of
from flows.forecast.text import as_document, lines, too_large
from flows.forecast.training import Adapter, Training
from flows.model_fill import filled, with_changes, written_into
from tasks.contract.params import BadInput, StageFailed, parse_yaml
from tasks.engine import check_players
from tasks.engine.artifact import Store
from tasks.engine.settings import Settings, load
from tasks.engine.together import planned
from tests.base.outside import checkpoint as whole_checkpoint
from tests.conftest import ROOT

WITHIN = 0.15
"""How far a forecast may be off what is measured."""
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 176,
    "vocab_size": 600,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def made(kind: str, **more: Any) -> Any:
    """A random model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**CONFIG, **more}), dtype=None)


def shape_of(model: Any, stored: str = "float32") -> Shape:
    return read({**model.config.to_dict(), "dtype": stored}, "here")


@pytest.mark.parametrize("rank", [0, 8])
def test_a_packs_memory_is_what_torch_holds(rank: int) -> None:
    """Two rows behind what they share; masks and keys are kept in each layer."""
    import torch

    from tasks.training import packs

    model = made("llama", attn_implementation="sdpa")
    if rank:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.randint(0, 500, (1, 512))
    packs.prepare_model(model, 512, "sft")
    training = Training(shape_of(model), Adapter(rank) if rank else None, packed=(171, 341))
    measured = most_held(model.train(), ids, 100, "float32", "adamw", packed=True)
    assert sum(training.peak(512, 100, False).values()) == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize(("kind", "more"), [("llama", {}), ("qwen3", {"head_dim": 32}), ("qwen2", {"tie_word_embeddings": False})])
def test_parameters_are_those_of_the_model(kind: str, more: dict[str, Any]) -> None:
    model = made(kind, **more)
    assert shape_of(model).parameters == model.num_parameters()


def most_held(model: Any, ids: Any, scored: int, dtype: str, optimizer: str, packed: bool = False) -> int:
    """Bytes of all tensors, weights and states with them, at the most in two steps of training as the rooms do it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from tasks.sft.core import optimizer as optimizers
    from tasks.training import fitting, packs

    class Held(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.most = 0
            self.seen: set[int] = set()

        def add(self, tensor: Any) -> None:
            storage = tensor.untyped_storage()
            name, size = storage._cdata, storage.nbytes()
            if name not in self.seen:
                self.seen.add(name)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.gone, name, size)

        def gone(self, name: int, size: int) -> None:
            self.seen.discard(name)
            self.now -= size

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            torch.utils._pytree.tree_map_only(torch.Tensor, self.add, out)
            return out

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    loop = SimpleNamespace(optimizer=optimizer, weight_decay=0.0, learning_rate=1e-3, beta2=0.9, muon_rate=1e-3)
    steps = optimizers.build(model, loop)  # type: ignore[arg-type]
    held, within = Held(), {}
    if packed:  # two rows behind what they share
        places = torch.arange(ids.shape[1])
        within = packs.attention(base, places, (places * 3) // ids.shape[1])
    for weight in model.parameters():
        held.add(weight)
    with held:
        for _ in range(2):
            with fitting.autocast("cpu", "bfloat16" if dtype == "bfloat16" else "float32"):
                hidden = base.base_model(input_ids=ids, use_cache=False, **within).last_hidden_state.flatten(0, 1)[:scored]
                logits = base.get_output_embeddings()(hidden).float()
                loss = torch.nn.functional.cross_entropy(logits, torch.zeros(scored, dtype=torch.long))
            loss.backward()
            del hidden, logits, loss
            steps.step()
            steps.zero_grad()
    return held.most


@pytest.mark.parametrize(
    ("kind", "rank", "dropout", "dtype", "checkpointing", "optimizer", "tokens", "scored"),
    [
        ("llama", 0, 0.0, "float32", False, "adamw", 512, 100),
        ("qwen3", 0, 0.0, "bfloat16", False, "adamw", 512, 100),
        ("llama", 0, 0.0, "float32", False, "muon", 16, 8),  # the optimiser's step is the most
        ("llama", 8, 0.0, "float32", False, "adamw", 512, 400),  # logits are
        ("qwen3", 8, 0.0, "bfloat16", False, "adamw", 512, 100),
        ("llama", 8, 0.1, "bfloat16", False, "adamw", 512, 100),
        ("llama", 8, 0.1, "float32", True, "adamw", 512, 100),
    ],
)
def test_a_trainings_memory_is_what_torch_holds(
    kind: str, rank: int, dropout: float, dtype: str, checkpointing: bool, optimizer: str, tokens: int, scored: int
) -> None:
    import torch

    from tasks.training import fitting

    model = made(kind)
    if rank:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        for weight in model.parameters():  # of a checkpoint that is stored in bfloat16
            weight.data = weight.data if weight.requires_grad else weight.data.bfloat16().float()
    shape = shape_of(model, dtype)
    fitting.narrow(model, "bfloat16" if dtype == "bfloat16" else "float32")
    if checkpointing:
        fitting.checkpoint(model, "sft")
        model.enable_input_require_grads()
    ids = torch.randint(0, 500, (max(1, tokens // 256), min(tokens, 256)))
    training = Training(shape, Adapter(rank, dropout) if rank else None, dtype == "bfloat16", checkpointing, optimizer)
    measured = most_held(model.train(), ids, scored, dtype, optimizer)
    assert sum(training.peak(tokens, scored, False).values()) == pytest.approx(measured, rel=WITHIN)
    assert training.trained == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


@pytest.mark.parametrize(("rows", "most"), [(3, 64), (70, 64), (3, 4000), (20, 4000)])
def test_keys_and_values_are_those_of_the_engines_pool(rows: int, most: int) -> None:
    from tasks.players.local import own
    from tasks.players.local.generation import Sampling

    config = {"num_hidden_layers": 8, "num_key_value_heads": 4, "hidden_size": 128, "max_position_embeddings": 4096}
    model = made("llama", **(config if most > 1000 else {}))
    engine = own.opened(model, rows=rows, most=most)
    start = [*range(3, 23)]
    for row in range(rows):
        engine.submit(str(row), [*start, *[row + 5] * 20], Sampling(row, 1.0, 4, ()))
    while engine.counts["produced"] < 4 * rows:
        engine.poll()
    pool = sum(tensor.nbytes for kept in (engine._pages.keys, engine._pages.values) for tensor in kept)
    assert Playing(shape_of(model), rows, 44, 20, most).keys_and_values() == pytest.approx(pool, rel=WITHIN)


def test_tokens_are_counted_as_the_checkpoint_writes_them(tmp_path: Path) -> None:
    """By a tokenizer's own words, with a few for what frames a message; without one by characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    messages = [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "one two one"},
        {"role": "user", "content": "never read by the agent"},
    ]
    talk = Counter(tmp_path).talk(10, messages)
    assert talk == Talk(10, 10 + 2 + 5 + 3 + 5, 3 + 1, turns=1)
    assert Counter(None).text("twelve chars") == 3


@pytest.fixture(scope="module")
def quickstart() -> Settings:
    return load(ROOT, "quickstart")


@pytest.fixture(scope="module")
def forecast(quickstart: Settings) -> Forecast:
    return of(quickstart, {})


def test_rows_of_the_quickstart_are_what_its_run_keeps(forecast: Forecast) -> None:
    """Measured with seed 0: 5,837 rows of 1,675,965 tokens, and as many for the control, of 1,684,995."""
    trained = {stage.name: stage.tokens for stage in forecast.stages}["sft"]["trained"]
    assert trained == pytest.approx(1_675_965 + 1_684_995, rel=WITHIN)


def test_the_table_and_the_document_say_the_same(forecast: Forecast) -> None:
    said = as_document(forecast)
    text = "\n".join(lines(forecast))
    assert json.loads(json.dumps(said)) == said
    assert [one["stage"] for one in said["stages"]] == ["sft", "rl", "evaluate"]
    for stage in said["stages"]:
        assert stage["memory"] == pytest.approx(stage["processes"] * sum(stage["parts"].values()), abs=9)
        assert stage["hours"] > 0 and f"{stage['tokens'].get('trained', 0):>12,.0f}" in text
    assert said["too_large"] == "" and "does not fit" not in text


def test_what_does_not_fit_says_what_to_lower(forecast: Forecast, quickstart: Settings) -> None:
    settings = Settings(ROOT, {**quickstart.tree, "memory": 8}, "params/profiles/some.yaml")
    large = Stage("sft", 1, {"weights": 3.0 * GIB, "activations": 20.0 * GIB}, 0.0, {}, 1.0, "")
    said = too_large(Forecast(settings, forecast.checkpoint, [*forecast.stages, large], "", ""))
    assert said.startswith("sft needs 23.0 GiB and there are 8 (GiB by part: activations 20.0, weights 3.0)")
    assert "activations: pass_tokens of the loops, or checkpointing: true; weights:" in said


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        at(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(BadInput, match="says nothing of num_hidden_layers"):
        at(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 0}))
    with pytest.raises(BadInput, match="says nothing of num_hidden_layers that can be"):
        at(tmp_path)
    for name, value in {"num_key_value_heads": "two", "head_dim": -8, "max_position_embeddings": "8k"}.items():
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, name: value}))
        with pytest.raises(BadInput, match=f"says nothing of {name} that can be"):
            at(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": [1]}))
    with pytest.raises(BadInput, match="says nothing of hidden_size"):
        at(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_experts": 8}))
    with pytest.raises(BadInput, match="mixture of experts"):
        at(tmp_path)


def way_of(what: Trains | Plays, adapter: int = 0) -> Way:
    """A small one."""
    return Way(what, read(CONFIG, "here"), "cpu", 1, "avx2", 1, adapter, "float32", Lengths(32, 2, 5, 6))


def test_rates_are_measured_ones_where_they_are_kept(tmp_path: Path) -> None:
    speeds, way = Speeds(tmp_path, ROOT), way_of(Plays(8, 6, "own"))
    assert speeds(way) == DEFAULT["cpu"] and speeds.how[0].startswith("default")
    (tmp_path / FILE).write_text(json.dumps({way.key(): {"rates": {"read": 3.0, "produce": 4.0}, "how": "slowly"}}))
    longer = replace(way, talk=Lengths(900, 2, 9, 9), work=Plays(8, 2, "own"))
    assert speeds(longer) == {"read": 3.0, "produce": 4.0} and speeds.how[1] == "measured on this machine (slowly)"
    assert speeds(replace(way, processes=2)) == DEFAULT["cpu"], "what computes side by side is measured side by side"


def test_the_command(forecast: Forecast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options reach the forecast; what does not fit ends it with 2."""
    got: list[Any] = []
    monkeypatch.setattr("flows.forecast.forecast", lambda *options: got.append(options) or forecast)
    assert main(["forecast", "--profile", "quickstart", "--set", "seed=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_document(forecast)
    monkeypatch.setattr("flows.forecast.text.too_large", lambda found: "sft needs more")
    assert main(["forecast", "--profile", "gpu_24g", "--model", "x"]) == 2
    assert "does not fit: sft needs more" in capsys.readouterr().out
    assert main(["forecast", "--calibrate"]) == 2
    assert main(["forecast", "--compare"]) == 2
    assert got == [
        ("quickstart", {"seed": 1}, False, "", False),
        ("gpu_24g", {}, False, "x", False),
        ("", {}, True, "", False),
        ("", {}, False, "", True),
    ]


def test_a_forecast_beside_what_was_measured(forecast: Forecast) -> None:
    stage = replace(forecast.stages[0], hours=0.5, parts={"weights": 2.0 * GIB}, processes=2, tokens={"trained": 900.0})
    was = Taken(3600.0, 4 * GIB, {"trained": 1000, "scored": 50}, ["sft.loop.epochs: 1 -> 2"])
    found = replace(forecast, stages=[stage, *forecast.stages[1:]], compared=True, taken={"sft": was})
    text = "\n".join(lines(found))
    assert "measured (forecast / measured): 1.00 hours (0.50), 4.00 GiB a process (0.50), trained 1,000 (0.90), scored 50" in text
    assert "with other params then: sft.loop.epochs: 1 -> 2" in text and "has not run here" in text
    assert as_document(found)["stages"][0]["measured"]["ratio"] == {"hours": 0.5, "memory": 0.5, "trained": 0.9}
    assert "Nothing to compare" in "\n".join(lines(replace(forecast, compared=True)))
    with pytest.raises(BadInput, match="--compare is about a run of these params"):
        forecast_of("gpu_24g", model="x", compare=True)


@pytest.mark.parametrize("adapter", [0, 4])
def test_a_measurement_gives_work_and_tokens_a_second(adapter: int) -> None:
    from flows.forecast import calibrate

    trains, plays = Trains(120, "shared_prompt", False, 0.0), Plays(4, 3, "own")
    found = calibrate.train(way_of(trains, adapter), trains) | calibrate.play(way_of(plays, adapter), plays)
    assert {*found} == {"train", "read", "produce"}
    for flop, tokens in found.values():
        assert flop > 1e6 and tokens > 10


def test_a_measurement_is_kept_and_its_failure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of as many processes as compute side by side; once for each way, however many stages ask."""
    answers = iter([{"train": [4.0, 40.0]}, {"train": [2.0, 20.0]}])
    monkeypatch.setattr("flows.forecast.speed.subprocess.Popen", lambda *_, **__: SimpleNamespace(kill=lambda: None))
    monkeypatch.setattr("flows.forecast.speed._answer", lambda _: next(answers))
    way = replace(way_of(Trains(120, "none", False, 0.0)), processes=2)
    speeds = Speeds(tmp_path, ROOT, calibrate=True)
    assert speeds(way) == {"train": 3.0} == speeds(way) == Speeds(tmp_path, ROOT)(way)
    assert speeds.how == ["measured on this machine (each of 2 processes, 1 thread, float32: trains 30 tokens a second)"]
    monkeypatch.undo()
    broken = replace(way_of(Plays(8, 6, "own")), device="nowhere")
    with pytest.raises(StageFailed, match=r"the measurement failed: .*nowhere"):
        Speeds(tmp_path, ROOT, calibrate=True)(broken)


def test_rows_and_worlds_that_do_not_fit_are_said_and_not_counted(quickstart: Settings, tmp_path: Path) -> None:
    """By max_length of sft, and by max_episode_tokens where a world's prompt alone is longer."""
    short, long = Talk(100, 300, 50, 5), Talk(2502, 3000, 50, 5)
    amounts: Any = SimpleNamespace(
        rows=lambda _: Rows([("retail", short), ("airline", long), ("airline", long)], 2.0, "counted"),
        talks=lambda _: {"retail": short, "airline": long},
    )
    steps = planned(quickstart, {name: quickstart.params(name) for name in quickstart.road.names})
    shape, speeds = replace(read(CONFIG, "here"), context=8192), Speeds(tmp_path, ROOT)

    def stage(name: str, **changed: int) -> Stage:
        loop, params = (one and one.model_copy(update=changed) for one in (quickstart.loop(name), steps[name].params))
        return ROOMS[name](Case(quickstart, shape, amounts, speeds, replace(steps[name], params=params), loop))

    epochs = cast(Any, quickstart.loop("sft")).epochs
    for most, trained, said in (
        (8192, 2 * 6300, "counted"),
        (512, 2 * 300, "but 2 of 3 rows are left out: they have 3,000 tokens or more, max_length is 512"),
        (200, 0, "but 3 of 3 rows are left out: they have 300 tokens or more, max_length is 200"),
    ):
        found = stage("sft", max_length=most, control=0)
        assert found.tokens["trained"] == pytest.approx(trained * epochs) and found.how.endswith(said)
    for name in ("rl", "evaluate"):
        whole, half, none = (stage(name, max_episode_tokens=most) for most in (8192, 512, 64))
        assert whole.hours > half.hours > none.hours == 0 and none.tokens["produced"] == 0
        assert half.how.endswith("but none in airline (2,502): the prompt alone has as many tokens, max_episode_tokens is 512")
        assert "none in airline (2,502), retail (100)" in none.how and "none in" not in whole.how


def test_packs_have_the_system_prompt_once() -> None:
    """A batch of 4,096 tokens has four rows of 500 behind a prompt of 1,700; without packs each has its own."""
    rows = Rows([("retail", Talk(1700, 2200, 200, 5)), ("airline", Talk(1700, 2200, 200, 5))], 20.0, "")
    loop: Any = SimpleNamespace(packing="shared_prompt", pass_tokens=4096, batch_tokens=4096)
    assert _computed(rows, loop) == 40 * (500 + 1700 / 4)
    loop.batch_tokens = 2700
    assert _computed(rows, loop) == 40 * (500 + 1700 / 2)
    loop.packing = "none"
    assert _computed(rows, loop) == rows.sum("whole") == 40 * 2200


def test_processes_that_share_a_training_hold_slices_and_in_rl_the_first_a_whole_copy() -> None:
    """Six of them; a step of few passes keeps few of them busy."""
    settings, shape = load(ROOT, "gpu_8x"), shape_of(made("qwen3"), "bfloat16")
    for step, more in (("sft", set()), ("rl", {"whole copy"})):
        loop: Any = settings.loop(step)
        training = training_of(loop, shape, True)
        whole = training.peak(512, 256, True)
        parts = sliced(whole, training, loop)
        assert parts["weights"] * 6 == whole["weights"] and parts["activations"] == whole["activations"]
        assert {*parts} - {*whole} == more and parts.get("whole copy", training.weights()) == training.weights()
        assert [_busy(loop, passes) for passes in (0.5, 2.0, 60.0)] == [1.0, 2.0, 6.0]


# --- a profile for a model ---

PROFILES = ("real_cpu", "gpu_24g", "gpu_80g", "gpu_8x", "endpoint_teacher")
"""Those that leave their checkpoint open."""


def checkpoint(folder: Path, **sizes: Any) -> Path:
    """A folder with a config.json of a Qwen3 of 0.6 billion parameters, or of other sizes."""
    sizes = {
        **{"model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
        **{"head_dim": 128, "intermediate_size": 3072, "vocab_size": 151936, "tie_word_embeddings": True, "dtype": "bfloat16"},
        **{"max_position_embeddings": 4096, **sizes},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_filled_in_for_a_model(profile: str, tmp_path: Path) -> None:
    """What is filled in fits the profile's memory, is valid, and leaves the file's comments where they are."""
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    folder = checkpoint(tmp_path / "model", **(sizes if profile == "real_cpu" else {}))
    settings = load(ROOT, profile)
    changes = filled(settings, str(folder), Store(tmp_path))
    after = with_changes(settings, changes)
    assert not [*after.mistakes()]
    text = (ROOT / f"params/profiles/{profile}.yaml").read_text()
    assert parse_yaml(written_into(text, changes), "here") == after.tree
    assert text.splitlines()[0] == written_into(text, changes).splitlines()[0]
    chosen = dict(changes)
    assert chosen["base.checkpoint.source"] == str(folder) and len(chosen["base.checkpoint.identity"]) > 30
    loop: Any = after.loop("sft")
    parts = training_of(loop, at(folder).shape, True).peak(loop.pass_tokens, loop.pass_tokens // 2, True)
    assert sum(parts.values()) < settings.shared.memory * GIB
    assert chosen.get("rl.loop.max_episode_tokens", 0) <= 4096


def test_a_cpu_without_bfloat16_gets_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one with it what the profile says."""
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    folder, settings = checkpoint(tmp_path / "model", **sizes), load(ROOT, "real_cpu")
    for flags, instructions, dtype in (("avx2", "avx2", "float32"), ("avx2 avx512_bf16", "avx512_bf16", "bfloat16")):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
        monkeypatch.setattr(check_players, "CPU", tmp_path / "cpuinfo")
        after = with_changes(settings, filled(settings, str(folder), Store(tmp_path)))
        loops: list[Any] = [after.loop("sft"), after.loop("rl"), after.params("evaluate")]
        assert (after.shared.instructions, {loop.dtype for loop in loops}) == (instructions, {dtype})
        after.check_machine()


def test_use_writes_what_follows_from_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into params/pipeline.yaml; the same profile without a model, and a model without a profile, are refused and write nothing."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.setattr("flows.profiles.PROJECT", tmp_path)
    monkeypatch.setattr("flows.profiles.STATE", tmp_path / ".cairn")
    torch = pytest.importorskip("torch")
    active, folder = tmp_path / "params/pipeline.yaml", whole_checkpoint(tmp_path / "model")
    before = active.read_text()
    for wrong, why in ((["real_cpu"], "base.checkpoint.source is open"), (["--model", "x"], "--model goes with a profile")):
        assert main(["use", *wrong]) == 2
        assert why in capsys.readouterr().err and active.read_text() == before
    assert main(["use", "real_cpu", "--model", str(folder)]) == 0
    said, tree = capsys.readouterr().out, parse_yaml(active.read_text(), "here")
    assert tree["base"]["checkpoint"]["source"] == str(folder) and f"rl.loop.rows: {tree['rl']['loop']['rows']}" in said
    lines = said.splitlines()
    assert len(lines) == len(set(lines)), "each param once"
    assert main(["use"]) == 0
    listed = capsys.readouterr().out
    assert "* real_cpu          A real model on two CPU cores" in listed and "  gpu_8x            Eight GPUs of 80 GiB" in listed
    for template, profile, form in (("qwen2_5", "real_cpu", "auto"), ("llama3", "gpu_24g", "hermes")):  # both unlike the profile's
        another = whole_checkpoint(tmp_path / template, template)
        assert main(["use", profile, "--model", str(another)]) == 0
        assert f"base.checkpoint.chat_format: {form}\n" in capsys.readouterr().out, "auto where the template writes tools itself"
    missing = str(tmp_path / "small.gguf")
    assert main(["use", "real_cpu", "--model", missing]) == 2
    assert f"nothing lies at {missing}. Allowed: a GGUF file, a folder" in capsys.readouterr().err
    for back in (["quickstart"], ["gpu_24g", "--model", str(folder)], ["real_cpu", "--model", str(folder)]):
        assert main(["use", *back]) == 0, "what `use` filled in itself is no edit; a profile may be prepared where there is no GPU"
        if not torch.cuda.is_available():
            warned = "warning: a run is refused on this machine. params/profiles/gpu_24g.yaml: device: cuda, but"
            assert (warned in capsys.readouterr().out) == (back[0] == "gpu_24g")
    active.write_text(active.read_text() + "# mine\n")
    assert main(["use", "quickstart"]) == 2 and "edits that are in no profile" in capsys.readouterr().err
    monkeypatch.setattr("flows.forecast.of", lambda settings, *_: settings)
    after: Any = forecast_of("gpu_24g", model=str(folder))
    assert after.params("base").source == str(folder)  # as `cairn forecast --profile gpu_24g --model CHECKPOINT` has it


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "its weights are pickled"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "its tokenizer cannot be loaded"),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "no tokenizer in it"),
        (lambda folder: edit(folder, vocab_size=5), "config.json says vocab_size 5, and the embedding has"),
    ],
)
def test_use_takes_no_folder_from_which_no_run_could_begin(
    spoil: Callable[[Path], object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.setattr("flows.profiles.PROJECT", tmp_path)
    monkeypatch.setattr("flows.profiles.STATE", tmp_path / ".cairn")
    folder, active = whole_checkpoint(tmp_path / "model"), tmp_path / "params/pipeline.yaml"
    before = active.read_text()
    spoil(folder)
    assert main(["use", "real_cpu", "--model", str(folder)]) == 2
    assert f"--model {folder}: {why}" in capsys.readouterr().err and active.read_text() == before


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_profile_refuses_what_does_not_fit_it(tmp_path: Path) -> None:
    """A model that is too large, with its parts by number; one that is none; a profile that makes its own checkpoint."""
    large = checkpoint(tmp_path / "large", hidden_size=4096, num_hidden_layers=64, intermediate_size=12288)
    with pytest.raises(
        BadInput, match=r"too large for params/profiles/gpu_24g\.yaml: \w+ needs .* Lower: weights: a smaller checkpoint"
    ):
        filled(load(ROOT, "gpu_24g"), str(large), Store(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        filled(load(ROOT, "gpu_24g"), str(tmp_path / "empty"), Store(tmp_path))
    with pytest.raises(BadInput, match=r"makes its own checkpoint \(base\.tiny_qwen3\)"):
        filled(load(ROOT, "quickstart"), str(large), Store(tmp_path))


def test_the_profile_of_a_cpu_ends_within_90_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the forecast at the default speeds, for SmolLM2-135M-Instruct's sizes, on a CPU with the profile's instructions."""
    monkeypatch.setattr("flows.model_fill.has_instructions", lambda _: True)
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    folder = checkpoint(tmp_path / "model", model_type="llama", intermediate_size=1536, vocab_size=49152, **sizes)
    settings = load(ROOT, "real_cpu")
    found = of(with_changes(settings, filled(settings, str(folder), Store(tmp_path))), {})
    assert sum(stage.hours for stage in found.stages) < 1.5 and not too_large(found)
