"""Typed params: one frozen model per method, and errors that name the file, the key, the value and what is allowed."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

LONGEST = 2000
"""characters of a line of a message: whoever put a book into a param is not shown it again"""


class BadInput(Exception):
    """A user's mistake: shown without a traceback, exit code 2, nothing written."""

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(_cut(line) for line in message.splitlines()))


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... ({len(line):,} characters) ... {line[-LONGEST // 4 :]}"


class StageFailed(RuntimeError):
    """A stage could not be finished, or would have ended without what it is for; the message says why and what to do."""


class Params(BaseModel):
    """Base of every method's params: frozen, complete, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    PLACE: ClassVar[str] = ""
    """The param that says where something outside of the project lies which the method reads. What lies there is named by its bytes,
    the param `identity`; the place is no part of a key. "" for a method that reads nothing but its inputs."""
    PLACE_HOLDS: ClassVar[str] = "checkpoint"
    """What lies there: a "checkpoint", of which the files count that are read, or "files", all of which count."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1 and false as 0, and so does pydantic: `epochs: true` would train for one epoch."""
        if _boolean_for_number(value, cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are no numbers")
        return value


def _boolean_for_number(value: Any, kind: Any) -> bool:
    """Whether a boolean stands, also inside lists and mappings, where a type takes none. (Params inside params look for themselves.)"""
    kinds = list(_alternatives(kind))
    if isinstance(value, bool):
        return bool not in kinds and (int in kinds or float in kinds)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    inner = [args[-1] for one in kinds if (args := [arg for arg in typing.get_args(one) if arg is not ...])]
    return any(_boolean_for_number(item, one) for item in items for one in inner)


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types that a union is made of; any other type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for one in typing.get_args(kind):
            yield from _alternatives(one)
    else:
        yield typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


@dataclass(frozen=True)
class Cap:
    """A param of a method that limits tokens. A method that has some declares them, so that they are held against typical
    conversations before anything is paid: `caps(params) -> Sequence[Cap]` in its module; a room that owns a training loop
    has `caps` for the loop's params in its `__init__.py`.

    param: its name. tokens: its value. of: what it limits: a training row, a conversation (both with the prompt, up to the agent's last
    turn), or what the agent produces in one turn. share: least share of typical conversations that must stay within it (and of a
    row's trained tokens); at least one must, always.
    """

    param: str
    tokens: int
    of: Literal["row", "conversation", "turn"]
    share: float


Model = TypeVar("Model", bound=BaseModel)


def nearest(word: str, known: Any) -> str:
    """' Did you mean 'x'?' or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def brief(value: Any) -> str:
    """A value for a message, cut where it is long: nobody reads 100 kB."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a whole number of more than some 4,300 digits
        return "a number of thousands of digits"
    return cut(text)


def cut(text: str) -> str:
    """Text for a message, cut where it is long."""
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text):,} characters)"


def _bare(text: str) -> str:
    """Text for a message without quotes around it, with control characters as their numbers."""
    return cut(repr(text)[1:-1])


def _in_words(kind: Any) -> str:
    """A field's type for people: what may stand there, not what a class is called."""
    inner = [_in_words(one) for one in typing.get_args(kind)] if typing.get_origin(kind) is not Literal else []
    match typing.get_origin(kind) or kind:
        case typing.Annotated:
            return inner[0]
        case typing.Union | types.UnionType:
            return " or ".join(one for one in inner if one)
        case origin if origin is Literal:
            return "one of " + ", ".join(map(str, typing.get_args(kind)))
        case origin if origin in (dict, Mapping):
            return f"a mapping of {inner[1]}s" if len(inner) == 2 else "a mapping"
        case origin if isinstance(origin, type) and issubclass(origin, BaseModel):
            return f"a mapping with the keys {', '.join(origin.model_fields)}"
        case origin if origin in (list, tuple):
            return f"a list of {inner[0]}s" if inner else "a list"
        case types.NoneType:
            return "nothing (null)"
    return {int: "whole number", str: "text", bool: "true or false"}.get(kind) or str(getattr(kind, "__name__", kind))


def _field(model: type[BaseModel], loc: tuple[int | str, ...]) -> Any:
    """The field that an error's place leads to: the innermost one that has a description of its own."""
    found = None
    for part in loc:
        field = model.model_fields.get(str(part)) if model else None
        if field is None:
            continue
        found = field
        model = next((one for one in _models(field.annotation)), model)
    return found


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The params models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in typing.get_args(kind):
        yield from _models(inner)


