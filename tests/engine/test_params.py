"""YAML as Cairn reads it, params on top of each other, and what a message says of a wrong value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from tasks.contract.params import BadInput, Params, parse_yaml, read_yaml, validate
from tasks.engine.dotted import overlay, parse_override
from tasks.engine.settings import load
from tests.conftest import ROOT

VALUES = [
    "1e-05",
    "1.0e-5",
    "-2E+3",
    "1e5x",
    "12",
    "1_0",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "True",
    "tRue",
    "1:30",
    "190:20:30",
    "1:30.5",
    "010",
    "0o10",
    "08",
    "0x1F",
    "0b11",
    "~",
    "null",
    ".5",
    "5.",
    "+1",
    "-0",
    "0.1.2",
    "'010'",
    "[]",
    "{}",
]


@pytest.mark.parametrize("text", VALUES)
def test_values_are_read_as_dvc_reads_them(tmp_path: Path, text: str) -> None:
    """Two drivers, one truth: YAML 1.1 takes `yes` for true, 1:30 for 90, 010 for 8 and 1e-05 for text."""
    from dvc.utils.serialize import load_yaml

    (tmp_path / "a.yaml").write_text(f"a: {text}\n")
    ours, theirs = read_yaml(tmp_path / "a.yaml")["a"], load_yaml(str(tmp_path / "a.yaml"))["a"]
    assert ours == theirs and type(ours) is type(theirs)


def test_the_values_that_yaml_1_1_reads_otherwise() -> None:
    assert parse_yaml("a: yes\nb: 1:30\nc: 010\nd: 1e-05", "x") == {"a": "yes", "b": "1:30", "c": 10, "d": 1e-5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'x.yaml, line 3: the key "a" stands twice. Keep one.'),
        ("a: {b: 1, b: 2}", 'line 1: the key "b" stands twice'),
        ("a: [1", "not valid YAML: line 2"),
        ("1: x", "1: a key must be text; put it in quotes"),
        ("a: {true: x}", "a.True: a key must be text"),
        ("[a]: x", "a key must be text"),
        ("? {a: 1}\n: x", "unhashable key"),
        ("a: 2026-13-45", "a value that cannot be read ('month must be in 1..12'). Put text in quotes."),
        ("a: 2026-01-02", "a: datetime.date(2026, 1, 2) is neither text, number"),
        ("a: " + "9" * 5000, "a value that cannot be read"),
        ("a: &x [*x]", "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("a: !!python/object:os.x 1", "could not determine a constructor"),
        ("a: !!binary aGVsbG8=", "a: b'hello' is neither text"),
        ('a: "\\0"', "holds a NUL character"),
        ("a: {b: .NaN}", "x.yaml: a.b: nan is no finite number"),
        ("a: [1, -.inf]", "x.yaml: a[1]: -inf is no finite number"),
        ("a: 1e999", "x.yaml: a: inf is no finite number"),
        (".inf", "x.yaml: inf is no finite number"),
        ("a: *nope", "undefined alias"),
    ],
)
def test_what_is_no_plain_value_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_yaml(text, "x.yaml")
    assert message in str(refused.value) and len(str(refused.value)) < 400


def test_an_override_may_say_what_a_file_must_quote() -> None:
    assert parse_yaml("[my_shop:Shop]", "--set", lenient=True) == ["my_shop:Shop"]
    with pytest.raises(BadInput, match="not valid YAML"):
        parse_yaml("[my_shop:Shop]", "a file that DVC reads too")
    with pytest.raises(BadInput, match="stands twice"):
        parse_yaml("{a: 1, a: 2}", "--set", lenient=True)


def test_aliases_that_multiply_are_refused_in_time() -> None:
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(BadInput, match="too large"):
        parse_yaml(laughs, "x.yaml")


class Inner(Params):
    """Two keys."""

    rate: float = Field(0.5, ge=0, le=1, description="how often")
    kind: Literal["a", "b"] = "a"


class Outer(Params):
    """One of each."""

    inner: Inner = Inner()
    many: list[int] = []
    named: dict[str, float] = {}
    maybe: int | None = None
    curve: dict[str, float | list[float]] = {}
    pair: tuple[int, ...] = ()
    flag: bool = False
    either: bool | int = 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"inner": 3},
            "inner = 3: Input should be a valid dictionary or instance of Inner. Allowed: a mapping with the keys rate, kind.",
        ),
        ({"inner": {"rate": 2}}, "Allowed: float >= 0 and <= 1 (how often)."),
        ({"inner": {"kind": "c"}}, "Allowed: one of a, b."),
        ({"inner": {"rat": 2}}, "unknown key 'inner.rat'. Did you mean 'rate'? Known keys: rate, kind."),
        ({"many": "x" * 100_000}, "(100,002 characters)"),
        ({"many": [1, "x"]}, "Allowed: a list of whole numbers."),
        ({"named": 1}, "Allowed: a mapping of floats."),
        ({"maybe": "x"}, "Allowed: whole number or nothing (null)."),
        ({"many": list("x" * 50)}, "and 30 more mistakes"),
        ({"inner": {"rate": True}}, "inner.rate = True: true and false are no numbers. Allowed: float >= 0 and <= 1 (how often)."),
        ({"many": [1, False]}, "many = [1, False]: true and false are no numbers. Allowed: a list of whole numbers."),
        ({"named": {"a": True}}, "named = {'a': True}: true and false are no numbers. Allowed: a mapping of floats."),
        ({"maybe": False}, "maybe = False: true and false are no numbers. Allowed: whole number or nothing (null)."),
        ({"pair": [1, True]}, "pair = [1, True]: true and false are no numbers."),
        ({"curve": {"a": [0.5, True]}}, "curve = {'a': [0.5, True]}: true and false are no numbers."),
    ],
)
def test_a_message_names_key_value_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        validate(Outer, given, "here")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 5000


def test_a_boolean_stays_where_one_is_meant() -> None:
    found = validate(Outer, {"flag": True, "either": True}, "here")
    assert found.flag is True and found.either is True


def test_no_line_of_a_message_is_a_book() -> None:
    assert len(str(BadInput("x" * 100_000))) < 2200


def test_override_parsing() -> None:
    assert parse_override("a.b=0.001") == ("a.b", 0.001)
    assert parse_override("a.b=1e-3") == ("a.b", 0.001)
    assert load(ROOT, "quickstart", [parse_override("sft.loop.learning_rate=1e-3")]).loop("sft").learning_rate == 1e-3  # type: ignore[attr-defined]
    assert parse_override("a={x: [1, two]}") == ("a", {"x": [1, "two"]})
    assert overlay({"a": {"b": 1, "c": 2}}, "a.b", 3) == {"a": {"b": 3, "c": 2}}
    with pytest.raises(BadInput, match="expected key=value"):
        parse_override("a.b")


def test_a_method_value_comes_from_its_section_else_from_its_default() -> None:
    from tasks.merge.breadcrumbs import Params

    plain = load(ROOT, "smoke", [("merge.breadcrumbs.keep", 0.3)]).params("merge")
    assert (plain.keep, plain.trim_top) == (0.3, Params().trim_top)  # type: ignore[attr-defined]
    assert load(ROOT, "smoke", [("merge.breadcrumbs", {})]).params("merge") == Params()
