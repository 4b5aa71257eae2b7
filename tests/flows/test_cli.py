"""The `cairn` command itself: its list, its help, what it makes of a mistake, completion, and its documents for scripts."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file

import flows
from flows import run
from flows.cli import group, main
from flows.cli.catalogue import COMMANDS
from flows.console import Console, tracked
from tasks.engine import sources
from tasks.engine.artifact import Store
from tests.base.outside import checkpoint
from tests.conftest import ROOT, Project, make_project

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("cli") / "project")


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """This process works in that project."""
    for module in (flows, run):
        monkeypatch.setattr(module, "PROJECT", project.folder)
        monkeypatch.setattr(module, "STATE", project.folder / ".cairn")
    return project


def document(capsys: Captured, *arguments: str, code: int = 0) -> Any:
    """The one JSON document that a command prints."""
    assert main(arguments) == code
    return json.loads(capsys.readouterr().out)


# --- the list and the help ---


def commands() -> Iterator[tuple[str, Any]]:
    """(what is typed after `cairn`, the command) of every command."""
    top: Any = typer.main.get_command(group._top)
    for name in COMMANDS:
        command = top.load(None, name)
        yield from (
            ((f"{name} {below}", one) for below, one in command.commands.items())
            if name in ("world", "chat", "claims")
            else [(name, command)]
        )


def test_every_command_has_examples_that_its_options_take() -> None:
    """Each says what it does, and shows at least one line that can be typed; the work itself is not begun here."""
    for name, command in commands():
        first, _, examples = command.help.partition("\n\nExamples:\n")
        assert first.endswith((".", "}")) and len(first) > 40, name
        typed = [re.split(r" {2,}| \| ", line.strip())[0] for line in examples.splitlines()]
        assert typed and all(line == f"cairn {name}" or line.startswith(f"cairn {name} ") for line in typed), (name, typed)
        for line in typed:
            command.make_context(name, shlex.split(line.removeprefix(f"cairn {name}")))


def test_a_command_that_a_message_names_has_its_options() -> None:
    """In the code's texts, between backquotes or as a whole text: what a person is told to type is taken."""
    wrong, seen = [], 0
    known = {name: {option for param in command.params for option in param.opts} | {"--help"} for name, command in commands()}
    for path in (path for top in ("flows", "tasks") for path in sorted((ROOT / top).rglob("*.py"))):
        for text in texts(path):
            for told in re.findall(r"`cairn ([a-z][^`]*)`", text) + re.findall(r"^cairn ([a-z].*?)(?:(?:  |:).*)?$", text):
                name = next((name for name in known if f"{told} ".startswith(f"{name} ")), None)
                named = [word.split("=")[0] for word in told.split() if word.startswith("--")] if name else []
                seen += len(named)
                wrong += [f"{path.relative_to(ROOT)}: cairn {told}" for option in named if option not in known[str(name)]]
    assert not wrong, "\n".join(wrong)
    assert seen > 40


def texts(path: Path) -> Iterator[str]:
    """Each string of a module, with x for what is put into it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_an_option_says_what_it_means_and_its_default(capsys: Captured) -> None:
    """Nothing in a command's help stands without words beside it."""
    for name in [*COMMANDS, "world new", "world draft", "world check", "world play"]:
        main([*name.split(), "-h"])
        text = capsys.readouterr().out
        for line in text[text.index("Options:") :].splitlines()[1:]:
            assert not line.startswith("  -") or re.match(r"  -.*\S {2,}\S", line), f"{name}: {line!r} says nothing"
    main(["world", "check", "-h"])
    assert re.search(r"--problems N +Problems of each split that are looked at, 1 or more\. +\[default: 105\]", capsys.readouterr().out)


def test_the_bare_command_shows_the_list(capsys: Captured) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0 and capsys.readouterr().out == bare
    assert [line[2:].split()[0] for line in bare[bare.index("Begin:") :].splitlines() if line.startswith("  ")] == list(COMMANDS)
    assert main(["world"]) == 0 and "prove a world" in capsys.readouterr().out


def test_help_loads_little() -> None:
    """The list of commands imports none of them: no heavy library, no pydantic, no rich where nobody sees it."""
    code = "import sys; from flows.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stderr.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert not roots & {"torch", "prefect", "mlflow", "transformers", "dvc", "pyarrow", "numpy", "pydantic", "yaml", "rich"}
    assert {name for name in loaded if name.startswith("flows.cli.")} == {"flows.cli.group", "flows.cli.catalogue"}
    assert len(loaded) < 400


