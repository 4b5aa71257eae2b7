"""The operations of an OpenAPI description as tools: their names, their arguments, and the one JSON schema that these have together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.contract.params import BadInput
from tasks.worlds.adapters.openapi_schemas import Schemas
from tasks.worlds.adapters.openapi_spec import Spec

VERBS = ("get", "put", "post", "delete", "patch", "head")
LONGEST_NAME = 64
"""Characters of a tool's name, out of letters, digits, "_" and "-": what hosted APIs take."""
DESCRIPTION = 1024
"""Characters of a tool's description; ours: hosted APIs take so many, and a model reads them in every turn."""
_STYLES = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
_NOT_SENT = ("accept", "content-type", "authorization")
"""Names of headers that a description cannot declare as parameters (OpenAPI, Parameter Object)."""
Place = Literal["path", "query", "header", "cookie", "field", "body"]


@dataclass(frozen=True)
class Argument:
    """One argument of a tool. key: what the API calls it. place: where it is sent; `field` is one property of the body, `body` all of
    it. json: it is sent as JSON text. reserved: characters such as "/" stay as they are in a query."""

    name: str
    key: str
    place: Place
    style: str = ""
    explode: bool = False
    json: bool = False
    reserved: bool = False


@dataclass(frozen=True)
class Listed:
    """An operation as it stands in the description, not looked into yet: of 500, few may be chosen. marked: as dangerous."""

    name: str
    id: str
    verb: str
    path: str
    tags: tuple[str, ...]
    marked: bool

    @property
    def call(self) -> str:
        """As HTTP has it: "GET /orders/{order_id}"."""
        return f"{self.verb} {self.path}"

    def words(self) -> tuple[str, ...]:
        """What it can be chosen by."""
        return tuple(dict.fromkeys(word for word in (self.name, self.id, self.call, *(f"tag:{tag}" for tag in self.tags)) if word))


@dataclass(frozen=True)
class Operation:
    """An operation that was looked into. body: the content type that is sent, "" for none. body_needed: it is sent also when none of
    its fields is given. parameters: the JSON schema of the arguments. gives: names of the properties of its answer. unsendable: why
    no call can be made, "" when it can."""

    listed: Listed
    description: str
    arguments: tuple[Argument, ...]
    body: str
    body_needed: bool
    parameters: dict[str, Any]
    gives: tuple[str, ...]
    unsendable: str


def listed(spec: Spec) -> list[Listed]:
    """Every operation, in the order of the description."""
    found = []
    for path, item in spec.document["paths"].items():
        if not path.startswith("/"):
            continue
        item = spec.behind(item, f"{spec.where}: {path}")
        for verb in VERBS:
            if isinstance(about := item.get(verb), Mapping):
                identifier = about.get("operationId") if isinstance(about.get("operationId"), str) else ""
                tags = tuple(tag for tag in about.get("tags") or () if isinstance(tag, str))
                name = named(str(identifier or f"{verb}_{path}"))
                found.append(Listed(name, str(identifier or ""), verb.upper(), path, tags, about.get("x-dangerous") is True))
    return found


def named(text: str) -> str:
    """A tool's name out of any text.

    >>> named("get_/orders/{order_id}")
    'get_orders_order_id'
    """
    name = re.sub(r"_*[^A-Za-z0-9_-]+_*", "_", text).strip("_") or "operation"
    if len(name) <= LONGEST_NAME:
        return name
    mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return f"{name[: LONGEST_NAME - 9]}_{mark}"


def operation(spec: Spec, one: Listed, hidden: frozenset[tuple[str, str]]) -> Operation:
    """A listed operation, looked into. hidden: (place, lower key) of what the authentication sends. BadInput: it says nothing
    that can be used."""
    return _Reader(spec, one, hidden).read()


