"""The champion's evidence as an input file: what evaluate and decide may know of the registry.

The file changes only when a run meets a candidate that is not the champion itself, so that a promotion does not make its own
decision stale, and a second run has nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.params import read_yaml

CHAMPION = "params/champion.yaml"


def read(path: Path) -> Mapping[str, Any] | None:
    """The champion's evidence (identity, version, pass_1 by world), or None when the file says none."""
    evidence = read_yaml(path)["champion"]
    return None if evidence == "none" else evidence
