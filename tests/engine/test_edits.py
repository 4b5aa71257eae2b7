"""What an edit of the code would run, for both drivers: by the keys as `cairn run` takes them, and by DVC's own answer.

A copy of the code with a made-up artifact for each stage; nothing is computed. Only data/worlds is made of real hashes, as the stage
`worlds` would write them, since that is how an edit of a world reaches the stages after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tasks.engine.dvc_yaml import listed
from tasks.engine.hashes import Hashes, file_md5
from tasks.engine.key import key_of
from tasks.engine.settings import load
from tasks.worlds.api.loading import project_code
from tests.conftest import Project, make_project

READ_WORLDS = {"base", "generate", "reserve", "critique", "filter", "sft", "rl", "evaluate"}
EDITS: dict[str, tuple[str, set[str]]] = {
    "the client of endpoints": ("tasks/players/openai_compatible/client.py", set()),
    "the pacing of endpoints": ("tasks/players/openai_compatible/rate_limit.py", set()),
    "the decoder of checkpoints": ("tasks/players/local/own/engine.py", {"rl", "evaluate"}),
    "what serves": ("tasks/serving/endpoint/chat.py", {"evaluate"}),
    "scripted people": ("tasks/players/scripts/people.py", {"base", "generate", "reserve", "rl", "evaluate"}),
    "scripted critics": ("tasks/players/critics/scripted/detectors.py", {"critique"}),
    "scripted authors": ("tasks/players/authors/scripted/planted.py", {"generate", "reserve"}),
    "a world that is not used": ("tasks/worlds/library/airline/rules.py", {"worlds"}),
    "an adapter that is not used": ("tasks/worlds/adapters/objects.py", {"worlds"}),
    "a chosen world": ("tasks/worlds/library/retail/policy.md", {"worlds"} | READ_WORLDS),
    "what plays all worlds": ("tasks/worlds/api/grading.py", {"worlds"} | READ_WORLDS),
    "a method that is not chosen": ("tasks/merge/ties.py", set()),
    "a chosen method": ("tasks/sft/sft.py", {"sft"}),
    "a reader of logs": ("tasks/generate/parts/imported/formats.py", set()),
    "what the chosen method alone needs": ("tasks/generate/parts/apigen_mt/prompts/judge.jinja", {"generate", "reserve"}),
    "how engines are asked": ("tasks/players/local/generation.py", {"rl", "evaluate"}),
    "the core of a room": ("tasks/rl/core/loop.py", {"rl"}),
    "the report": ("flows/report/charts.py", set()),
    "the command": ("flows/cli/run.py", set()),
    "environments": ("tasks/environments/maps.py", set()),
    "the engine": ("tasks/engine/running.py", set()),
}
"""what is edited -> (its file, the stages whose own key changes; those after them run if the result is another)."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project trained on one of the two built-in worlds, whose stages all have a result that DVC holds."""
    project = make_project(tmp_path_factory.mktemp("edits") / "project", "smoke")
    retail = 'worlds:\n  method: freeze\n  freeze: {modules: ["tasks.worlds.library.retail:Retail"], '
    project.replace("params/pipeline.yaml", "worlds:\n  method: freeze\n  freeze: {", retail)
    for stage, about in listed(load(project.folder)).items():
        out = project.folder / about.out
        out.mkdir(parents=True)
        (out / "result.txt").write_text(stage)
        for metrics in about.extra:
            (project.folder / metrics).parent.mkdir(parents=True, exist_ok=True)
            (project.folder / metrics).write_text("{}\n")
    freeze(project.folder)
    project.dvc("commit", "--force", "-q")
    return project


def freeze(folder: Path) -> None:
    """What the stage `worlds` leaves of the code."""
    code = {name: file_md5(path) for name, path in project_code(["tasks.worlds.library.retail"], folder).items()}
    lines = [f"{name} {md5}" for name, md5 in sorted(code.items())]
    (folder / "data/worlds/result.txt").write_text("\n".join(lines))


@contextmanager
def edited(folder: Path, file: str) -> Iterator[None]:
    """A comment at the end of a file, or a new file, while the block runs."""
    path = folder / file
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((before or b"") + b"\n# edited\n")
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_bytes(before)
        freeze(folder)


def keys(folder: Path, hashes: Hashes) -> dict[str, str]:
    """stage -> its key, on the results that lie in data/."""
    settings = load(folder)
    stages = listed(settings)
    results = {stage: hashes.path(folder / about.out) for stage, about in stages.items()}
    return {
        stage: key_of(settings, about, {name: results[name] for name in about.inputs}, hashes).digest for stage, about in stages.items()
    }


def by_dvc(folder: Path) -> set[str]:
    """The stages of which `dvc status` says that what they depend on has changed."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        found = repo.status()
    return {
        stage.rpartition(":")[2] for stage, told in found.items() if any("changed deps" in one for one in told if isinstance(one, dict))
    }


def test_an_edit_runs_the_stages_that_reach_it_and_no_other(copy: Project, tmp_path: Path) -> None:
    """For each edit the keys name the stages that the edited code is a part of. DVC is asked for all edits together that it can tell
    apart: those of which nothing runs, and those that have no stage in common."""
    folder, hashes = copy.folder, Hashes(tmp_path)
    before = keys(folder, hashes)
    groups: list[tuple[set[str], list[str]]] = []
    for what, (file, expected) in EDITS.items():
        with edited(folder, file):
            alone = changed(before, keys(folder, hashes))
            assert "worlds" not in expected or alone == {"worlds"}, f"{what}: as long as `worlds` has not run, it alone is to run"
            freeze(folder)  # it runs: its result is the same unless the edit is in a chosen world or in what plays it
            assert alone | changed(before, keys(folder, hashes)) == expected, f"{what} ({file})"
        group = next((one for one in groups if not one[0] & expected), None)
        if group is None:
            groups.append(group := (set(), []))
        group[0].update(expected)
        group[1].append(file)
    assert keys(folder, hashes) == before
    for expected, files in groups:
        with ExitStack() as together:
            for file in files:
                together.enter_context(edited(folder, file))
            freeze(folder)
            assert by_dvc(folder) == expected, files


def changed(before: dict[str, str], now: dict[str, str]) -> set[str]:
    return {stage for stage, key in now.items() if key != before[stage]}


def test_a_contender_runs_the_evaluation_and_no_other_stage(copy: Project, tmp_path: Path) -> None:
    """Without one no code of players counts that nobody needs; with one its backend's does; how it is reached never does."""
    folder, hashes = copy.folder, Hashes(tmp_path)
    client, nobody = "tasks/players/openai_compatible", {"backend": "none"}
    server = {"backend": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", "model": "m"}

    def cast(player: dict[str, object]) -> tuple[dict[str, str], tuple[str, ...]]:
        line = next(line for line in (folder / "params/pipeline.yaml").read_text().splitlines() if line.startswith("  contender: "))
        copy.replace("params/pipeline.yaml", line, f"  contender: {json.dumps(player)}")
        return keys(folder, hashes), listed(load(folder))["evaluate"].code

    before, code = cast(nobody)
    assert client not in code
    try:
        now, code = cast(server)
        assert changed(before, now) == {"evaluate"} == by_dvc(folder) and client in code
        assert cast({**server, "base_url": "http://127.0.0.1:2/v1", "price_in": 1, "timeout_seconds": 9})[0] == now
        assert changed(now, cast({**server, "temperature": 0.1})[0]) == {"evaluate"}
    finally:
        assert cast(nobody)[0] == before and by_dvc(folder) == set()
