"""The generated parts of the READMEs (methods, layers, files, claims) and the pages of papers: `make docs` writes, a test compares."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.claims import page
from tasks.engine.methods import everything

ROOT = Path(__file__).resolve().parent.parent


def methods_table() -> str:
    """One line per method: room, name, title, paper."""
    lines = ["| room | method | what | paper |", "|---|---|---|---|"]
    for one in everything():
        paper = f"[{one.paper.rsplit('/', 1)[-1]}]({one.paper})" if one.paper else "-"
        lines.append(f"| {one.room} | `{one.name}` | {one.title} | {paper} |")
    return "\n".join(lines)


def layers() -> str:
    """The layers of import-linter's contract, top to bottom, with what each is."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["type"] == "layers")
    lines = []
    for layer in contract["layers"]:
        modules = layer.split(" | ")
        names = " ".join(module.removeprefix("tasks.") for module in modules)
        phrase = "the rooms" if len(modules) > 2 else _first_sentence(ROOT / modules[0].replace(".", "/"))
        lines.append(f"{names}\n    {phrase}")
    return "```\n" + "\n".join(lines) + "\n```"


def tree(name: str) -> str:
    """What lies in a folder, with the first sentence of each module or package."""
    lines = []
    for child in sorted((ROOT / name).iterdir(), key=lambda one: (one.is_dir(), one.name)):
        if phrase := _first_sentence(child):
            lines.append(f"{child.name + ('/' if child.is_dir() else ''):<24}{phrase}")
    return "```\n" + "\n".join(lines) + "\n```"


def _first_sentence(path: Path) -> str:
    """Of the docstring of a module or package; "" for what is neither."""
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.is_file() or path.suffix not in ("", ".py") or path.name == "__init__.py":
        return ""
    doc = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").replace("\n", " ")
    return re.split(r"(?<=[.:;])\s", re.sub(r"^Room \w+: ", "", doc))[0].rstrip(".:;")


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "tasks/README.md": {"methods": methods_table, "layers": layers, "tree tasks": partial(tree, "tasks")},
    "flows/README.md": {"tree flows": partial(tree, "flows")},
    "flows/papers/README.md": {"verdicts": page.meanings, "papers": page.index},
    "infra/README.md": {"tree infra": partial(tree, "infra")},
}
"""File -> what stands between `<!-- NAME: generated -->` and `<!-- end -->` in it."""


def current(file: str) -> str:
    """The text of a README with its generated parts made anew."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, make in PARTS[file].items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.S)
        if not pattern.search(text):
            raise SystemExit(f"{file} has no part '<!-- {name}: generated -->'")
        text = pattern.sub(lambda found, make=make: found[1] + make() + chr(10) + found[2], text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    for readme in PARTS:
        new = current(readme)
        if new != (ROOT / readme).read_text(encoding="utf-8"):
            print(f"{readme}: its generated parts are made anew")
            (ROOT / readme).write_text(new, encoding="utf-8")
    for path in page.write():
        print(f"{path}: made anew, or removed because no results need it")
