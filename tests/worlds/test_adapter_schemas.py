"""Tools out of a server's schemas: the whole arguments are checked with the whole schema, in the dialect that it names.

Worked by hand: 1 is taken and 0 refused by draft 04's `"minimum": 0, "exclusiveMinimum": true`; 0.3 is three times 0.1; `#` is the
whole document. For random schemas of every draft, the verdict is that of the draft's validator in jsonschema. Limit: patterns that
Python does not know are the server's; with them a call is never refused that fits.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.contract.values import DEPTH, canonical_json
from tasks.worlds.adapters.schema_dialects import DRAFTS, Unreadable, read
from tasks.worlds.adapters.schemas import notes, tool_of_schema
from tasks.worlds.api.tools import Refused, Tool


def tool(schema: dict[str, Any]) -> Tool:
    return tool_of_schema("it", "Does\n  it.", schema, "read", ("id",), "tool 'it' of mcp.yaml")


def takes(made: Tool, arguments: dict[str, Any]) -> bool:
    try:
        made.validate(arguments)
    except Refused:
        return False
    return True


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_a_servers_schema_is_shown_and_checked() -> None:
    schema = {
        "type": "object",
        "title": "itArguments",
        "properties": {"n": {"type": "integer", "minimum": 1, "title": "N"}, "who": {"$ref": "#/$defs/Who"}, "any": True},
        "required": ["n"],
        "additionalProperties": False,
        "$defs": {"Who": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}},
    }
    made = tool(schema)
    assert made.description == "Does it." and made.consumes == ("n", "who", "any") and made.produces == ("id",)
    assert made.parameters["properties"]["n"] == {"type": "integer", "minimum": 1} and "title" not in made.parameters
    assert made.parameters["$defs"] == schema["$defs"], "an argument called title stays"
    given = {"any": [1], "n": 2.0, "who": {"title": "Dr"}}
    clean = made.validate(given)
    assert clean == given and list(clean) == ["n", "who", "any"] and clean["any"] is not given["any"], "the caller's stay the caller's"
    for arguments, says in (
        ({"n": 0}, "argument 'n' is wrong: 0 is less than the minimum of 1"),
        ({"n": True}, "argument 'n' is wrong: True is not of type 'integer'"),
        ({"n": 1, "who": {}}, "argument 'who' is wrong: 'title' is a required property"),
        ({"n": 1, "who": {"title": 1}}, "argument 'who' at ['title'] is wrong: 1 is not of type 'string'"),
        ({"n": 1, "wo": 1}, "unknown argument 'wo'. Did you mean 'who'?"),
        ({}, "argument 'n' is missing"),
    ):
        with pytest.raises(Refused) as caught:
            made.validate(arguments)
        assert says in str(caught.value)


LEVELS = {"x": {"child": {"child": {"x": 1}}}}


@pytest.mark.parametrize(
    ("schema", "fit", "unfit"),
    [
        ({"$schema": "http://json-schema.org/draft-04/schema#", **of(c={"minimum": 0, "exclusiveMinimum": True})}, {"c": 1}, {"c": 0}),
        ({"$schema": "https://json-schema.org/draft-03/schema", **of(c={"divisibleBy": 0.1, "required": True})}, {"c": 0.3}, {}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", **of(c={"$ref": "#/definitions/D", "minimum": 9}), "definitions": {"D": {"type": "integer"}}}, {"c": 1}, {"c": "x"}),
        (of(c={"minimum": 0, "exclusiveMinimum": True}), {"c": 1}, {"c": 0}),  # of draft 04, which OpenAPI 3.0 does not say
        (of(c={"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}), {"c": [1, "x"]}, {"c": ["x"]}),  # of draft 07
        ({"$schema": "urn:our-own", **of(c={"prefixItems": [{"type": "integer"}]})}, {"c": [1]}, {"c": ["x"]}),
        (of(start=of(x={"type": "number"}), end={"$ref": "#/properties/start"}), {"end": {"x": 1}}, {"end": {"x": "1"}}),
        (of(v={"type": "integer"}, child={"$ref": "#"}), {"child": {"child": {"v": 2}}}, {"child": {"child": {"v": "2"}}}),
        ({**of(c={"$ref": "#here"}), "$defs": {"D": {"$anchor": "here", "type": "integer"}}}, {"c": 1}, {"c": "x"}),
        ({"$id": "https://shop.example/tool", **of(c={"$ref": "tool#/$defs/D"}), "$defs": {"D": {"type": "integer"}}}, {"c": 1}, {"c": "x"}),
        ({**of(c={"$ref": "#/components/schemas/A%20B"}), "components": {"schemas": {"A B": {"type": "integer"}}}}, {"c": 1}, {"c": "x"}),
        ({"$ref": "#/$defs/Args", "$defs": {"Args": of(c={"type": "integer"})}}, {"c": 1}, {"c": "x"}),
        (of(c={"$ref": "http://json-schema.org/draft-07/schema#"}), {"c": {"type": "string"}}, {"c": {"type": "strange"}}),
        ({"type": "object", "additionalProperties": True}, {"colour": "red"}, None),
        ({"type": "object"}, {"colour": "red", "x" * 200: 1}, None),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
        ({"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False}, {"n_a": 1}, {"a": 1}),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, {"a": 1, "b": 1}),
        ({**of(a={}, b={}), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"b": 1}, {}),
        ({**of(a={}), "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({**of(a={}), "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}}, {"a": 2}, {"a": 1}),
        ({"allOf": [of(a={"type": "integer"})], "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        (of(a={"multipleOf": 0.1}), {"a": 0.3}, {"a": 0.35}),
        (of(a={"multipleOf": 0.01}), {"a": 1e300}, {"a": 0.001}),
        (of(a={"type": "string", "format": "made-up"}), {"a": "x"}, {"a": 1}),
        (of(**{"$ref": {"type": "integer"}, "type": {"type": "integer"}, "$id": {"type": "integer"}}), {"$ref": 1, "$id": 1}, {"$ref": "x"}),
    ],
)  # fmt: skip
def test_the_whole_schema_counts(schema: dict[str, Any], fit: dict[str, Any], unfit: dict[str, Any] | None) -> None:
    made = tool(schema)
    assert made.validate(fit) == fit
    assert unfit is None or not takes(made, unfit)


def test_a_schema_of_another_draft_is_read_by_that_and_told() -> None:
    (told,) = notes({"it": tool(of(c={"minimum": 0, "exclusiveMinimum": True}))})
    assert told[0] == "it" and "it is no schema of draft 2020-12" in told[1] and "it is read as draft 04" in told[1]
    ((_, told_too),) = notes({"it": tool({"$schema": "urn:our-own", **of()})})
    assert "the dialect 'urn:our-own' is not known; it is read as draft 2020-12" in told_too


def test_data_is_left_as_it_is() -> None:
    """What looks like a schema inside data is none; a property may be called anything."""
    data = {"title": "T", "description": "D", "$schema": "S", "default": 1, "$ref": "#/nowhere", "pattern": "(?<n>x)"}
    told = {"default": data, "examples": [data], "title": "To go", "description": "stays"}
    names = {name: {"type": "string"} for name in (*data, "properties", "type", "required")}
    made = tool({"title": "go", **of(a=told, b={"enum": [data]}, c={"const": data}, **names), "x-own": {"title": "stays"}})
    kept = made.parameters["properties"]
    assert kept["a"] == {key: value for key, value in told.items() if key != "title"}
    assert kept["b"] == {"enum": [data]} and kept["c"] == {"const": data} and names.keys() <= kept.keys()
    assert made.parameters["x-own"] == {"title": "stays"} and "title" not in made.parameters and not made.notes
    assert takes(made, {"b": data, "c": data, "title": "x"}) and not takes(made, {"b": {**data, "title": "U"}})


ECMA = [r"^\p{L}+$", r"^(?<year>\d{4})$", r"\u{1F600}", r"(?<=a+)b", "[^]", r"\cJ", "(?u)x"]


@pytest.mark.parametrize("pattern", ECMA)
def test_patterns_that_python_does_not_know_are_the_servers(pattern: str) -> None:
    made = tool(of(a={"type": "string", "pattern": pattern}, b={"type": "integer"}))
    assert takes(made, {"a": "2024"}) and not takes(made, {"a": 5}) and not takes(made, {"b": "x"})
    assert (
        repr(pattern) in made.notes[0] and "of /properties/a is not checked" in made.notes[0] and "left to the server" in made.notes[0]
    )
    assert made.parameters["properties"]["a"]["pattern"] == pattern, "the model reads what the server says"
    closed = tool({"type": "object", "patternProperties": {pattern: {"type": "integer"}}, "additionalProperties": False})
    assert takes(closed, {"Ann": 1})
    far = tool({**of(a={"$ref": "#/components/a"}), "components": {"a": {"pattern": pattern}}})
    assert takes(far, {"a": "x"}) and far.notes


@pytest.mark.parametrize(
    ("pattern", "value"), [(r"^\W$", "é"), (r"^\D$", "\u0661"), (r"^\w+$", "é"), (r"^\s$", "\xa0"), (r"^\bé", "é")]
)
def test_a_pattern_takes_what_some_server_may_take(pattern: str, value: str) -> None:
    """In ECMA-262 letters and digits are those of ASCII, in the engines of servers in Python and Rust those of every script."""
    assert takes(tool(of(a={"pattern": pattern})), {"a": value})


@pytest.mark.parametrize("pattern", [r"^\d+$", r"a\/b", "^[A-Z]{3}$", "(?!x)y"])
def test_patterns_that_python_knows_are_checked(pattern: str) -> None:
    made = tool(of(a={"pattern": pattern}))
    assert not made.notes and not takes(made, {"a": "?"})


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (of(a={"type": "integr"}), "its input schema cannot be used: it is no JSON schema: 'integr' is not valid under any"),
        ({"type": "object", "properties": []}, "it is no JSON schema: [] is not of type 'object' at properties"),
        (of(a={"$ref": "http://127.0.0.1:9/s.json"}), "it refers to 'http://127.0.0.1:9/s.json', which is not in it (nothing is fetched)"),
        (of(a={"$ref": "#/$defs/None"}, b={"items": {"$ref": "other"}}), "it refers to '#/$defs/None', 'other', which is not in it"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", **of(a={"$ref": 5})}, "it refers to 5, which is not in it"),
        ({"$ref": "#"}, "it refers to itself without end (#)"),
        ({**of(), "$defs": {"A": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}}, "$ref": "#/$defs/A"}, "to itself without end"),
        ({"type": "string"}, "it cannot be called with anything: it must be string and object at once"),
        ({"allOf": [{"type": ["array", "null"]}]}, "it cannot be called with anything: it must be array or null and object at once"),
        ({"oneOf": [{"type": "string"}, False]}, "it cannot be called with anything"),
        ({**of(), "required": ["a"], "additionalProperties": False}, "it needs 'a', which it does not allow"),
        ({**of(a=False), "required": ["a"]}, "it needs 'a', for which no value fits: false allows no value"),
        ({**of(a={"$ref": "#"}), "required": ["a"]}, "it needs itself inside itself without end"),
        ({**of(a={"type": "integer", "enum": ["1"]}), "required": ["a"]}, "none of its listed values fits what else it says (['1'])"),
        ({**of(a={"type": "integer", "minimum": 5, "maximum": 3}), "required": ["a"]}, "minimum 5 is above maximum 3"),
        ({**of(a={}, b={}), "required": ["a", "b"], "maxProperties": 1}, "it needs 2 arguments and allows 1"),
        ({"enum": ["x"]}, "none of its listed values fits what else it says"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_called_are_named_when_the_world_is_built(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        tool(schema)
    assert str(caught.value).startswith("tool 'it' of mcp.yaml: ") and says in str(caught.value)
    assert str(caught.value).endswith("Leave it out ('tools', 'operations'), or mend the server.")


def test_levels_beyond_python_are_an_answer() -> None:
    """And as many as arguments may have are checked."""
    allowed: dict[str, Any] = {"v": "x"}
    for _ in range(DEPTH - 2):
        allowed = {"child": allowed}
    assert not takes(tool(of(v={"type": "integer"}, child={"$ref": "#"})), allowed)
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"child": deep}
    with pytest.raises(Refused, match=r"nested deeper than their schema can be followed"):
        tool(of(child={"$ref": "#"})).validate(deep)
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"items": schema}
    with pytest.raises(BadInput, match=r"nested deeper than can be followed"):
        tool(of(a=schema))


# --- random schemas of every draft ---

NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 2.0]) | st.sampled_from(["", "a", "ab", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SIMPLE = ["object", "array", "string", "integer", "number", "boolean", "null"]
SMALL = st.integers(0, 3)
PATTERN = "^a"


def schemas(draft: str) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of a draft; names and values are few, so that they meet those of the arguments."""
    new, newest = draft not in ("03", "04"), draft.startswith("20")
    refs = st.sampled_from(["#", "#/properties/a", "#/definitions/D", "#/definitions/E"]).map(lambda to: {"$ref": to})

    def inside(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        part = inner | st.booleans() if new else inner
        some = st.lists(part, min_size=1, max_size=3)
        named = st.dictionaries(NAMES, part, max_size=3)
        keys: dict[str, st.SearchStrategy[Any]] = {
            "properties": named,
            "additionalProperties": part | st.booleans(),
            "patternProperties": st.fixed_dictionaries({PATTERN: part}),
            "items": part | some if draft != "2020-12" else part,
            "enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=canonical_json),
            "type": st.sampled_from(SIMPLE),
            "minItems": SMALL,
            "maxItems": SMALL,
            "uniqueItems": st.booleans(),
            "minLength": SMALL,
            "maxLength": SMALL,
            "minimum": st.integers(-2, 2),
            "maximum": st.integers(-2, 2),
            "pattern": st.just(PATTERN),
        }
        if draft == "03":
            keys |= {"divisibleBy": st.sampled_from([1, 2, 0.5]), "extends": part, "required": st.booleans()}
            keys |= {"disallow": st.sampled_from(SIMPLE) | st.lists(part, min_size=1, max_size=2, unique_by=canonical_json)}
        else:
            keys |= {"multipleOf": st.sampled_from([1, 2, 0.5]), "allOf": some, "anyOf": some, "oneOf": some, "not": part}
            keys |= {"required": st.lists(NAMES, min_size=1, unique=True), "minProperties": SMALL, "maxProperties": SMALL}
        if new:
            keys |= {"const": VALUES, "contains": part, "propertyNames": part, "exclusiveMinimum": st.integers(-2, 2)}
        else:
            keys |= {"exclusiveMinimum": st.booleans()}
        if new and draft != "06":
            keys |= {"if": part, "then": part, "else": part}
        if newest:
            keys |= {"dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True), max_size=2), "dependentSchemas": named}
            keys |= {"unevaluatedProperties": part, "unevaluatedItems": part, "minContains": SMALL, "maxContains": SMALL}
        if draft == "2020-12":
            keys |= {"prefixItems": some}

        @st.composite
        def whole(draw: st.DrawFn) -> dict[str, Any]:
            chosen = draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=4))
            if "exclusiveMinimum" in chosen and not new:
                chosen = [*chosen, "minimum"]
            return {key: draw(keys[key]) for key in dict.fromkeys(chosen)}

        return whole()

    bodies = st.recursive(refs | st.just({}), inside, max_leaves=8)
    named = "http://json-schema.org/draft-{}/schema#" if not newest else "https://json-schema.org/draft/{}/schema"

    @st.composite
    def document(draw: st.DrawFn) -> dict[str, Any]:
        root = {"type": "object", **draw(inside(bodies))}
        root["properties"] = {"a": {}, **root.get("properties", {})}
        return {"$schema": named.format(draft), **root, "definitions": {"D": draw(bodies), "E": draw(bodies)}}

    return document()


