"""The files that READMEs under tasks/ show: they pass the linter, the formatter and the type checker as they stand, in seconds.

That the methods among them run in their rooms is seen in tests/contract/test_examples.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.contract.methods import files_shown


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files at their places, with the settings of the tools and empty packages, by which ruff knows what is ours."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy2(ROOT / "pyproject.toml", folder)
    for package in ("flows", "infra", "tasks", "tests"):
        (folder / package).mkdir()
    for readme in sorted((ROOT / "tasks").glob("*/README.md")):
        for path, text in files_shown(readme).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    return folder


def passes(folder: Path, command: list[str]) -> None:
    program = str(Path(sys.executable).with_name(command[0]))
    answer = subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("how", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_what_readmes_show_is_written_as_all_else(shown: Path, how: list[str]) -> None:
    passes(shown, ["ruff", *how, "--no-cache", "."])


@pytest.mark.skipif(not (ROOT / ".mypy_cache").is_dir(), reason="before the first `make check`, types of all libraries take a minute")
def test_what_readmes_show_uses_what_is_there(shown: Path) -> None:
    """Names, parameters and types against the code as it is now. A folder of parts has its method's name, and mypy, which sees no package
    around the two, would take them for one module."""
    files = [str(path) for path in sorted((shown / "tasks").rglob("*.py")) if path.name != "__init__.py"]
    assert len(files) > 5
    passes(ROOT, ["mypy", *files])
