"""The report's charts as pictures that stand alone, for pages that are not ours: Markdown shows them without a file or a server."""

from __future__ import annotations

import base64
import re
from pathlib import Path

ENLARGED = 1.25
"""Pixels for a unit of a chart; ours, so that its text is as large as the text around it."""


def style() -> str:
    """Colours and rules of the charts, as CSS; the report's page has them as well."""
    return Path(__file__).with_name("charts.css").read_text(encoding="utf-8")


def data_url(chart: str) -> str:
    """A chart of `charts`, as a data: URL of an SVG with its colours and a background of its own. Its marks say no numbers there: a
    pointer does not reach into a picture."""
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', chart)[0])
    size = f"width:{ENLARGED * width:.0f}px;height:{ENLARGED * height:.0f}px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" style="{size}"'
    ground = f'<style>{style()}</style><rect width="{width}" height="{height}" class="ground"/>'
    drawn = re.sub(r"<title>.*?</title>", "", chart, flags=re.DOTALL)
    drawn = re.sub(r"<svg([^>]*)>", rf"{head}\1>{ground}", drawn, count=1)
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
