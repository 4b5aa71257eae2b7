"""What commands print: text for people, or one JSON document for scripts."""

from __future__ import annotations

import json
from typing import Any


def print_json(document: Any) -> None:
    """Print one document; what JSON has no word for (a path, a date, a set) is printed as text."""
    print(json.dumps(document, indent=1, ensure_ascii=False, default=str))
