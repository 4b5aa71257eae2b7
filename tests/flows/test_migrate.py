"""`cairn migrate`: params of an earlier version get their present places, with their comments; what cannot be moved is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.cli import main
from flows.migrate import follow, left, migrate, moved, report
from tasks.contract.params import BadInput
from tasks.engine import layout
from tasks.engine.layout import Default, Move
from tasks.engine.project import round_trip, written
from tasks.engine.settings import load
from tasks.road import ROAD, Road, Step
from tests.conftest import ROOT

MOVES = (
    *(Move("2026-11", f"sft.*.{key}", f"sft.loop.{key}") for key in ("epochs", "optimizer", "control")),
    *(Move("2026-11", f"rl.*.{key}", f"rl.loop.{key}") for key in ("steps", "lr")),
    Move("2027-02", "decide.paired_gate.margin", "decide.paired_gate.least_gain"),
)
TODAYS = layout.MOVES
DEFAULTS = (Default("2026-11", "filter.rejection_sampling.min_score", 0.5),)

OLD = """\
seed: 0           # root

sft:
  method: sft
  sft: {epochs: 1, optimizer: muon}    # the control: what
  hft: {epochs: 1}

rl:
  method: grpo
  grpo:             # a policy that is sure
    steps: 40   # few
    clip_high: 0.28
    lr: 0.0003

filter:
  method: rejection_sampling
"""
NEW = """\
seed: 0           # root

sft:
  method: sft
  loop: {epochs: 1, optimizer: muon}   # the control: what

rl:
  method: grpo
  grpo:
    clip_high: 0.28
  loop:             # a policy that is sure
    steps: 40   # few
    lr: 0.0003

filter:
  method: rejection_sampling
  rejection_sampling:
    min_score: 0.5
"""


@pytest.fixture(autouse=True)
def _a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOVES", MOVES)
    monkeypatch.setattr(layout, "DEFAULTS", DEFAULTS)


def _moved(text: str) -> tuple[str, list[str]]:
    yaml = round_trip()
    tree = yaml.load(text)
    lines = moved(tree)
    return written(yaml, tree), lines


def test_params_move_with_their_comments_and_once() -> None:
    text, lines = _moved(OLD)
    assert text == NEW
    assert lines == [
        "sft.sft.epochs -> sft.loop.epochs",
        "sft.hft.epochs -> sft.loop.epochs",
        "sft.sft.optimizer -> sft.loop.optimizer",
        "rl.grpo.steps -> rl.loop.steps",
        "rl.grpo.lr -> rl.loop.lr",
        "filter.rejection_sampling.min_score: 0.5, which earlier versions took by themselves",
    ]
    assert _moved(text) == (text, [])


def test_a_value_that_differs_from_the_one_at_the_new_place_is_not_lost() -> None:
    """The chosen method's value moves, its sibling's stays where it was and is said."""
    old = "sft:\n  method: hft\n  sft: {epochs: 1}\n  hft: {epochs: 3}\n"
    text, lines = _moved(old)
    assert lines == ["sft.hft.epochs -> sft.loop.epochs"]
    tree = round_trip().load(text)
    assert tree["sft"] == {"method": "hft", "loop": {"epochs": 3}, "sft": {"epochs": 1}}
    assert _moved(text) == (text, [])
    assert [one.why for one in layout.outdated(tree)] == ["sft.loop.epochs is 3"]


def test_what_the_chosen_method_was_not_given_is_not_taken_from_its_siblings(tmp_path: Path) -> None:
    """It trained with its default; a sibling's value in the section that they share would change what it computes."""
    old = "sft:\n  method: hft\n  sft: {control: true, epochs: 3}\n  spare: {control: false, epochs: 3}\n  hft: {epochs: 3}\n"
    text, lines = _moved(old)
    assert lines == [f"sft.{name}.epochs -> sft.loop.epochs" for name in ("hft", "sft", "spare")]
    tree = round_trip().load(text)
    assert tree["sft"] == {"method": "hft", "sft": {"control": True}, "spare": {"control": False}, "loop": {"epochs": 3}}
    why = "sft.loop.control is shared by all methods, and 'hft', the chosen one, was not given it; write it there, or remove it"
    assert {one.old: one.why for one in layout.outdated(tree)} == {"sft.sft.control": why, "sft.spare.control": why}
    assert f"sft.sft.control = True stays: {why}" in "\n".join(left(tmp_path, "params/pipeline.yaml", text))


