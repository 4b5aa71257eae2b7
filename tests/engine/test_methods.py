"""The code of methods is read in threads side by side (a served flow's, the shards'): one file at a time is parsed."""

from __future__ import annotations

import ast
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.engine import methods
from tasks.worlds.api import imports


def test_no_two_threads_parse_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's parser counts its depth for all threads together (gh-106905), and raises SystemError when two mix."""
    (tmp_path / "one.py").write_text("import os\nTITLE = 'x'\n")
    parse, inside, most = ast.parse, 0, 0

    def slow(text: str) -> ast.Module:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return parse(text)

    monkeypatch.setattr(ast, "parse", slow)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(imports.imports, tmp_path / "one.py", "one") for _ in range(4)]
        constants = [pool.submit(methods._constants, tmp_path / "one.py") for _ in range(4)]
    assert [one.result() for one in found] == [("os",)] * 4
    assert [one.result() for one in constants] == [{"TITLE": "x"}] * 4
    assert most == 1
