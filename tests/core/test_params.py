"""YAML as Cairn reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.params import read_yaml


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-5), ("1.0e-5", 1e-5), ("-2E+3", -2000.0), ("1e5x", "1e5x"), ("12", 12), ("1_0", 10)]
)
def test_numbers_are_those_that_dvc_writes(tmp_path: Path, text: str, value: object) -> None:
    """DVC writes 0.00001 into dvc.lock as 1e-05, a number in YAML 1.2 and a string in 1.1."""
    (tmp_path / "a.yaml").write_text(f"a: {text}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": value} and type(read_yaml(tmp_path / "a.yaml")["a"]) is type(value)