def test_params_of_a_step_move_whatever_it_is_called() -> None:
    """A line of the table is about a room: about every step that enters it, and about the section of no other."""
    road = Road((*ROAD.steps, Step("critic_sft", "sft", ("worlds", "base", "filter"), "")), ROAD.candidate)
    yaml = round_trip()
    tree = yaml.load("critic_sft:\n  method: sft\n  sft: {epochs: 1}\nsft:\n  method: sft\n  sft: {epochs: 2}\n")
    assert "critic_sft.sft.epochs has another place now: critic_sft.loop.epochs" in layout.refusal(tree, "x", road)
    assert moved(tree, road) == ["sft.sft.epochs -> sft.loop.epochs", "critic_sft.sft.epochs -> critic_sft.loop.epochs"]
    assert [tree[step]["loop"] for step in ("sft", "critic_sft")] == [{"epochs": 2}, {"epochs": 1}]
    assert moved(tree, road) == []


def test_a_param_without_a_new_place_is_left_to_people_with_what_to_write_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MOVES", TODAYS)
    old = "sft:\n  method: sft\n  loop: {bf16: true}\nrl:\n  method: grpo\n  grpo: {slices: 4}\n"
    text, lines = _moved(old)
    assert lines == [] and round_trip().load(text) == round_trip().load(old)
    bf16, slices = left(tmp_path, "params/pipeline.yaml", text)
    assert bf16.startswith("params/pipeline.yaml: sft.loop.bf16 = True stays: write sft.loop.dtype instead: `bfloat16` where")
    assert slices.startswith("params/pipeline.yaml: rl.grpo.slices = 4 stays: write rl.loop.pass_tokens instead: the most tokens")
    refused = layout.refusal(round_trip().load(old), "x")
    assert refused.startswith("x: sft.loop.bf16 is gone. Write sft.loop.dtype instead: `bfloat16`") and "cairn migrate" not in refused


def test_a_key_that_only_has_another_name_keeps_its_line() -> None:
    text, lines = _moved("decide:\n  paired_gate:\n    margin: 0.05    # of pass^1\n    trials: 2\n")
    assert text == "decide:\n  paired_gate:\n    least_gain: 0.05 # of pass^1\n    trials: 2\n" and len(lines) == 1


def _project(folder: Path, **files: str) -> Path:
    shutil.copytree(ROOT / "params/profiles", folder / "params/profiles")
    for name, text in files.items():
        (folder / "params" / f"{name}.yaml").write_text(text)
    return folder


def test_todays_params_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    quickstart = (ROOT / "params/profiles/quickstart.yaml").read_text()
    project = _project(tmp_path, pipeline=quickstart)
    assert report(project, check=True) == 0 == report(project, check=False)
    assert "nothing to migrate" in capsys.readouterr().out
    assert (project / "params/pipeline.yaml").read_text() == quickstart


