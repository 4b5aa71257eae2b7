"""What of TRL that is not public API is leaned on: its names move from release to release, so they are few, and they are listed here."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import ROOT

LEANED_ON = {
    "chat_templates": "the folder of its templates: training variants, and the grid of `make bench-chat`",
    "chat_template_utils.supports_tool_calling": "which of them write tools, as `make bench-chat` counts them",
    "chat_template_utils.qwen3_template": "the parser that its own environment test needs",
}
"""At most three."""


def test_no_more_than_these_private_names_of_trl() -> None:
    found: set[str] = set()
    for folder in ("flows", "tasks", "infra", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "trl." in text or '"chat_templates"' in text else ():
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl."):
                    found |= {f"{(node.module or '').removeprefix('trl.')}.{name.name}" for name in node.names}
                if isinstance(node, ast.Import):
                    found |= {name.name.removeprefix("trl.") for name in node.names if name.name.startswith("trl.")}
                if isinstance(node, ast.Constant) and node.value == "chat_templates":
                    found.add("chat_templates")
    assert found == set(LEANED_ON) and len(LEANED_ON) <= 3


def test_they_are_there_in_the_locked_release() -> None:
    """Read, not imported: that takes seconds."""
    spec = find_spec("trl")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    assert len(list((folder / "chat_templates").glob("*_training.jinja"))) > 20
    names = {getattr(node, "name", "") for node in ast.parse((folder / "chat_template_utils.py").read_text("utf-8")).body}
    names |= {line.split(" = ")[0] for line in (folder / "chat_template_utils.py").read_text("utf-8").splitlines() if " = " in line}
    assert {name.rpartition(".")[2] for name in LEANED_ON if "." in name} <= names
