"""`cairn init` makes a project on Cairn's history, and `cairn upgrade` merges a later Cairn into it: with local repositories alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows import init
from flows.init import create
from flows.upgrade import go_on, standing, upgrade
from flows.worlds.new import LIBRARY
from tasks.contract.params import BadInput, StageFailed
from tests.conftest import ROOT

FILES = (
    *("tasks", "params", ".gitignore", "dvc.yaml", "pyproject.toml", "requirements.lock"),
    *(f"flows/{name}.py" for name in ("__init__", "exit_codes", "interrupt", "migrate", "repository")),
)
"""What `python -m flows.migrate` and a project's params need of Cairn."""
SETTINGS = {"user.name": "someone", "user.email": "someone@example.org", "init.defaultBranch": "trunk", "init.templateDir": ""}


def git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=folder, text=True, capture_output=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text, (name, old)
    (folder / name).write_text(text.replace(old, new, 1 if old == '"""' else -1))


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


@pytest.fixture(scope="module", autouse=True)
def _somebody() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("GIT_CONFIG_COUNT", str(len(SETTINGS)))
        for number, (key, value) in enumerate(SETTINGS.items()):
            patch.setenv(f"GIT_CONFIG_KEY_{number}", key)
            patch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
        yield


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of Cairn's with the code as it lies here, and a project made from it beside it."""
    folder = tmp_path_factory.mktemp("release") / "cairn"
    for name in FILES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    git(folder, "init", "--quiet")
    commit(folder, "the release")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init, "ROOT", folder)
        create(folder.parent / "bookshop")
    for one in (folder, folder.parent / "bookshop"):
        git(one, "gc", "--quiet")  # one file in the place of hundreds: it is copied for each test
    return folder


@pytest.fixture
def cairn(release: Path, tmp_path: Path) -> Path:
    shutil.copytree(release, tmp_path / "cairn")
    return tmp_path / "cairn"


@pytest.fixture
def project(release: Path, cairn: Path, tmp_path: Path) -> Path:
    shutil.copytree(release.parent / "bookshop", tmp_path / "bookshop")
    git(tmp_path / "bookshop", "remote", "set-url", "cairn", str(cairn))
    return tmp_path / "bookshop"


def test_a_project_stands_on_the_release_and_changes_none_of_its_files(release: Path) -> None:
    """But params/pipeline.yaml, which is the project's own."""
    folder = release.parent / "bookshop"
    assert git(folder, "rev-parse", "HEAD~1") == git(release, "rev-parse", "HEAD")
    changed = git(folder, "diff", "--name-status", "HEAD~1").splitlines()
    home = f"{LIBRARY.replace('.', '/')}/bookshop/"
    assert [line for line in changed if line.startswith("M")] == ["M\tparams/pipeline.yaml"]
    added = {line[2:] for line in changed if line.startswith("A") and not line[2:].startswith(home)}
    assert added == {"project.yaml", "PROJECT.md", "tests/test_bookshop.py"}
    assert git(folder, "remote", "get-url", "cairn") == str(release) and git(folder, "branch", "--show-current") == "main"
    assert git(folder, "status", "--porcelain") == "" and git(folder, "tag") == ""


def test_a_conflict_free_edit_is_merged_and_the_params_follow(cairn: Path, project: Path) -> None:
    """Cairn's code, locks and params come, the project's edits stay; an edit of a file at another place does not matter."""
    edit(project, "params/pipeline.yaml", "min_score: 0.5", "min_score: 0.7")
    edit(project, "tasks/decide/__init__.py", '"""', '"""Ours: ')
    commit(project, "mine")
    for name in ("pipeline", "profiles/quickstart"):
        edit(cairn, f"params/{name}.yaml", "min_score: 0.5", "min_score: 0.6")
        edit(cairn, f"params/{name}.yaml", "margin: 0.05", "margin: 0.04")
    edit(cairn, "requirements.lock", "\nnumpy==", "\nnumpy==9.")
    (cairn / "tasks/new.py").write_text('"""New."""\n')
    commit(cairn, "A new module")
    assert "the newest that was fetched" in standing(project)
    said: list[str] = []
    assert upgrade(project, say=said.append) == 0
    text = "\n".join(said)
    assert "1 commit" in text and "  A new module" in text
    assert "filter.rejection_sampling.min_score stays 0.7 (its profile: 0.5, now 0.6)" in text
    assert "decide.paired_gate.margin: 0.05 -> 0.04, as in its profile" in text
    assert "requirements.lock changed (numpy " in text and "`make setup`" in text
    assert len(git(project, "rev-list", "--parents", "-1", "HEAD").split()) == 3 and git(project, "status", "--porcelain") == ""
    params = yaml.safe_load((project / "params/pipeline.yaml").read_text())
    assert params["worlds"]["freeze"]["modules"] == [f"{LIBRARY}.bookshop.world:Bookshop"]
    assert (project / "tasks/new.py").is_file() and "Ours" in (project / "tasks/decide/__init__.py").read_text()
    assert upgrade(project, say=said.append) == 0 and said[-1].endswith("is part of this project already; nothing to merge.")


