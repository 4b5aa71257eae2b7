"""`cairn world new`, `check` and `play`: what is written works, what is wrong is said, and a person can take either seat."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.templates import test_world as template_tests
from flows.worlds.new import LIBRARY, WORLD, address, class_name, write
from flows.worlds.play import call_of, play_one, value_of
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.problem import Problem
from tasks.contract.schemas import BLUEPRINT, TRAJECTORY
from tasks.contract.tables import read_rows
from tasks.contract.trajectory import Trajectory
from tasks.generate import Inputs, apigen_mt
from tasks.players import roles
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import tools_of
from tasks.worlds.library.library.services import SERVICES
from tasks.worlds.library.library.world import Library
from tests.conftest import Project, make_project
from tests.playing import playing

HOME = LIBRARY.replace(".", "/")
SHOP = address("my_shop", "Shop")

# --- the world that is copied ---


def test_its_own_tests_pass() -> None:
    """What the user's copy is tested with holds for the original."""
    template_tests.test_a_renewal_by_hand()
    template_tests.test_what_the_api_refuses()
    template_tests.test_the_world_is_sound()


def test_it_goes_through_the_generate_room(tmp_path: Path) -> None:
    """Frozen, loaded again, and taken as retail is: blueprints are proven by every stage, and most conversations are kept."""
    folder, out = tmp_path / "worlds", tmp_path / "out"
    freeze_world(World.build(Library, 40, 0, "tasks.worlds.library.library.world:Library"), folder / "library")
    assert load(folder / "library").name == "library"
    out.mkdir()
    ctx = Context(seed=0, out=out, scratch=tmp_path, **playing(roles.maker({}, folder, 0)))
    apigen_mt.run(Inputs(folder), apigen_mt.Params(problems=24, round_size=12, shard_size=12), ctx)
    accepted = [row for row in read_rows(out / "blueprints.parquet", BLUEPRINT) if row["status"] == "accepted"]
    assert len(accepted) >= 20 and {"renew_loan", "pay_fee", "reserve_title"} <= {
        call["name"] for row in accepted for call in row["actions"]
    }
    played = list(read_rows(out / "trajectories.parquet", TRAJECTORY))
    assert sum(row["reward"] for row in played) >= 0.95 * len(played) > 0


# --- new ---


def test_new_replaces_every_name(tmp_path: Path) -> None:
    """The package, the class and the world's name, in code that is otherwise the library's."""
    files = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in write("my_shop", "Shop", tmp_path)}
    assert sorted(files) == [
        *(f"my_shop/{name}" for name in ("__init__.py", "policy.md", "services.py", "world.py")),
        "tests/test_my_shop.py",
    ]
    for name, text in files.items():
        assert "worlds.library.library" not in text and "Library" not in text.replace("# Library desk", "")
        if name.endswith(".py"):
            ast.parse(text)
    assert 'NAME = "my_shop"' in files["my_shop/world.py"] and "class Shop:" in files["my_shop/world.py"]
    assert "from my_shop.world import Shop" in files["tests/test_my_shop.py"]
    back = files["my_shop/world.py"].replace('"my_shop"', '"library"').replace("my_shop", "tasks.worlds.library.library")
    assert back.replace("class Shop:", "class Library:") == (WORLD / "world.py").read_text()


def test_a_class_is_named_after_the_package() -> None:
    assert [class_name(name) for name in ("my_shop", "bike_rental", "clinic", "my", "_x")] == [
        "Shop",
        "BikeRental",
        "Clinic",
        "My",
        "X",
    ]


