"""The generated parts of README.md: the table of methods and papers, and the tree. `make docs` writes them, a test compares them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from tasks.engine.methods import everything

ROOT = Path(__file__).resolve().parent.parent
PHRASES = {
    "dvc.yaml": "the road for DVC, top-down",
    "params/": "pipeline.yaml (active), profiles/, versions.yaml, roles.lock",
    "flows/": "",
    "tasks/": "",
    "tests/": "architecture, contract, one folder per room, flows, reliability",
    "infra/": "",
}


def methods_table() -> str:
    """One line per method: room, name, title, paper."""
    lines = ["| room | method | what | paper |", "|---|---|---|---|"]
    for one in everything():
        paper = f"[{one.paper.rsplit('/', 1)[-1]}]({one.paper})" if one.paper else "-"
        lines.append(f"| {one.stage} | `{one.name}` | {one.title} | {paper} |")
    return "\n".join(lines)


def tree() -> str:
    """The layout, with the first sentence of each module or package."""
    lines = []
    for name, phrase in PHRASES.items():
        path = ROOT / name
        lines.append(f"{name:<26}{phrase}".rstrip())
        if phrase or not path.is_dir():
            continue
        for child in sorted(path.iterdir(), key=lambda one: (one.is_dir(), one.name)):
            said = _said(child)
            if said:
                label = child.name + ("/" if child.is_dir() else "")
                lines.append(f"  {label:<24}{said}")
    return "```\n" + "\n".join(lines) + "\n```"


def _said(path: Path) -> str:
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix != ".py" or not source.is_file() or path.name == "__init__.py":
        return ""
    doc = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").replace("\n", " ")
    return re.split(r"(?<=[.:;])\s", doc)[0].rstrip(".:;")


def current(text: str) -> str:
    """README text with its generated parts made anew."""
    for name, make in (("methods", methods_table), ("tree", tree)):
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no part '<!-- {name}: generated -->'")
        text = pattern.sub(lambda found, make=make: found[1] + make() + chr(10) + found[2], text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    if "--write" in sys.argv:
        readme.write_text(current(readme.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.exit(0 if current(readme.read_text(encoding="utf-8")) == readme.read_text(encoding="utf-8") else 1)