def test_params_move_by_the_new_versions_table(cairn: Path, project: Path) -> None:
    """The process that merges runs the old code; what it starts afterwards, the new."""
    for name in ("params/pipeline.yaml", "params/profiles/quickstart.yaml", "params/profiles/smoke.yaml"):
        edit(cairn, name, "paired_gate: {", "paired_gate: {least_gain: 0.05, ")
        edit(cairn, name, "margin: 0.05, ", "") if "smoke" not in name else None
    edit(cairn, "tasks/decide/paired_gate.py", "margin", "least_gain")
    layout = next(path for path in (cairn / "tasks").rglob("layout.py")).relative_to(cairn).as_posix()
    with (cairn / layout).open("a") as file:
        file.write('\nMOVES = (*MOVES, Move("2027-01", "decide.paired_gate.margin", "decide.paired_gate.least_gain"))\n')
    commit(cairn, "margin is called least_gain")
    edit(project, "params/pipeline.yaml", "margin: 0.05", "margin: 0.08")
    shutil.copy(project / "params/pipeline.yaml", project / "params/profiles/mine.yaml")
    commit(project, "a profile of my own")
    said: list[str] = []
    assert upgrade(project, say=said.append) == 0, said
    for name in ("pipeline", "profiles/mine"):
        gate = yaml.safe_load((project / f"params/{name}.yaml").read_text())["decide"]["paired_gate"]
        assert gate["least_gain"] == 0.08 and "margin" not in gate
    assert "decide.paired_gate.margin -> decide.paired_gate.least_gain" in "\n".join(said)
    assert git(project, "status", "--porcelain") == ""


@pytest.fixture
def conflict(cairn: Path, project: Path) -> tuple[str, list[str]]:
    """An upgrade that stopped; the file concerned, and what was said."""
    name = "tasks/decide/__init__.py"
    for folder, word in ((cairn, "Theirs"), (project, "Ours")):
        edit(folder, name, '"""', f'"""{word}: ')
        edit(folder, "params/pipeline.yaml", "size: 2000", f"size: {2000 + len(word)}")
        commit(folder, word)
    said: list[str] = []
    assert upgrade(project, say=said.append) == 1
    return name, said


def test_a_conflict_waits_and_can_be_aborted(project: Path, conflict: tuple[str, list[str]]) -> None:
    name, said = conflict
    assert f"  {name}\n" in said[-1] and "cairn upgrade --continue" in said[-1] and "git merge --abort" in said[-1]
    assert "pipeline.yaml" not in said[-1], "params are merged by themselves"
    with pytest.raises(BadInput, match="a merge is going on"):
        upgrade(project)
    with pytest.raises(BadInput, match=name):
        go_on(project)
    git(project, "merge", "--abort")
    assert git(project, "status", "--porcelain") == "" and "Ours: " in (project / name).read_text()


def test_a_conflict_that_is_solved_is_finished(project: Path, conflict: tuple[str, list[str]]) -> None:
    name, _ = conflict
    git(project, "add", name)
    with pytest.raises(BadInput, match=rf"marks of a conflict are left: {name}:\d"):
        go_on(project)
    (project / name).write_text(git(project, "show", f"MERGE_HEAD:{name}").replace("Theirs", "Ours and theirs") + "\n")
    git(project, "add", name)
    said: list[str] = []
    assert go_on(project, say=said.append) == 0 and "merged; " in said[0]
    assert git(project, "status", "--porcelain") == "" and "Ours and theirs" in (project / name).read_text()
    assert yaml.safe_load((project / "params/pipeline.yaml").read_text())["worlds"]["freeze"]["size"] == 2004
    with pytest.raises(BadInput, match="no merge is going on"):
        go_on(project)


def test_a_tag_or_a_branch_of_cairns_may_be_named(cairn: Path, project: Path) -> None:
    (cairn / "one").touch()
    commit(cairn, "one")
    git(cairn, "tag", "v1")
    (cairn / "two").touch()
    commit(cairn, "two")
    git(project, "tag", "v1")  # the project's own: another thing
    with pytest.raises(BadInput, match=r"--to 'v2': no tag, branch or commit of Cairn at .* There are: .*v1"):
        upgrade(project, "v2")
    with pytest.raises(BadInput, match="no tag, branch or commit of Cairn"):
        upgrade(project, git(project, "rev-parse", "HEAD"))
    said: list[str] = []
    assert upgrade(project, "v1", said.append) == 0
    assert (project / "one").exists() and not (project / "two").exists() and "-> v1 " in said[0]
    assert "is 1 commit behind Cairn " in standing(project) and "`cairn upgrade` merges" in standing(project)