@pytest.mark.parametrize("profile", ["quickstart", "smoke"])
def test_a_profile_of_before_means_what_it_meant(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops' params under their methods, as they stood once, and the values that methods' own files gave."""
    monkeypatch.undo()
    yaml = round_trip()
    text = (ROOT / f"params/profiles/{profile}.yaml").read_text()
    tree, today = yaml.load(text), yaml.load(text)
    for section in tree.values():
        if isinstance(section, dict) and "loop" in section:
            section[section["method"]] = {**section.pop("loop"), **section.get(section["method"], {})}
    del tree["merge"]["breadcrumbs"]["alpha"]
    today["merge"]["breadcrumbs"]["alpha"] = 0.8
    project = _project(tmp_path, pipeline=written(yaml, tree))
    with pytest.raises(BadInput, match=r"sft.sft.control has another place now: sft.loop.control\n(.*\n)*`cairn migrate` moves it"):
        load(project).check()
    assert report(project, check=False) == 0
    assert yaml.load((project / "params/pipeline.yaml").read_text()) == today


def test_the_command_refuses_an_old_param_by_the_place_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--dry-run", "--set", "rl.grpo.lr=0.1"]) == 2
    assert "rl.grpo.lr has another place now: rl.loop.lr" in capsys.readouterr().err


def test_check_writes_nothing_and_says_what_would_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also in profiles of one's own; a param that nobody knows stays and is said."""
    profile = (ROOT / "params/profiles/quickstart.yaml").read_text()
    old = profile.replace("  paired_gate: {margin", "  paired_gate: {colour: red, margin")
    project = _project(tmp_path, pipeline=old)
    (project / "params/profiles/mine.yaml").write_text(old)
    before = {path: path.read_text() for path in project.rglob("*.yaml")}
    assert report(project, check=True) == 1
    said = capsys.readouterr().out
    assert "would change  params/pipeline.yaml: decide.paired_gate.margin -> decide.paired_gate.least_gain\n" in said
    assert "would change  params/profiles/mine.yaml: decide.paired_gate.margin" in said
    assert "left to you  params/pipeline.yaml: decide.paired_gate: unknown key 'colour'" in said
    assert {path: path.read_text() for path in project.rglob("*.yaml")} == before
    assert report(project, check=False) == 1
    assert "colour: red" in (project / "params/pipeline.yaml").read_text()
    assert "least_gain" in (project / "params/profiles/mine.yaml").read_text()


def test_an_old_profile_is_refused_with_the_place_and_the_command(tmp_path: Path) -> None:
    text = "decide:\n  paired_gate: {margin: 0.05}\n"
    _project(tmp_path, pipeline=text)
    with pytest.raises(BadInput) as refused:
        load(tmp_path, "").check()
    said = str(refused.value)
    assert "params/pipeline.yaml: decide.paired_gate.margin has another place now: decide.paired_gate.least_gain" in said
    assert "`cairn migrate` moves it" in said
    with pytest.raises(BadInput, match=r"--set 'rl\.grpo\.lr': rl\.grpo\.lr has another place now: rl\.loop\.lr$"):
        load(tmp_path, "", (("rl.grpo.lr", 0.1),))


def test_a_file_from_before_a_step_gets_its_section_also_when_a_world_of_its_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the command; the command does its work and leaves the world to people."""
    monkeypatch.undo()
    text = (ROOT / "params/profiles/smoke.yaml").read_text()
    freeze = "freeze: {size: 60, modules: ['old_shop:Shop'], allow: [old_shop]}"
    tree = round_trip().load(text.replace("freeze: {size: 60}", freeze))
    section = tree.pop("reserve")
    (tmp_path / "old_shop.py").write_text("from tasks.worlds.api.tools import NO_SUCH_NAME\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    project = _project(tmp_path, pipeline=written(round_trip(), tree))
    with pytest.raises(BadInput, match=r"the section 'reserve' is missing.* `cairn migrate` writes it"):
        load(project).method("reserve")
    done = migrate(project)
    now = round_trip().load((project / "params/pipeline.yaml").read_text())
    assert now["reserve"].keys() == section.keys() and list(now).index("reserve") == list(now).index("generate") + 1
    assert any("old_shop.py:1: ImportError: cannot import name 'NO_SUCH_NAME'" in line for line in done.left), done.left
    shutil.copy(project / "params/pipeline.yaml", project / "params/profiles/mine.yaml")
    assert sum(":1: ImportError" in line for line in migrate(project).lines(check=False)) == 1


@pytest.mark.parametrize("gap", ["\n", ""])
@pytest.mark.parametrize(
    "generate", ["{method: apigen_mt}", "\n  method: apigen_mt", "\n  method: apigen_mt\n  apigen_mt: {problems: 3}  # few"]
)
def test_a_new_section_stands_apart_where_the_others_do(generate: str, gap: str, tmp_path: Path) -> None:
    text = f"profile: mine\n{gap}generate: {generate}\n{gap}critique: {{method: none}}\n"
    project = _project(tmp_path, pipeline=text)
    migrate(project)
    found = (project / "params/pipeline.yaml").read_text()
    assert f"\n{gap}reserve: {{method: apigen_mt, " in found and f"}}}}\n{gap}critique: " in found and "\n\n\n" not in found, found
    assert not any("pipeline.yaml" in line for line in migrate(project).changed)


def test_methods_files_of_earlier_versions_are_taken_over(tmp_path: Path) -> None:
    """What a profile says goes before, as it did; files and folders that are read no more go."""
    text = "decide:\n  method: paired_gate\n  paired_gate: {trials: 2}\n"
    project = _project(tmp_path, pipeline=text)
    for stage, method, values in (("decide", "paired_gate", "trials: 3\nmargin: 0.1\n"), ("merge", "ties", "{}\n")):
        (project / "params" / stage).mkdir()
        (project / "params" / stage / f"{method}.yaml").write_text(values)
    assert report(project, check=True) == 1 and (project / "params/merge/ties.yaml").exists()
    report(project, check=False)
    gate = round_trip().load((project / "params/pipeline.yaml").read_text())["decide"]["paired_gate"]
    assert gate == {"trials": 2, "least_gain": 0.1}
    assert not (project / "params/merge").exists() and not (project / "params/decide").exists()


def test_what_a_profile_changed_is_followed_unless_it_was_changed_here() -> None:
    then = round_trip().load("a: {x: 1, y: 2, z: 3, gone: 4}\nb: 1\n")
    now = round_trip().load("a: {x: 10, y: 20, z: 3, new: 5}\nb: 1\n")
    ours = round_trip().load("a: {x: 1, y: 7, z: 9, gone: 4} # kept\nb: 1\n")
    lines = list(follow(ours, then, now))
    assert written(round_trip(), ours) == "a: {x: 10, y: 7, z: 9, new: 5} # kept\nb: 1\n"
    assert lines == [
        "a.x: 1 -> 10, as in its profile",
        "a.y stays 7 (its profile: 2, now 20)",
        "a.new: not set -> 5, as in its profile",
        "a.gone is gone, as in its profile",
    ]


@pytest.mark.parametrize(
    ("section", "becomes"),
    [
        ("{method: sft, loop: , sft: {epochs: 2}}", {"method": "sft", "loop": {"epochs": 2}}),
        ("{method: sft, loop: [1], sft: {epochs: 2}}", None),
        ("{method: sft, loop: 3, sft: {epochs: 2}}", None),
        ("[1]", None),
        ("x", None),
        ("", None),
    ],
)
def test_an_empty_section_is_filled_and_what_is_none_is_left_to_people(section: str, becomes: object, tmp_path: Path) -> None:
    """Where a value cannot be moved nothing is written, and a line says why; never a failure."""
    text = f"sft: {section}\ngenerate: {section.replace('sft', 'apigen_mt')}\n"
    project = _project(tmp_path, pipeline=text)
    done = migrate(project)
    now = round_trip().load((project / "params/pipeline.yaml").read_text())
    assert now["sft"] == (becomes or round_trip().load(text)["sft"])
    assert becomes or any("sft" in line for line in done.left)
    assert not becomes or migrate(project).changed == []


@pytest.mark.parametrize("sft", ["{method: sft, sft: &a {epochs: 3}, hft: *a}", "{method: sft, hft: &a {epochs: 3}, sft: {<<: *a}}"])
def test_sections_that_share_params_are_refused_by_name(sft: str, tmp_path: Path) -> None:
    """Moving a param out of one would take it from the other."""
    project = _project(tmp_path, pipeline=f"sft: {sft}\n")
    with pytest.raises(BadInput, match=r"pipeline\.yaml: sft\.[sh]ft shares its params with another section"):
        migrate(project)
    assert (project / "params/pipeline.yaml").read_text() == f"sft: {sft}\n"


def test_a_file_keeps_its_line_ends_and_one_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    project = _project(tmp_path)
    (project / "params/pipeline.yaml").write_bytes(OLD.replace("\n", "\r\n").encode())
    migrate(project)
    text = (project / "params/pipeline.yaml").read_bytes().decode()
    assert "  loop: {epochs: 1, optimizer: muon}   # the control: what\r\n" in text and "\n" not in text.replace("\r\n", "")
    (project / "params/pipeline.yaml").write_text("sft:\n  sft: {epochs: 3}\t# three\n")
    with pytest.raises(BadInput, match=r"pipeline\.yaml, line 2: .*so its comments cannot be kept"):
        migrate(project)


def test_a_methods_own_file_is_kept_when_its_section_cannot_take_it(tmp_path: Path) -> None:
    project = _project(tmp_path, pipeline="decide: {method: paired_gate, paired_gate: 4}\n")
    (project / "params/decide").mkdir()
    (project / "params/decide/paired_gate.yaml").write_text("margin: 0.1\n")
    with pytest.raises(BadInput, match=r"decide\.paired_gate is no mapping of params, so what params/decide/paired_gate\.yaml says"):
        migrate(project)
    assert (project / "params/decide/paired_gate.yaml").exists()