def _allowed(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    field = _field(model, loc)
    if field is None:
        return ""
    limits = [
        f"{sign} {value}"
        for meta in field.metadata
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if (value := getattr(meta, name, None)) is not None
    ]
    about = f" ({field.description})" if field.description else ""
    return f" Allowed: {_in_words(field.annotation)}{' ' + ' and '.join(limits) if limits else ''}{about}."


def validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build `model` from `values`, or raise BadInput with every mistake on a line of its own.

    `where` names the place the values come from, e.g. "params/pipeline.yaml: merge.breadcrumbs".
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [f"{where}: {_mistake(model, problem)}" for problem in problems[:MISTAKES]]
        if len(problems) > MISTAKES:
            lines.append(f"{where}: and {len(problems) - MISTAKES} more mistakes")
        raise BadInput("\n".join(lines)) from None


MISTAKES = 20
"""shown at once"""


def _mistake(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    loc = problem["loc"]
    key = ".".join(str(part) for part in loc)
    if problem["type"] == "extra_forbidden":
        outer = _field(model, loc[:-1])
        owner = next(_models(outer.annotation), model) if outer is not None else model
        known = list(owner.model_fields)
        return f"unknown key {brief(key)}.{nearest(str(loc[-1]), known)} Known keys: {', '.join(known) or 'none'}."
    if problem["type"] == "missing":
        return f"{key} is missing.{_allowed(model, loc)}"
    why = problem["msg"].removeprefix("Value error, ")  # how pydantic begins what a validator of ours says
    return f"{key if len(key) <= 200 else brief(key)} = {brief(problem['input'])}: {why}.{_allowed(model, loc)}"


# --- YAML ------------------------------------------------------------------------------------------------------------

DEEPEST = 50
"""levels of a YAML value; ours have six"""
LARGEST = 1_000_000
"""values in one YAML file, those behind aliases counted where they are used"""


def read_yaml(path: Path, lenient: bool = False) -> Any:
    """A YAML file as DVC reads it (YAML 1.2: `yes` and `1:30` are text, `010` is ten), or BadInput that names file and line. lenient:
    see `parse_yaml`; for files that DVC does not read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not valid YAML: not UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    return parse_yaml(text, str(path), lenient)


def parse_yaml(text: str, where: str, lenient: bool = False) -> Any:
    """YAML text as mappings with text keys, lists, text, numbers, booleans and null; BadInput for anything else, and for a key that
    stands twice. where: names the text in messages. lenient: takes `[a:b]` unquoted, which DVC's reader of files does not."""
    from ruamel.yaml import YAML, YAMLError
    from ruamel.yaml.constructor import DuplicateKeyError

    try:
        value = YAML(typ="safe", pure=lenient).load(text)
    except DuplicateKeyError as error:
        key = str(error.problem).partition("with value")[0].removeprefix("found duplicate key").strip()
        line = error.problem_mark.line + 1 if error.problem_mark else "unknown"
        raise BadInput(f"{where}, line {line}: the key {key} stands twice. Keep one.") from None
    except YAMLError as error:
        raise BadInput(f"{where}: not valid YAML: {_where_and_why(error)}") from None
    except RecursionError:
        raise BadInput(f"{where}: not valid YAML: nested too deeply") from None
    except (ValueError, TypeError, OverflowError) as error:  # 2026-13-45, a number of 5,000 digits, a list as a key
        raise BadInput(f"{where}: not valid YAML: a value that cannot be read ({brief(str(error))}). Put text in quotes.") from None
    check_plain(value, where)
    return value


def check_plain(value: Any, where: str) -> None:
    """BadInput when a value holds anything but mappings with text keys, lists, text, numbers, booleans and null."""
    if odd := next(_odd(value, "", [LARGEST], 0), ""):
        raise BadInput(f"{where}: {odd}")


def is_file(path: Path) -> bool:
    """Whether a path that a user gave is a file; False also for one that cannot be (a name of 300 characters)."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a path names a folder; an unreadable or odd one is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _where_and_why(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    why = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}: {_bare(why)}" if mark else _bare(why)


def _odd(value: Any, at: str, left: list[int], depth: int) -> Iterator[str]:
    """What in a value is no JSON, in words. at: its dotted key; "" for the whole value, which has no name here."""
    name = f"{_bare(at)}: " if at else ""
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST:
        yield f"{name}nested too deeply or too large"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{at + '.' if at else ''}{brief(key)}: a key must be text; put it in quotes"
                return
            yield from _odd(key, f"{at}.{key}" if at else key, left, depth + 1)
            yield from _odd(item, f"{at}.{key}" if at else key, left, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _odd(item, f"{at}[{number}]", left, depth + 1)
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            yield f"{name}{brief(value)} holds half a character (a surrogate)"
        elif "\0" in value:
            yield f"{name}{brief(value)} holds a NUL character"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name}{value} is no finite number"
    elif not isinstance(value, (bool, int, float)) and value is not None:
        yield f"{name}{brief(value)} is neither text, number, true, false nor null; put it in quotes if it is text"
