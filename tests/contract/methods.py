"""What a method brings along for its tests, and the methods that the rooms' READMEs show."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


def smoke_params(stage: str, name: str, project: Path = ROOT) -> dict[str, Any]:
    """`SMOKE` of tests/<stage>/test_<name>.py: params that make the method quick on tiny inputs. Without one, its defaults are."""
    for node in ast.parse((project / "tests" / stage / f"test_{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "SMOKE":
            found: dict[str, Any] = ast.literal_eval(node.value)
            return found
    return {}


def files_shown(readme: Path) -> dict[str, str]:
    """Path -> text of each block of Python in a README that begins with a comment of nothing but a path."""
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def examples() -> list[tuple[str, str]]:
    """(stage, name) of the methods that the rooms' READMEs show whole."""
    shown = [path for readme in sorted((ROOT / "tasks").glob("*/README.md")) for path in files_shown(readme)]
    found = [re.fullmatch(r"tasks/(\w+)/(\w+)\.py", path) for path in shown]
    return [(one[1], one[2]) for one in found if one]
