"""Mistakes in params end a run before it begins: values that no stage reads today, what params of two stages say together, and files of
any shape."""

from __future__ import annotations

import copy
import io
import random
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml as plain_yaml
from ruamel.yaml import YAML

from flows.road import check_part
from flows.survey import survey
from tasks.contract.params import BadInput, read_yaml
from tasks.engine.dotted import parse_override
from tasks.engine.dvc_yaml import listed
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("merge.slerp={t: 3}", "slerp: t = 3"),  # not the chosen method
        ("merge.ties={aplha: 1}", "merge.ties: unknown key 'aplha'. Did you mean 'alpha'?"),
        ("merge.ties=5", "merge.ties: expected a mapping of params, got 5"),
        ("merge.breadcrumbs.weights={rl_airlne: 1}", "no expert 'rl_airlne'. Did you mean 'rl_airline'?"),
        ("evaluate.pass_k.gate_problems=0", "evaluate will play none (its gate_problems is 0)"),
        ("evaluate.pass_k.split=validation", "evaluate plays validation problems (its split)"),
        ("decide.paired_gate.family_model=nobody", "family_model = 'nobody': no such model."),
        (
            "decide.paired_gate.family_model=rl_shop",
            "Models that evaluate plays: base, sft_unfiltered, sft, rl_airline, rl_retail, merged.",
        ),
        ("promote.model=a/b", "without / :"),
        ("promote.model=it's", "without / : \\ . % ? @, quotes"),
        ("promote.model=agent.v2", "without / : \\ . %"),
        ("promote.model=..", "a name of at most 200"),
        ("promote.model=' '", "a name of at most 200"),
        (
            "promote=5",
            "promote = 5: Input should be a valid dictionary or instance of Promote. Allowed: a mapping with the keys model, approval, form",
        ),
        ("merge.method=../../..", "no method '../../..' in room 'merge'"),
        ("roles.human.errors={2: 1}", "2: a key must be text"),
        (f"roles.human={{backend: local, path: {'x' * 300}}}", "not a checkpoint folder"),
        (f"profile=[{'x' * 100_000}]", "characters)"),
        ("seed=2026-13-45", "a value that cannot be read"),
        ("seed=.nan", "--set 'seed=.nan': nan is no finite number"),
        ("sft.loop.max_norm=.inf", "--set 'sft.loop.max_norm=.inf': inf is no finite number"),
        ("merge.breadcrumbs={alpha: .nan}", "alpha: nan is no finite number"),
        ("seed=true", "seed = True: true and false are no numbers. Allowed: whole number >= 0"),
        ("sft.loop.epochs=true", "sft.loop: epochs = True: true and false are no numbers. Allowed: whole number >= 1"),
        ("merge.breadcrumbs.weights={rl_retail: true}", "weights = {'rl_retail': True}: true and false are no numbers."),
    ],
)
def test_refused_before_anything_starts(override: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        key, value = parse_override(override)
        load(ROOT, "quickstart", [(key, value)]).check()
    assert message in str(refused.value)
    assert len(str(refused.value)) < 3000


def test_an_override_that_a_form_gives_is_looked_at_too() -> None:
    with pytest.raises(BadInput, match="neither text, number"):
        load(ROOT, "quickstart", [("merge.breadcrumbs.alpha", object())])


def test_a_gpu_that_is_not_there_is_told_at_once() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        load(ROOT, "quickstart", [("device", "cuda")]).check()
        return
    with pytest.raises(BadInput, match="device: cuda, but"):
        load(ROOT, "quickstart", [("device", "cuda")]).check()


@pytest.mark.parametrize(("gpus", "message"), [(0, "shows no GPU"), (4, "6 take a GPU each, and the driver shows 4.*up to 4"), (6, "")])
def test_a_training_on_more_processes_than_gpus_is_told_at_once(monkeypatch: pytest.MonkeyPatch, gpus: int, message: str) -> None:
    monkeypatch.setattr("tasks.engine.check_players._has_cuda", lambda: True)
    monkeypatch.setattr("tasks.engine.check_players._gpus", lambda: gpus)
    settings = load(ROOT, "gpu_8x")
    with pytest.raises(BadInput, match=message) if message else nullcontext():
        settings.check_machine()


def test_instructions_that_the_processor_lacks_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """bfloat16 would be computed many times slower without a word."""
    for flags, fits in (("fma avx2 avx512_bf16 erms", True), ("fma avx2 avx512_bf160", False)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\nbugs\t\t: none\n")
        monkeypatch.setattr("tasks.engine.check_players.CPU", tmp_path / "cpuinfo")
        settings = load(ROOT, "quickstart", [("instructions", "avx512_bf16")])
        with nullcontext() if fits else pytest.raises(BadInput, match=r"instructions: avx512_bf16, which this CPU.*instructions: avx2"):
            settings.check()


@pytest.mark.parametrize(
    ("sft", "rl", "fits"),
    [
        ("{kind: lora}", "{kind: lora}", True),
        ("{kind: lora}", "{kind: none}", True),  # merged; all weights train
        ("{kind: none}", "{kind: dora}", True),
        ("{kind: lora, save: full}", "{kind: dora}", True),
        ("{kind: lora}", "{kind: lora, init: gaussian, dropout: 0.1}", True),  # how another one would begin
        ("{kind: lora}", "{kind: dora}", False),
        ("{kind: lora}", "{kind: lora, r: 8}", False),
        ("{kind: lora}", "{kind: lora, modules_to_save: [lm_head]}", False),
    ],
)
def test_an_adapter_that_could_not_be_gone_on_with_is_told_before_the_first_is_trained(sft: str, rl: str, fits: bool) -> None:
    settings = load(ROOT, "quickstart", [parse_override(f"sft.loop.adapter={sft}"), parse_override(f"rl.loop.adapter={rl}")])
    if fits:
        return settings.check()
    with pytest.raises(BadInput, match=r"quickstart\.yaml: rl, behind sft: .*one adapter cannot become another"):
        settings.check()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (("worlds", "sfft", ()), "last 'sfft': no such stage. Did you mean 'sft'?"),
        (("nowhere", "sft", ()), "first 'nowhere': no such stage."),
        (("worlds", "sft", ("rll",)), "refresh 'rll': no such stage. Did you mean 'rl'?"),
        (("merge", "sft", ()), "first merge lies after last sft"),
        (("worlds", "decide", "sft"), "refresh = 'sft': expected a list of stages"),
        (("worlds", "decide", ["banana"]), "refresh 'banana': no such stage."),
        (("base", "filter", ["sft"]), "refresh sft: it does not run, the part from base to filter does."),
    ],
)
def test_the_flow_refuses_a_part_of_the_road_that_is_none(part: tuple[Any, ...], message: str) -> None:
    from prefect import State

    from flows.flow_ends import INVALID
    from flows.pipeline import pipeline

    first, last, refresh = part
    ended = pipeline.fn(first=first, last=last, refresh=refresh)
    assert isinstance(ended, State) and ended.is_failed() and ended.name == INVALID
    assert message in str(ended.message)
    assert check_part("base", "filter", ["filter"]) == ("base", "generate", "reserve", "critique", "filter")