def test_what_cannot_be_upgraded_is_refused_with_the_command(cairn: Path, project: Path, tmp_path: Path) -> None:
    (cairn / "one").touch()
    commit(cairn, "one")
    before = git(project, "rev-parse", "HEAD")
    with (project / "dvc.yaml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(BadInput, match=r"not committed: dvc.yaml. `git commit` or `git stash` first"):
        upgrade(project)
    git(project, "checkout", "dvc.yaml")
    (project / "one").write_text("mine, and git does not know it")
    with pytest.raises(BadInput, match=r"untracked working tree files would be overwritten.*\n.*one(.|\n)*Nothing was changed"):
        upgrade(project)
    (project / "one").unlink()
    git(project, "checkout", "--quiet", "--detach")
    with pytest.raises(BadInput, match="`git switch main`"):
        upgrade(project)
    git(project, "switch", "--quiet", "main")
    git(project, "remote", "set-url", "cairn", str(tmp_path / "nowhere"))
    with pytest.raises(StageFailed, match=r"nowhere.*Nothing was changed"):
        upgrade(project)
    git(project, "remote", "remove", "cairn")
    with pytest.raises(BadInput, match=r"no git remote 'cairn'(.|\n)*git remote add cairn ADDRESS"):
        upgrade(project)
    assert git(project, "rev-parse", "HEAD") == before
    assert "git remote add cairn ADDRESS" in standing(project)
    shutil.rmtree(project / ".git")
    with pytest.raises(BadInput, match=r"no git history(.|\n)*git init(.|\n)*git remote add cairn ADDRESS"):
        upgrade(project)
    with pytest.raises(BadInput, match=r"no project that `cairn init` made.*`git pull`"):
        upgrade(cairn)
    assert standing(cairn) == ""


def test_from_an_unpacked_archive_a_project_is_made_and_can_be_connected(
    cairn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that are printed do what they say."""
    unpacked = tmp_path / "unpacked"
    shutil.copytree(cairn, unpacked, ignore=shutil.ignore_patterns(".git"))
    (unpacked / ".venv").mkdir()
    (unpacked / ".venv/python").touch()
    monkeypatch.setattr(init, "ROOT", unpacked)
    folder = tmp_path / "kiosk"
    _, notes = create(folder)
    assert any("no git history" in note and "git remote add cairn ADDRESS" in note for note in notes)
    assert git(folder, "status", "--porcelain") == "" and not (folder / ".venv").exists()
    assert git(folder, "rev-list", "--count", "HEAD") == "2" and not (unpacked / ".git").exists()
    with pytest.raises(BadInput, match="no git remote 'cairn'"):
        upgrade(folder)
    release = git(cairn, "rev-parse", "HEAD")
    (cairn / "one").touch()
    commit(cairn, "one")
    git(folder, "remote", "add", "cairn", str(cairn))
    with pytest.raises(BadInput, match=r"share no commit(.|\n)*--allow-unrelated-histories"):
        upgrade(folder)
    git(folder, "merge", "--quiet", "--allow-unrelated-histories", "--strategy", "ours", "--no-edit", release)
    assert upgrade(folder, say=lambda line: None) == 0 and (folder / "one").exists() and (folder / "PROJECT.md").exists()


def test_what_is_not_committed_in_cairn_is_said(cairn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "ROOT", cairn)
    (cairn / "tasks/sft/mine.py").touch()
    git(cairn, "remote", "add", "origin", "https://example.org/cairn.git")
    _, notes = create(tmp_path / "shop_of_mine")
    assert f"Not part of the project, since {cairn} has not committed it: tasks/sft/mine.py" in notes
    assert git(tmp_path / "shop_of_mine", "remote", "get-url", "cairn") == "https://example.org/cairn.git"


def test_nothing_is_left_of_a_project_that_could_not_be_made(cairn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "ROOT", cairn)
    (tmp_path / "kiosk").mkdir()
    git(cairn, "update-ref", "-d", "HEAD")
    with pytest.raises(BadInput):
        create(tmp_path / "kiosk")
    assert list((tmp_path / "kiosk").iterdir()) == []


def test_a_failed_migration_leaves_the_merge_to_be_continued(cairn: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the new version needs a package that is not installed yet."""
    edit(cairn, "flows/migrate.py", "import argparse\n", "import a_package_of_tomorrow\nimport argparse\n")
    edit(cairn, "pyproject.toml", 'version = "', 'version = "1')
    commit(cairn, "needs a package")
    with pytest.raises(StageFailed, match=r"No module named 'a_package_of_tomorrow'\n.*`make setup`(.|\n)*`cairn upgrade --continue`"):
        upgrade(project, say=lambda line: None)
    assert git(project, "rev-parse", "MERGE_HEAD")


def test_without_params_in_the_last_commit_no_merge_begins(cairn: Path, project: Path) -> None:
    (cairn / "one").touch()
    commit(cairn, "one")
    (project / "params/pipeline.yaml").unlink()
    commit(project, "no params")
    with pytest.raises(BadInput, match=r"params/pipeline\.yaml is in no commit"):
        upgrade(project, say=lambda line: None)
    assert not (project / ".git/MERGE_HEAD").exists() and not (project / "one").exists()


def test_a_remote_that_cannot_be_reached_is_told_by_gits_reason(project: Path) -> None:
    git(project, "remote", "set-url", "cairn", "/no/such/place")
    with pytest.raises(StageFailed, match=r"'/no/such/place' does not appear to be a git repository\. Nothing was changed\."):
        upgrade(project, say=lambda line: None)
