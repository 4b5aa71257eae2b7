"""The code that a stage reaches against the code that its key holds: nothing unseen, little for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.contract.params import BadInput
from tasks.engine import methods
from tasks.engine.closure import BACKENDS, check_closure, closure, world_code
from tasks.engine.dvc_yaml import listed
from tasks.engine.settings import Settings, load
from tasks.road import ROAD
from tasks.worlds.api.imports import reach
from tasks.worlds.api.loading import reached_code
from tests.conftest import ROOT, Project

MOST = 1.3
"""Lines in a stage's key for each line that its method reaches."""


def choices(stage: str) -> Iterator[tuple[str, str, Settings]]:
    """(method, backend of all roles, params) for everything that can be chosen in a stage, on the ground that the params have."""
    plain = load(ROOT)
    room = plain.room(stage)
    for method in (name for name in methods.names(room) if methods.ground(room, name) == methods.WORLDS):
        tree = {**plain.tree, stage: {**plain.tree[stage], "method": method}}
        for backend in BACKENDS if listed(plain)[stage].roles else ("scripted",):
            roles = {name: {**role, "backend": backend} for name, role in plain.tree["roles"].items()}
            yield method, backend, Settings(ROOT, {**tree, "roles": roles})


def lines(paths: set[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def code(deps: tuple[str, ...]) -> set[Path]:
    """The Python files that a list of deps names."""
    paths = [ROOT / dep for dep in deps]
    return {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")) if file.suffix == ".py"}


@pytest.mark.parametrize("stage", ROAD.names)
def test_a_key_holds_what_its_method_reaches_and_little_more(stage: str) -> None:
    """Every module that a method can reach is among the stage's deps or stands in data/worlds, whoever plays the roles; and the deps
    are at most so many times as long (`worlds` apart, which holds the whole library on purpose)."""
    rows = []
    for method, backend, settings in choices(stage):
        about = listed(settings)[stage]
        check_closure(settings, about)
        assert all((ROOT / dep).exists() for dep in about.code), "DVC refuses a dep that is not there"
        held = lines(code(about.code))
        reached = lines({ROOT / path for path in closure(settings, about) - world_code(settings, about)})
        rows.append((held / reached, f"{stage:9} {method:20} {backend:18} key {held:6} reached {reached:6}  {held / reached:.2f}"))
    table = "\n".join(line for _, line in rows)
    print(f"\n{table}")
    assert stage == "worlds" or max(ratio for ratio, _ in rows) <= MOST, table


def test_a_module_that_is_used_and_not_listed_is_named(tmp_path: Path) -> None:
    settings = load(ROOT)
    about = listed(settings)["merge"]
    short = replace(about, code=tuple(path for path in about.code if path != "tasks/merge/core"))
    with pytest.raises(BadInput, match=r"stage 'merge' uses tasks/merge/core/.*add `- tasks/merge/core"):
        check_closure(settings, short)


def test_a_part_of_another_method_is_sent_to_the_core(project: Project) -> None:
    """Methods that stay apart run; one that borrows from another is told where that goes."""
    settings = load(project.folder, "smoke", [("generate.method", "imported")])
    check_closure(settings, listed(settings)["generate"])
    with (project.folder / "tasks/generate/parts/imported/kept.py").open("a") as file:
        file.write("\nfrom tasks.generate.parts.apigen_mt import tally\n")
    words = r"parts/apigen_mt/__init__.py, which is a part of another method than imported.* move it to tasks/generate/core/"
    with pytest.raises(BadInput, match=words):
        check_closure(settings, listed(settings)["generate"])


def test_a_method_without_a_folder_of_parts_is_told_what_to_make(project: Project) -> None:
    shutil.rmtree(project.folder / "tasks/generate/parts/apigen_mt")
    settings = load(project.folder)
    with pytest.raises(BadInput, match=r"generate.*parts/apigen_mt is not there.* Make tasks/generate/parts/apigen_mt/__init__.py"):
        check_closure(settings, listed(settings)["generate"])


def test_the_closure_follows_lazy_imports_and_leaves_out_type_checking(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.c\ndef f():\n    from . import b\n"
    )
    (tmp_path / "pkg" / "b.py").write_text("import json\n")
    (tmp_path / "pkg" / "c.py").write_text("")
    assert set(reach(tmp_path, ["pkg.a"])) == {"pkg", "pkg.a", "pkg.b"}


def test_a_world_module_counts_where_its_hash_stands() -> None:
    """sft reads data/worlds, so the runtime need not be among its deps; merge does not, and would be stopped."""
    settings = load(ROOT)
    sft, merge = (listed(settings)[stage] for stage in ("sft", "merge"))
    assert "tasks/worlds/api/runtime.py" in closure(settings, sft) & world_code(settings, sft)
    assert not any(dep.startswith("tasks/worlds") for dep in sft.code)
    assert world_code(settings, merge) == set()
    with pytest.raises(BadInput, match=r"stage 'sft' uses tasks/.*would go unseen"):
        check_closure(settings, replace(sft, inputs=("base", "filter")))


def test_a_world_is_played_by_the_whole_api_and_by_what_it_imports() -> None:
    reached = reached_code(["tasks.worlds.library.retail"])
    assert {"tasks.worlds.api.blame", "tasks.worlds.api.play", "tasks.contract.values", "tasks.worlds.library.retail.api"} <= set(
        reached
    )
    assert not any(name.startswith(("tasks.worlds.library.airline", "tasks.worlds.adapters", "tasks.engine")) for name in reached)


def test_a_second_model_of_another_backend_is_told_by_its_place() -> None:
    """DVC fills in the backend of a role's first model; where no role of the stage has the other's, its code would go unseen."""
    server = {"backend": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    settings = load(ROOT, "smoke", [("roles.judge", {"backend": "scripted", "others": [server]})])
    with pytest.raises(BadInput, match=r"roles\.judge\.others\[0\]: .* Give another role of that stage"):
        check_closure(settings, listed(settings)["generate"])
    settings = load(ROOT, "smoke", [("roles.judge", {**server, "others": [{"backend": "scripted"}]})])
    check_closure(settings, listed(settings)["generate"])


@pytest.mark.parametrize("engine", ["own", "transformers"])
@pytest.mark.parametrize(("method", "counts"), [("endpoint", True), ("none", False)])
def test_what_serves_counts_where_something_is_played_as_served(engine: str, method: str, counts: bool) -> None:
    settings = load(ROOT, "smoke", [("evaluate.engine.method", engine), ("evaluate.as_served.method", method)])
    about = listed(settings)["evaluate"]
    check_closure(settings, about)
    assert any(path.is_relative_to(ROOT / "tasks/serving/endpoint") for path in code(about.code)) == counts
    assert not any(path.is_relative_to(ROOT / "tasks/serving") for path in code(listed(settings)["rl"].code))


def test_the_code_of_environments_counts_where_its_hash_stands() -> None:
    """The step that freezes environments holds their folder whole, since params name them; those behind it have the hash in data/worlds."""
    chosen = [("worlds.method", "environments"), ("base.method", "closed_vocabulary"), ("generate.method", "expert_rows")]
    settings = load(ROOT, "smoke", chosen)
    about = listed(settings)
    assert "tasks/environments/maps.py" in closure(settings, about["worlds"])
    for stage in ("base", "generate", "sft"):
        check_closure(settings, about[stage])
    assert not any(dep.startswith("tasks/environments") for dep in about["generate"].code)
    with pytest.raises(BadInput, match=r"stage 'worlds' uses tasks/environments/.*would go unseen"):
        check_closure(settings, about["worlds"])