class _Reader:
    """Reads one operation."""

    def __init__(self, spec: Spec, one: Listed, hidden: frozenset[tuple[str, str]]) -> None:
        self._spec, self._one, self._hidden = spec, one, hidden
        self._where = f"{spec.where}: {one.call}"
        self._item = spec.behind(spec.document["paths"][one.path], self._where)
        self._about = self._item[one.verb.lower()]
        self._schemas = Schemas(spec, self._where)
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self._arguments: list[Argument] = []

    def read(self) -> Operation:
        """All of it."""
        for parameter in self._parameters():
            self._add_parameter(parameter)
        for key in re.findall(r"\{([^{}]+)\}", self._one.path):
            if not any(one.place == "path" and one.key == key for one in self._arguments):
                self._add(Argument("", key, "path", "simple"), {"type": "string"}, required=True)  # used and not declared
        body, needed, unsendable = self._add_body()
        parameters: dict[str, Any] = {
            "type": "object",
            "properties": self._properties,
            "required": self._required,
            "additionalProperties": False,
        }
        if definitions := self._schemas.definitions():
            parameters["$defs"] = definitions
        one, told = self._one, [self._about.get("summary"), self._about.get("description")]
        description = " ".join(
            " ".join(text.split()).rstrip(".") + "." for text in dict.fromkeys(told) if isinstance(text, str) and text
        )
        if len(description) > DESCRIPTION:
            description = f"{description[: DESCRIPTION - 4]} ..."
        return Operation(
            listed=one,
            description=description or f"{one.call}.",
            arguments=tuple(self._arguments),
            body=body,
            body_needed=needed,
            parameters=parameters,
            gives=tuple(self._gives()),
            unsendable=unsendable,
        )

    def _parameters(self) -> list[Mapping[str, Any]]:
        """Those of the path, and the operation's own, which replace them."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for one in (*(self._item.get("parameters") or ()), *(self._about.get("parameters") or ())):
            parameter = self._spec.behind(one, self._where)
            place, key = parameter.get("in"), parameter.get("name")
            if place not in _STYLES or not isinstance(key, str) or not key:
                raise BadInput(
                    f"{self._where}: a parameter needs name and in (path, query, header or cookie), got {str(parameter)[:100]}."
                )
            found[place, key] = parameter
        return list(found.values())

    def _add_parameter(self, about: Mapping[str, Any]) -> None:
        place, key = about["in"], about["name"]
        if (place, key.lower()) in self._hidden or (place == "header" and key.lower() in _NOT_SENT):
            return
        content = about.get("content")
        if isinstance(content, Mapping) and content:
            schema = (next(iter(content.values())) or {}).get("schema", {})
        else:
            schema = about.get("schema", {})
        style = about.get("style") or _STYLES[place][0]
        if style not in _STYLES[place]:
            raise BadInput(f"{self._where}: parameter {key!r}: style {style!r} in {place}; allowed: {', '.join(_STYLES[place])}.")
        explode = bool(about.get("explode", style == "form"))
        reserved = bool(about.get("allowReserved", False))
        self._add(
            Argument("", key, place, style, explode, bool(content), reserved),
            self._described(self._schemas.converted(schema), about.get("description")),
            required=place == "path" or about.get("required") is True,
        )

    def _add(self, argument: Argument, schema: Any, required: bool) -> None:
        """An argument under a name that no other has: the second `id` is `query_id`."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", argument.key).strip("_")[:LONGEST_NAME] or argument.place
        if name in self._properties:
            name = f"{argument.place}_{name}"[:LONGEST_NAME]
        if name in self._properties:
            raise BadInput(f"{self._where}: two of its parameters are called {argument.key!r}.")
        self._properties[name] = schema
        self._required += [name] if required else []
        self._arguments.append(replace(argument, name=name))

    def _described(self, schema: Any, description: Any) -> Any:
        """A schema that says what the argument means, where only the parameter says it."""
        if isinstance(description, str) and description.strip() and isinstance(schema, dict):
            return {**schema, "description": " ".join(description.split())}
        return schema

    def _add_body(self) -> tuple[str, bool, str]:
        """Content type, whether it is needed, and why it cannot be sent. Its properties become arguments, or all of it becomes one."""
        if not self._about.get("requestBody"):
            return "", False, ""
        about = self._spec.behind(self._about["requestBody"], self._where)
        content = about.get("content") or {}
        kind = _sent(content)
        if not kind:
            return "", False, f"it takes {', '.join(content) or 'a body of no type'}, and JSON, forms and plain text are sent"
        schema = (content[kind] or {}).get("schema", {})
        parts = None if kind.startswith("text/") else self._schemas.properties(schema)
        needed = about.get("required") is True
        if parts is not None and _has_files(parts):
            return "", False, "it takes a file, which no tool call holds"
        if parts is None or any(self._taken(key) for key in parts):
            self._add(Argument("", "body", "body"), self._described(self._schemas.converted(schema), about.get("description")), needed)
            return kind, needed, ""
        must = self._schemas.required(schema)
        for key, part in parts.items():
            self._add(Argument("", key, "field"), self._schemas.converted(part), required=needed and key in must)
        return kind, needed, ""

    def _taken(self, key: str) -> bool:
        """Whether a property cannot be an argument under its own name."""
        return key in self._properties or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key)

    def _gives(self) -> Iterator[str]:
        """Properties of the answer to a call that works: what it produces for other calls."""
        answers = self._about.get("responses") or {}
        good = next((answers[code] for code in sorted(answers) if code.startswith("2")), None)
        if good is None:
            return
        for kind, media in (self._spec.behind(good, self._where).get("content") or {}).items():
            if "json" in kind and isinstance(media, Mapping) and isinstance(media.get("schema"), Mapping):
                schema = self._spec.behind(media["schema"], self._where)
                if isinstance(schema.get("items"), Mapping):
                    schema = self._spec.behind(schema["items"], self._where)
                yield from schema.get("properties") or ()
                return


def _sent(content: Mapping[str, Any]) -> str:
    """The content type that is sent, of those that an operation takes; "" for none."""
    kinds = {str(kind): str(kind).partition(";")[0].strip().lower() for kind in content}
    for fits in (
        lambda kind: kind == "application/json",
        lambda kind: kind.endswith("+json") or kind in ("*/*", "application/*"),
        lambda kind: kind == "application/x-www-form-urlencoded",
        lambda kind: kind == "multipart/form-data",
        lambda kind: kind == "text/plain",
    ):
        if found := next((kind for kind, plain in kinds.items() if fits(plain)), ""):
            return found
    return ""


def _has_files(parts: Mapping[str, Any]) -> bool:
    schemas = [one for part in parts.values() if isinstance(part, Mapping) for one in (part, part.get("items"))]
    return any(isinstance(one, Mapping) and (one.get("format") == "binary" or "contentMediaType" in one) for one in schemas)