# --- files of any shape ----------------------------------------------------------------------------------------------

ODD = (
    *("", "~", "{}", "[]", "-1", "0", "1e999", ".nan", "-.inf", "2026-13-45", "2026-01-02", "9" * 5000, "9" * 4000, "x" * 300),
    *("x" * 100_000, "yes", "1:30", "010", r'"\0"', r'"\uD83D"', "../../..", "/", "/dev/null", "[1, [2]]", "{a: {b: c}}", "{1: 2}"),
    *(
        "&a [*a]",
        "true",
        "0.5",
        "12345678901234567890",
        '"é"',
        "!!binary aGk=",
        "os:system",
        "[os:system]",
        '"${x}"',
        '"{x}"',
        "[" * 60,
    ),
    *("!!python/name:os.x 1", "*x", "@", r'"\n"', "[{}]", '{"": 1}', "1e-400", '" "', "a:b", "tasks.worlds.library.retail:Retail"),
)
"""YAML texts that stand where another value is meant."""


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def spoiled(tree: Any, rng: random.Random) -> str:
    """The tree as YAML with one place replaced, removed, or given a neighbour."""
    tree, odd = copy.deepcopy(tree), rng.choice(ODD)
    *way, last = rng.choice(list(places(tree)))
    node = tree
    for key in way:
        node = node[key]
    act = rng.random()
    if act < 0.1:
        del node[last]
    elif act < 0.3 and isinstance(node, dict):
        node["MARK" if act < 0.2 else rng.choice(("method", "errors", "others"))] = "MARK"
    else:
        node[last] = "MARK"
    text = io.StringIO()
    yaml = YAML()
    yaml.width = 10**9
    yaml.dump(tree, text)
    return text.getvalue().replace("MARK", odd)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / "project"
    for name in ("flows", "tasks", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "dvc.yaml", folder)
    return folder


@pytest.mark.parametrize("seed", range(2))
def test_no_params_file_ends_in_an_internal_error(copied: Path, seed: int) -> None:
    """Read, checked, keyed and its stages' imports compared, or refused in words; never anything else."""
    rng = random.Random(seed)
    whole = read_yaml(ROOT / "params/profiles/quickstart.yaml")
    refused = 0
    for _ in range(12):
        (copied / "params/pipeline.yaml").write_text(spoiled(whole, rng), encoding="utf-8")
        try:
            plan = Plan.open(load(copied), copied / ".cairn")
            survey(plan)
            plan.check_closures(plan.stages)
        except BadInput as error:
            refused += 1
            assert max(map(len, str(error).splitlines())) < 2500, "a message is for reading"
    assert refused, "most of them are mistakes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a mapping of stages is missing"),
        ("stages: [a]", "a mapping of stages is missing"),
        ("stages: {worlds: 5}", "the stage 'base' is missing"),
        ("BASE 5", "stage 'base' does not have cmd, deps, params and outs"),
        ("BASE {deps: [], params: [x], outs: [y]}", "stage 'base' does not have"),
        ("BASE {deps: [], outs: []}", "stage 'base' does not have"),
        (
            "BASE {deps: [data/sft], outs: [data/base]}",
            "stage 'base' reads sft, and by the road worlds. After a change of tasks/road.py",
        ),
    ],
)
def test_a_dvc_yaml_of_another_shape_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    whole = plain_yaml.safe_load((ROOT / "dvc.yaml").read_text())
    whole["stages"]["base"] = plain_yaml.safe_load(text.removeprefix("BASE "))
    (tmp_path / "dvc.yaml").write_text(plain_yaml.safe_dump(whole) if text.startswith("BASE") else text)
    settings = replace(load(ROOT, "quickstart"), project=tmp_path)
    with pytest.raises(BadInput, match=r"git checkout HEAD -- dvc\.yaml") as refused:
        listed(settings)
    assert message in str(refused.value)