@pytest.mark.parametrize(
    ("package", "cls", "says"),
    [
        ("my-shop", "", "not a name for a Python package (letters, digits and underscores). Did you mean 'my_shop'?"),
        ("2shops", "", "not a name for a Python package"),
        ("class", "", "not a name for a Python package"),
        ("a.b", "", "Did you mean 'a_b'?"),
        ("json", "", "a module of this name is installed or lies in the project already"),
        ("numpy", "", "a module of this name is installed"),
        ("tasks", "", "a module of this name is installed or lies in the project already"),
        ("retail", "", "a built-in world has this name"),
        ("my_shop", "a shop", "--class 'a shop': not a name for a Python class, such as Shop."),
        ("my_shop", "State", "--class 'State': world.py uses this name for something else. Take another one, such as StateWorld."),
        ("my_list", "list", "--class 'list': world.py uses this name for something else."),
    ],
)
def test_new_refuses_names(tmp_path: Path, package: str, cls: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        write(package, cls, tmp_path)
    assert says in str(caught.value) and list(tmp_path.iterdir()) == [], "nothing is written"


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_my_shop.py").write_text("mine")
    with pytest.raises(BadInput, match=r"test_my_shop.py exists already. Take another name, or another --folder."):
        write("my_shop", "", tmp_path)
    assert not (tmp_path / "my_shop").exists() and (tmp_path / "tests/test_my_shop.py").read_text() == "mine"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a world that `cairn world new` has written."""
    found = make_project(tmp_path_factory.mktemp("worlds") / "project")
    said = found.cairn("world", "new", "my_shop").stdout
    assert f"{HOME}/my_shop/world.py" in said.splitlines() and f"cairn world check {SHOP}" in said
    assert f'worlds.freeze.modules: ["{SHOP}"]' in said and "dvc.yaml" not in said
    return found


def test_what_new_writes_is_sound(project: Project) -> None:
    """By the command and by the tests that it writes."""
    said = project.cairn("world", "check", SHOP, "--size", "20", "--problems", "20").stdout
    assert said.startswith(f"{SHOP}, 20 users, seed 0\n") and said.endswith("Every check holds.\n")
    assert "[weeks: integer]" in said and 'branch: "north" or "south"' in said and "How many weeks; two when left out." in said
    answer = project.run(sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "tests/test_my_shop.py")
    assert "..." in answer.stdout and answer.returncode == 0


def test_a_fault_is_an_exit_code_and_a_line(project: Project) -> None:
    """A world of one's own with a fault: 1, the file and the line as an editor opens them."""
    path = project.folder / HOME / "my_shop/world.py"
    text = path.read_text()
    lines = text.splitlines()
    where = next(number for number, line in enumerate(lines, 1) if 'return {"free": row["free"]}' in line)
    path.write_text(text.replace('return {"free": row["free"]}', 'return {"free": row["free"], "at": __import__("time").time()}'))
    try:
        answer = project.cairn("world", "check", SHOP, "--size", "12", "--problems", "8", check=False)
    finally:
        path.write_text(text)
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    assert f"{HOME}/my_shop/world.py:{where}  tool get_title reads the clock: it calls time.time" in answer.stdout
    assert "checks failed: determinism, processes, clock" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("check", f"{SHOP}p"), "has no class 'Shopp'. Did you mean 'Shop'?"),
        (("check", "no_shop.world:Shop"), "there is no package 'no_shop'"),
        (("check", SHOP, "--size", "2"), "--size 2: at least 3."),
        (("check", "my_shop.world:Shop", "--folder", "params"), "--folder params: holds no package 'my_shop'"),
        (("check", "json:JSONDecoder"), "package 'json' lies outside the project folder"),
        (("play", SHOP, "--family", "one_wrte"), "no family 'one_wrte'. Did you mean 'one_write'?"),
        (("new", "my_shop"), f"{HOME}/ holds a module of this name already"),
    ],
)
def test_mistakes_of_a_user(project: Project, arguments: tuple[str, ...], says: str) -> None:
    answer = project.cairn("world", *arguments, check=False)
    assert answer.returncode == 2 and says in answer.stderr and "Traceback" not in answer.stderr


def test_a_module_that_cannot_be_imported(project: Project) -> None:
    (project.folder / HOME / "my_broken").mkdir()
    (project.folder / HOME / "my_broken/__init__.py").write_text("")
    (project.folder / HOME / "my_broken/world.py").write_text("class Shop:\n    NAME = 1 / 0\n")
    answer = project.cairn("world", "check", f"{LIBRARY}.my_broken.world:Shop", check=False)
    assert answer.returncode == 2
    assert f"it cannot be imported: {HOME}/my_broken/world.py:2: ZeroDivisionError: division by zero" in answer.stderr


# --- play ---


@pytest.fixture(scope="module")
def library() -> World:
    return World.build(Library, 30, 0, "tasks.worlds.library.library.world:Library")


def problem_of(world: World, family: str, seed: int) -> Problem:
    return draw_problems(world, "train", 1, seed, [family])[0]


def played(world: World, seat: str, family: str, seed: int, lines: list[str]) -> tuple[Trajectory, str]:
    """The trajectory and everything that was printed. The lines end like a pipe."""
    given: Iterator[str] = iter(lines)
    said: list[str] = []

    def read(prompt: str) -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    return play_one(world, seat, "train", family, seed, read, said.append), "\n".join(said)