def test_the_version(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and capsys.readouterr().out == f"cairn {version[1]} ({ROOT})\n"


# --- mistakes ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bnak", "pin"], "no command 'bnak'. Did you mean 'bank'?"),
        (["world", "chek"], "no command 'chek'. Did you mean 'check'? cairn world has: new, draft, check, play, export."),
        (["run", "--dryrun"], "run: No such option: --dryrun. Did you mean '--dry-run'? See `cairn run --help`."),
        (["--versoin"], "cairn: No such option: --versoin. Did you mean '--version'?"),
        (["run", "--to"], "run: Option '--to' requires an argument"),
        (["run", "--refresh", "sft", "--to", "sfft"], "--to 'sfft': no such stage. Did you mean 'sft'?"),
        (["run", "--refresh", "sft", "worldz"], "--refresh 'worldz': no such stage. Did you mean 'worlds'?"),
        (["run", "sft"], "run: Got unexpected extra argument(s) (sft)"),
        (["run", "--json"], "--json goes with --dry-run or --estimate"),
        (["merge", "recipe.yaml"], "merge: Missing argument 'FOLDER'"),
        (["merge", "a", "b", "--threads", "x"], "merge: Invalid value for '--threads'"),
        (["bank", "pinn"], "ACTION 'pinn': no such value. Did you mean 'pin'? Allowed: pin, grow."),
        (["export", "generate", "out", "--split", "tets"], "--split 'tets': no such value. Did you mean 'test'?"),
        (["export", "generate", "out", "--all", "--accepted"], "--accepted and --all"),
        (["methods", "merg"], "ROOM 'merg': no such value. Did you mean 'merge'?"),
        (["accept", "sft"], "accept: Missing option '--why'"),
    ],
)
def test_a_mistake_gets_the_nearest_name(arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and out == "" and all(line.startswith("cairn: ") for line in err.splitlines()), err


# --- completion ---


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("cairn wor", ["world"]),
        ("cairn run --to c", ["critique"]),
        ("cairn run --refresh d", ["decide"]),
        ("cairn accept ev", ["evaluate"]),
        ("cairn use smo", ["smoke"]),
        ("cairn run --dry", ["--dry-run"]),
        ("cairn run --set merge.method=breadcrumbs_", ["merge.method=breadcrumbs_ties"]),
        ("cairn export f", ["filter"]),
        ("cairn world ch", ["check"]),
        ("cairn world play tasks.worlds.library.retail:Retail --family forb", ["forbidden"]),
        ("cairn world check tasks.worlds.library.r", ["tasks.worlds.library.retail:Retail"]),
    ],
)
def test_the_shell_completes(typed: str, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("_CAIRN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == found


# --- documents ---


def test_documents_of_a_project(inside: Project, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    status = document(capsys, "status", "--json")
    assert set(status) == {"stages", "dvc_lock_behind", "alias_moved", "inherited"}
    assert status["stages"][0] == {"stage": "worlds", "cached": False, "artifact": None, "reasons": ["never ran here"], "params": []}
    dry = document(capsys, "run", "--to", "base", "--dry-run", "--json")
    assert [one["stage"] for one in dry["stages"]] == ["worlds", "base"]
    assert set(document(capsys, "run", "--estimate", "--json")) == {"estimates", "budget"}
    assert document(capsys, "champion", "--json") == {"champion": None, "decisions_meet": None, "difference": None, "alias_moved": None}
    assert set(document(capsys, "calls", "--json")) == {"file", "bytes", "answers", "paid", "odd"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{inside.folder}/.cairn/mlflow.db")
    monkeypatch.setenv("PREFECT_HOME", str(inside.folder / ".cairn/prefect"))
    code = main(["doctor", "--quick", "--json"])
    doctor = json.loads(capsys.readouterr().out)
    assert set(doctor) == {"errors", "warnings", "findings"} and set(doctor["findings"][0]) == {"part", "text", "severity", "remedy"}
    assert code == 0, [one for one in doctor["findings"] if one["severity"] == "error"]
    methods = document(capsys, "methods", "merge", "--json")
    assert {one["room"] for one in methods} == {"merge"} and {"name", "title", "paper", "slug", "summary"} <= set(methods[0])


def test_a_dry_run_says_what_a_run_would_refuse(inside: Project, capsys: Captured, tmp_path: Path) -> None:
    """The checkpoint is looked at, where a stage that reads it would run."""
    given = checkpoint(tmp_path / "model")
    about = f"{{source: '{given}', identity: {sources.identity_of(given, Store(tmp_path))}}}"
    changed = ("--set", "base.method=checkpoint", "--set", f"base.checkpoint={about}")
    wanted = ("run", "--dry-run", "--to", "base", *changed)
    found = document(capsys, *wanted, "--json", code=2)
    assert "drops the tools" in found["refused"] and [one["stage"] for one in found["stages"]] == ["worlds", "base"]
    assert main(wanted) == 2
    said = capsys.readouterr()
    assert "base      would run" in said.out and f"base.checkpoint.source = '{given}': its chat" in said.err
    assert document(capsys, "run", "--dry-run", "--only", "worlds", *changed, "--json")["refused"] == ""


def test_a_preview_as_a_document(inside: Project, capsys: Captured) -> None:
    made = document(
        capsys, "preview", "generate", "-n", "1", "--json", "--set", "worlds.freeze.modules=[tasks.worlds.library.retail:Retail]"
    )
    assert set(made) == {"blueprints", "trajectories", "gates", "spent"}
    assert {"status", "instruction", "fail_reason"} <= set(made["blueprints"][0])


def test_a_worlds_check_as_a_document(capsys: Captured, tmp_path: Path) -> None:
    """What the world's own code prints is no part of it."""
    (tmp_path / "loud.py").write_text(
        "print('hello')\nfrom tests.flows.shop import Shop as World\nclass Shop(World):\n    POLICY = ''\n"
    )
    found = document(capsys, "world", "check", "loud:Shop", "--folder", str(tmp_path), "--json", code=1)
    assert set(found) == {"title", "ok", "tools", "checks"} and found["ok"] is False
    assert {"name", "ok", "summary", "findings", "notes"} == set(found["checks"][0])
    assert any("POLICY is empty" in finding["what"] for finding in found["checks"][0]["findings"])


@pytest.mark.parametrize(("look", "code"), [("--dry-run", 2), ("--estimate", 0)])  # dvc.yaml does not know of this world's file
def test_a_world_that_prints_spoils_no_document(
    inside: Project, look: str, code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Params are checked by importing the worlds: what they print then goes to the error stream."""
    from tasks.worlds.api import loading

    loud = inside.folder / "talkative.py"
    loud.write_text("from tasks.worlds.library.retail import Retail as Shop\nprint('hello')\n")
    monkeypatch.setattr(loading, "PROJECT", inside.folder)
    monkeypatch.syspath_prepend(str(inside.folder))
    monkeypatch.delitem(sys.modules, "talkative", raising=False)
    assert main(["run", "--to", "worlds", look, "--json", "--set", "worlds.freeze.modules=[talkative:Shop]"]) == code
    said = capsys.readouterr()
    assert "hello" in said.err
    json.loads(said.out)
    loud.unlink()


def test_a_merge_as_a_table_and_as_a_document(tmp_path: Path, capsys: Captured) -> None:
    for number, name in enumerate(("base", "code", "chat")):
        (tmp_path / name).mkdir()
        save_file({"weight": np.full((4, 4), float(number), np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text("{}")
    recipe = {"method": "linear", "base": str(tmp_path / "base")}
    recipe["experts"] = {name: str(tmp_path / name) for name in ("code", "chat")}  # type: ignore[assignment]
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["merge", str(tmp_path / "recipe.yaml"), str(tmp_path / "one")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 tensors (0 copied), 16 parameters\n\nexpert ") and "{" not in text
    figures = document(capsys, "merge", str(tmp_path / "recipe.yaml"), str(tmp_path / "two"), "--json")
    assert figures["parameters"] == 16 and set(figures["experts"]) == {"code", "chat"}


# --- progress ---


class Screen(io.StringIO):
    """A terminal of 100 columns, as far as a program can tell."""

    def isatty(self) -> bool:
        return True


def test_bars_stand_under_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each part under way, with total and time left; a line goes above them; afterwards nothing is left of them."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Screen()
    console = Console(screen)
    console("rl", "started", {"method": "grpo"})
    for done, total, note in ((20, 400, "airline steps, reward 0.10"), (3, 1200, "retail steps, reward 0.20")):
        console("rl", "progress", {"done": done, "total": total, "note": note})
    drawn = screen.getvalue().split("\x1b[2K")[-1]  # since the last time a line was cleared
    first, second = re.sub(r"\x1b\[\??[0-9;]*[A-Za-z]", "", drawn).splitlines()
    assert re.match(r"rl +\S+ +20/400 .* left +airline steps, reward 0.10", first), first
    assert re.match(r"rl +\S+ +3/1200 .* left +retail steps, reward 0.20", second), second
    assert first.index("airline") == second.index("retail") and first.index("/400") + 4 == second.index("/1200") + 5
    console("rl", "note", {"note": "[bold] is no markup"})
    assert "rl        [bold] is no markup" in screen.getvalue()
    console("rl", "done", {"identity": "0123456789abcdef", "seconds": 2.0, "figures": {}})
    assert screen.getvalue().endswith("rl        done     0123456789ab in 2.0 s\n") and "\x1b[?25h" in screen.getvalue()


def test_lines_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped, progress is a plain line now and then; a terminal that can move no cursor gets the same."""
    monkeypatch.setenv("TERM", "dumb")
    for stream in (io.StringIO(), Screen()):
        Console(stream)("sft", "progress", {"done": 1, "total": 4, "note": "loss 0.5"})
        assert stream.getvalue() == "sft       1/4 loss 0.5\n"


def test_short_work_shows_nothing_and_long_work_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert list(tracked("abc", 3, "regrade", "conversations")) == ["a", "b", "c"] and capsys.readouterr().err == ""
    monkeypatch.setattr("flows.console.EVERY", -1.0)
    list(tracked("abc", 3, "regrade", "conversations"))
    assert capsys.readouterr().err.splitlines()[0] == "regrade   1/3 conversations"
