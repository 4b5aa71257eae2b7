"""`cairn import`: files of conversations are looked at, and the params take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import importing
from tasks.contract.params import BadInput, read_yaml
from tests.conftest import Project

TALK = [
    {"role": "user", "content": "Hello, I am ada@example.org."},
    {"role": "assistant", "content": "Good day. How can I help?"},
    {"role": "user", "content": "Not at all, thank you."},
    {"role": "assistant", "content": "Goodbye."},
]


def test_files_become_the_rows_of_a_stage(project: Project, tmp_path: Path) -> None:
    """Dry, nothing is written; then the params name them, and their comments stay."""
    pipeline = project.folder / "params" / "pipeline.yaml"
    before = pipeline.read_text(encoding="utf-8")
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text(f"{json.dumps({'messages': TALK, 'domain': 'retail'})}\n" * 3, encoding="utf-8")
    names = [str(tmp_path / name) for name in ("one.jsonl", "two.jsonl")]
    dry = project.cairn("import", *names, "--world", "retail", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "6 conversations: 6 taken, 0 left out" in dry.stdout
    assert "email" in dry.stdout
    assert pipeline.read_text(encoding="utf-8") == before
    done = project.cairn("import", *names, "--world", "retail", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["conversations"]["kept"] == 6
    section = read_yaml(pipeline)["generate"]
    assert (section["method"], section["imported"]["world"]) == ("imported", "retail")
    assert section["imported"]["identity"].endswith(".dir")
    assert set(line for line in before.splitlines() if line.startswith("#")) <= set(pipeline.read_text(encoding="utf-8").splitlines())
    status = project.cairn("run", "--to", "generate", "--dry-run")
    assert status.returncode == 0, status.stderr
    (tmp_path / "one.jsonl").open("a").write("\n{}\n")  # a hard link of it lies in the project's state
    changed = project.cairn("run", "--to", "generate", "--dry-run", check=False)
    assert changed.returncode == 2 and "the bytes of" in changed.stderr


def test_what_cannot_be_put_together_is_named(tmp_path: Path) -> None:
    """A place where nothing lies; two files of one name; a folder beside files."""
    with pytest.raises(BadInput, match=r"nothing lies there"):
        importing._together([tmp_path / "none.jsonl"])
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.jsonl", tmp_path / "a" / "x.jsonl"):
        path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"two of the files are called 'x.jsonl'"):
        importing._together([tmp_path / "x.jsonl", tmp_path / "a" / "x.jsonl"])