def theirs(schema: dict[str, Any], arguments: dict[str, Any]) -> bool:
    """By the draft's own validator: `validator_for` gives what a library has registered for it, as Prefect does."""
    kind = getattr(jsonschema, next(name for draft, name in DRAFTS.items() if draft in schema["$schema"].rpartition("draft")[2]))
    return bool(kind(schema).is_valid(arguments))


@pytest.mark.parametrize("draft", DRAFTS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_verdict_is_the_drafts(draft: str, data: st.DataObject) -> None:
    schema = data.draw(schemas(draft))
    before = copy.deepcopy(schema)
    several = [{}, *data.draw(st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=3, max_size=3))]
    try:
        meant = read(schema)
    except Unreadable as error:
        assert "to itself without end" in str(error)  # by jsonschema: RecursionError
        return
    assert meant.draft == draft and not meant.notes
    try:
        made = tool(schema)
    except BadInput as error:
        assert "cannot be called with anything" in str(error)
        assert not any(theirs(schema, arguments) for arguments in several), "what is said to fit nothing fits nothing"
        return
    for arguments in several:
        assert takes(made, arguments) is theirs(schema, arguments)
    assert schema == before, "the server's listing is not changed"


def unknown(value: Any) -> Any:
    """The same with a pattern that means the same and that Python does not know."""
    if isinstance(value, list):
        return [unknown(item) for item in value]
    if isinstance(value, dict):
        return {"^(?<n>a)" if key == PATTERN else key: "^(?<n>a)" if key == "pattern" else unknown(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("draft", DRAFTS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_what_is_left_to_the_server_is_never_refused_here(draft: str, data: st.DataObject) -> None:
    schema = data.draw(schemas(draft))
    several = data.draw(st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=3, max_size=3))
    try:
        read(schema)
        made = tool(unknown(schema))
    except Unreadable:
        return
    except BadInput:
        assert not any(theirs(schema, arguments) for arguments in several)
        return
    assert all(takes(made, arguments) for arguments in several if theirs(schema, arguments))
