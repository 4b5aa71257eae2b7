"""What all benchmarks share: a readable table, one line of JSON, and the same in reports/bench/<name>.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def publish(name: str, figures: Sequence[tuple[str, float]], sizes: Mapping[str, Any]) -> None:
    """Print the figures and write them down with sizes and versions."""
    width = max(len(label) for label, _ in figures)
    for label, value in figures:
        print(f"{label:<{width}}  {value:10.4g}")
    record = {
        "bench": name,
        "figures": {label: float(f"{value:.6g}") for label, value in figures},
        "sizes": dict(sizes),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in ("prefect", "dvc", "torch", "transformers")},
    }
    target = ROOT / "reports" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
