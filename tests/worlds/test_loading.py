"""A world's address is checked before anything of it is imported (law 9)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.api import loading
from tasks.worlds.api.loading import code_files, code_hash, own_files, project_code, reached_code, world_class


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tasks.worlds.library.retail", "not of the form 'package.module:Class'"),
        ("../retail:Retail", "not of the form 'package.module:Class'"),
        (
            "tasks.worlds.retial:Retail",
            "'tasks.worlds.retial:Retail': No module named 'tasks.worlds.retial'. Did you mean 'tasks.worlds.library.retail:Retail'?",
        ),
        ("tasks.worlds.library.retail:Retial", "has no class 'Retial'. Did you mean 'Retail'?"),
        ("tasks.worlds.library.retail:PHRASES", "has no class 'PHRASES'"),
        ("os:environ", "package 'os' lies outside the project folder"),
        ("numpy:ndarray", "add 'numpy' to worlds.allow (now: [])"),
        ("no_such_package_anywhere:World", "there is no package 'no_such_package_anywhere'"),
    ],
)
def test_bad_addresses_say_what_to_do(address: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        world_class(address)
    assert says in str(caught.value)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A package elsewhere on the path that leaves a trace when it is imported."""
    folder = tmp_path / "elsewhere_shop"
    folder.mkdir()
    trace = f"from pathlib import Path\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    (folder / "__init__.py").write_text(trace + "class Shop:\n    pass\n")
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere_shop"]:
        del sys.modules[name]


def test_a_package_outside_is_not_even_imported_unless_allowed(outside: Path) -> None:
    with pytest.raises(BadInput, match="outside the project folder"):
        world_class("elsewhere_shop:Shop")
    assert not (outside / "imported").exists()
    assert world_class("elsewhere_shop:Shop", allow=["elsewhere_shop"]).__name__ == "Shop"


def test_a_world_that_cannot_be_imported_names_the_line_of_its_own(outside: Path) -> None:
    """Also where the name that is missing is one of Cairn's: it is the world that has to be changed."""
    (outside / "elsewhere_shop/phrases.py").write_text("SIZE = 1\nfrom tasks.contract.values import NO_SUCH_NAME\n")
    (outside / "elsewhere_shop/world.py").write_text("from elsewhere_shop import phrases\nclass Shop: ...\n")
    imports = (
        r"phrases\.py:2: ImportError: cannot import name 'NO_SUCH_NAME' from 'tasks\.contract.*worlds/README\.md says what changed"
    )
    with pytest.raises(BadInput, match=imports):
        world_class("elsewhere_shop.world:Shop", allow=["elsewhere_shop"])
    (outside / "elsewhere_shop/phrases.py").write_text("SIZE = 1\nimport tasks.no_such_module\n")
    with pytest.raises(BadInput, match=r"phrases\.py:2: No module named 'tasks\.no_such_module'.*what changed"):
        world_class("elsewhere_shop.world:Shop", allow=["elsewhere_shop"])


def test_an_environment_inside_the_project_is_outside() -> None:
    """numpy may well lie in .venv/ below the project folder."""
    assert not loading._in_project(loading.PROJECT / ".venv" / "lib" / "python3" / "site-packages" / "numpy")
    assert not loading._in_project(loading.PROJECT.parent)
    assert loading._in_project(loading.PROJECT / "my_shop")


def test_the_hash_covers_every_file_of_the_package(outside: Path) -> None:
    world_class("elsewhere_shop:Shop", allow=["elsewhere_shop"])
    before = code_hash("elsewhere_shop:Shop")
    (outside / "elsewhere_shop" / "prices.json").write_text("{}")
    after = code_hash("elsewhere_shop:Shop")
    assert before != after and set(own_files("elsewhere_shop:Shop")) == {
        "elsewhere_shop/__init__.py",
        "elsewhere_shop/prices.json",
    }
    (outside / "elsewhere_shop" / "__pycache__").mkdir(exist_ok=True)
    (outside / "elsewhere_shop" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert code_hash("elsewhere_shop:Shop") == after


def test_the_hash_covers_what_plays_a_world_and_names_no_place() -> None:
    files = set(code_files("tasks.worlds.library.retail:Retail"))
    assert {
        "tasks.worlds.library.retail/policy.md",
        "tasks.worlds.library.retail/api.py",
        "tasks.worlds.api/grading.py",
        "tasks.worlds.api/prompts/agent.jinja",
        "tasks.contract/values.py",
    } <= files
    assert not any(name.startswith(("tasks.worlds.library.airline", "tasks.worlds.adapters", "/")) for name in files)


def test_code_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that a world reaches, also lazily: with its line when it is no Python; in whatever encoding it declares."""
    (tmp_path / "shop.py").write_text("def look():\n    import half\n    import latin\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nNAME = '\xe9'\nimport far\n")
    (tmp_path / "far.py").write_text("")
    (tmp_path / "half.py").write_text("SIZE = 1\ndef (\n")
    with pytest.raises(BadInput, match=r"half\.py, line 2: not valid Python \(invalid syntax\)"):
        reached_code(["shop"], tmp_path)
    (tmp_path / "half.py").write_text("")
    assert {"shop", "half", "latin", "far"} <= reached_code(["shop"], tmp_path).keys()


def test_a_folder_of_a_world_is_no_link(tmp_path: Path) -> None:
    """A link to a file is read through; what lies in a linked folder would change unseen."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/rows.jsonl").write_text("{}\n")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/rows.jsonl").symlink_to(tmp_path / "rows/rows.jsonl")
    assert "shop/rows.jsonl" in project_code(["shop"], tmp_path)
    (tmp_path / "shop/rows").symlink_to(tmp_path / "rows")
    with pytest.raises(BadInput, match=r"shop/rows is a link to a folder"):
        project_code(["shop"], tmp_path)


def test_a_module_that_ends_the_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without a guard: with its exit code 0 a command would end green with nothing done."""
    (tmp_path / "script_shop.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=r"script_shop ends the program while it is imported"):
        world_class("script_shop:Shop", allow=["script_shop"])
