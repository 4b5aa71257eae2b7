"""The text of a frozen world's files: written the same way every time, read with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput


def pretty(value: Any) -> str:
    """JSON for people and for diffs: sorted keys, one entry a line."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def table_lines(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables as JSON with one row a line: readable, and good for text diffs. Rows keep their order, fields too."""
    parts = []
    for name, rows in tables.items():
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row, ensure_ascii=False)}" for key, row in rows.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_json(path: Path) -> Any:
    """The JSON of one file of a frozen world; BadInput says what to do when it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {path.parent} is not a frozen world. Run the step that freezes worlds first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not readable as JSON ({error}). Run the step that froze it again.") from None