def test_a_person_as_the_agent(library: World) -> None:
    """Calls in both spellings, a mistake of each kind, a reply with the outputs: solved, with the parts of the grading."""
    task = problem_of(library, "information", 3)
    find, look = task.actions
    name, zip_code = find.arguments["name"], find.arguments["zip"]
    ((key, value),) = look.arguments.items()
    lines = [
        f'find_user name="{name}" zip={zip_code}',
        "/state",
        "/tols",
        "find_usr name=x zip=1",
        f"{look.name} {value} please",
        '{"name": "get_loan"}',
        json.dumps({"name": look.name, "arguments": {key: value}}),
        f"/say {look.name} says {task.outputs[0]}. Anything else?",
    ]
    talk, said = played(library, "agent", "information", 3, lines)
    assert talk.outcome is not None and talk.outcome.reward == 1 and talk.stop == "user_stop"
    assert [action.name for action, _ in talk.calls] == [find.name, look.name]
    for line in (
        "Library desk",
        "read   find_user(name: string, zip: string)",
        "user>  ",
        f'find_user answers {{"user_id": "{task.lineage[0]}"',
        "nothing has changed",
        "no command /tols. Did you mean '/tools'?",
        "no tool 'find_usr'. Did you mean 'find_user'?",
        f"not a call of {look.name}: write {look.name} argument=value ...",
        'not a call: write {"name": ..., "arguments": {...}}',
        "ended by  user_stop",
        "state     1\n",
        f"outputs   1  wanted: {task.outputs[0]}",
        "reward    1  (state x outputs x required)\nchanged:\n  nothing",
    ):
        assert line in said, line


def test_a_write_without_a_yes_is_shown_with_its_rule(library: World) -> None:
    """State and diff of what was done; the broken rule in the policy's words."""
    task = problem_of(library, "one_write", 5)
    lines = [f"{action.name} " + " ".join(f'{name}="{value}"' for name, value in action.arguments.items()) for action in task.actions]
    talk, said = played(library, "agent", "one_write", 5, [*lines, "/quit"])
    assert talk.stop == "quit" and talk.outcome is not None and talk.outcome.state == 1 and talk.outcome.broken == ("R3",)
    assert "broken: R3\n  R3: Before every call that changes something" in said
    assert "changed:\n  " + library.replay(task.actions).diff.splitlines()[0] in said and "wanted:\n" not in said


def test_a_person_as_the_user(library: World) -> None:
    """The person says the wish, and yes; the scripted teacher's calls are shown."""
    task = problem_of(library, "one_write", 5)
    (request,) = task.intent["requests"]
    phrases = SERVICES.phrases
    wish = phrases.say(phrases.wishes[request["kind"]].open[0], request["slots"])
    lines = ["/problem", f"I am {task.intent['name']}, zip {task.intent['zip']}. {wish}", "Yes.", "/state"]
    talk, said = played(library, "user", "one_write", 5, lines)
    assert talk.outcome is not None and talk.outcome.reward == 1 and talk.outcome.policy == 1.0 and talk.stop == "user_stop"
    assert said.count(task.instruction) == 2, "at the start, and for /problem"
    assert f"  the agent calls find_user {json.dumps(task.actions[0].arguments)}" in said and "agent>  " in said
    assert said.count(library.replay(task.actions).diff.splitlines()[0]) == 2, "/state, and at the end"


def test_hanging_up_at_once_is_no_conversation(library: World) -> None:
    talk, said = played(library, "user", "one_write", 5, [])
    assert talk.stop == "human_error" and "state     0  not what the ground truth makes" in said and "wanted:\n" in said


def test_a_typed_value_is_read_as_its_schema_means_it() -> None:
    tools = tools_of(Library)
    assert call_of("renew_loan loan_id=L12 weeks=3", tools) == ("renew_loan", {"loan_id": "L12", "weeks": 3})
    assert call_of("renew_loan loan_id=L12 weeks=many", tools) == ("renew_loan", {"loan_id": "L12", "weeks": "many"})
    assert call_of("get_title title='Blue Lake'", tools) == ("get_title", {"title": "Blue Lake"})
    assert call_of("find_user", tools) == ("find_user", {}) and call_of("Hello, a = b", tools) is None
    assert value_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null") is None
    assert value_of({"type": "integer", "enum": [1, 2]}, "2") == 2 and value_of({"type": "array"}, '["a"]') == ["a"]
    assert value_of({"type": "boolean"}, "true") is True and value_of({"type": "string"}, "12") == "12"


def test_a_world_without_scripts_has_nobody_in_the_other_seat() -> None:
    world = World.build(type("Silent", (Library,), {"SCRIPTS": None, "__module__": Library.__module__}), 12, 0)
    with pytest.raises(BadInput, match="world library has no SCRIPTS, so nobody plays the other seat"):
        played(world, "agent", "", 0, [])


def test_play_through_a_pipe(project: Project) -> None:
    """The command itself, with lines from a pipe; the prompts go to the same stream."""
    answer = subprocess.run(
        [sys.executable, "-m", "flows.cli", "world", "play", SHOP, "--seat", "agent", "--seed", "1"],
        cwd=project.folder,
        env=project.environment,
        input="/policy\nHow can I help you?\n/quit\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("R1. Find the member") == 2 and "ended by  quit" in answer.stdout
