"""OpenAPI descriptions as tools: schemas of 3.0 and 3.1, names, choice of operations, requests, and descriptions that cannot be used.

Worked by hand: `nullable` of 3.0 takes null, `GET /orders/{order_id}` without an operationId is called get_orders_order_id, and of 500
operations nothing is offered until some are chosen. Nothing here reaches a service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_openapi, openapi_spec
from tasks.worlds.adapters.openapi_operations import LONGEST_NAME, named
from tasks.worlds.adapters.openapi_requests import Prepared, prepared
from tasks.worlds.adapters.openapi_source import Operations
from tasks.worlds.api.tools import Refused, Tool

OK = {"200": {"description": "well"}}


def spec(paths: Mapping[str, Any], version: str = "3.1.0", **schemas: Any) -> dict[str, Any]:
    return {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": paths, "components": {"schemas": schemas}}


def source(document: Any, **about: Any) -> Operations:
    found: Operations = from_openapi(document, "http://127.0.0.1:9/v1", name="shop", policy="R1. Be kind.", **about).FOREIGN.source
    return found


def tools(document: Any, **about: Any) -> Mapping[str, Tool]:
    return source(document, **about).tools()


def posting(schema: Any, version: str = "3.1.0", **schemas: Any) -> Tool:
    """The one tool that sends a JSON body of this schema."""
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return tools(spec({"/x": {"post": {"operationId": "do", "requestBody": body, "responses": OK}}}, version, **schemas))["do"]


def fits(tool: Tool, **arguments: Any) -> bool:
    try:
        tool.validate(arguments)
    except Refused:
        return False
    return True


def request(parameters: list[Any], path: str = "/x", content: Any = None, verb: str = "post", **arguments: Any) -> Prepared:
    about: dict[str, Any] = {"operationId": "do", "parameters": parameters, "responses": OK}
    if content is not None:
        about["requestBody"] = {"content": content}
    one = source(spec({path: {verb: about}}))
    return prepared(one._read["do"][0], one.tools()["do"].validate(arguments))


# --- schemas ---


def test_what_3_0_writes_otherwise() -> None:
    size = {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False, "nullable": True}
    kind = {"type": "string", "enum": ["a", "b"], "nullable": True}
    part = {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Part"}]}
    beside = {"$ref": "#/components/schemas/Part", "maxProperties": 0, "description": "a part"}
    secret = {"type": "string", "readOnly": True}
    body = {
        "type": "object",
        "properties": {"size": size, "kind": kind, "part": part, "beside": beside, "id": secret},
        "required": ["id"],
    }
    tool = posting(body, "3.0.3", Part={"type": "object", "properties": {"n": {"type": "number"}}, "example": {"n": 1}})
    assert fits(tool, size=None, kind=None, part=None) and fits(tool, size=1, kind="b", part={"n": 1.5}, beside={"n": 2})
    assert not fits(tool, size=0) and fits(tool, size=9) and not fits(tool, kind="c") and not fits(tool, part={"n": "x"})
    assert not fits(tool, id="x"), "what is read only is not sent"
    assert "example" not in json.dumps(tool.parameters) and tool.parameters["properties"]["beside"]["description"] == "a part"


def test_3_1_is_json_schema() -> None:
    beside = {"$ref": "#/components/schemas/Part", "maxProperties": 0}
    tool = posting({"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": beside, "c": {"const": 7}}}, Part={})
    assert fits(tool, a=None, b={}, c=7) and not fits(tool, b={"n": 1}) and not fits(tool, c=8)


def test_schemas_that_hold_themselves() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#/components/schemas/T"}}},
    }
    tool = posting({"$ref": "#/components/schemas/T"}, T=tree)
    assert list(tool.parameters["properties"]) == ["name", "parts"] and list(tool.parameters["$defs"]) == ["T"]
    assert fits(tool, parts=[{"parts": [{"name": "a"}]}]) and not fits(tool, parts=[{"parts": [{"name": 1}]}])


@pytest.mark.parametrize("choice", ["oneOf", "anyOf"])
def test_a_discriminator_tells_choices_apart(choice: str) -> None:
    """Both fit {"kind": ..., "name": ...}: without the discriminator `oneOf` would refuse it."""
    cat = {"type": "object", "properties": {"kind": {"type": "string"}, "name": {"type": "string"}, "lives": {"type": "integer"}}}
    dog = {"type": "object", "properties": {"kind": {"type": "string"}, "name": {"type": "string"}, "lives": {"type": "string"}}}
    names = {"propertyName": "kind", "mapping": {"feline": "#/components/schemas/Cat"}}
    pet = {choice: [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}], "discriminator": names}
    tool = posting(pet, Cat=cat, Dog=dog)
    assert list(tool.parameters["properties"]) == ["body"], "a choice is one argument"
    assert fits(tool, body={"kind": "feline", "name": "a", "lives": 7}) and fits(tool, body={"kind": "Dog", "lives": "one"})
    assert not fits(tool, body={"kind": "feline", "lives": "one"}) and not fits(tool, body={"kind": "Cat"}) and not fits(tool, body={})


def test_all_of_is_one_argument() -> None:
    tool = posting(
        {"allOf": [{"$ref": "#/components/schemas/A"}, {"type": "object", "required": ["b"]}]}, A={"type": "object", "required": ["a"]}
    )
    assert fits(tool, body={"a": 1, "b": 2}) and not fits(tool, body={"a": 1})


# --- names and choice ---


def test_names() -> None:
    many = {f"/orders/{{order_id}}{'/very_long_part' * 9}{end}": {"get": {"responses": OK}} for end in ("/a", "/b")}
    found = tools(spec({"/orders/{order_id}": {"get": {"responses": OK}, "post": {"operationId": "Orders: cancel!"}}, **many}))
    assert list(found)[:2] == ["get_orders_order_id", "Orders_cancel"] and len(found) == 4
    assert all(len(name) <= LONGEST_NAME for name in found)
    assert found["get_orders_order_id"].parameters["required"] == ["order_id"], "used in the path, declared nowhere"
    assert named("x" * 64) == "x" * 64 and len(named("x" * 65)) == LONGEST_NAME and named("é/ü") == "operation"


def test_500_operations_must_be_chosen() -> None:
    paths = {
        f"/t{number % 10}/x{number}": {"get": {"operationId": f"get_x{number}", "tags": [f"t{number % 10}"], "responses": OK}}
        for number in range(500)
    }
    with pytest.raises(BadInput, match=r"500 operations would be tools, and 128 are the most.*operations=.*tag:t0 \(50\), tag:t1"):
        tools(spec(paths))
    assert len(tools(spec(paths), operations=("tag:t3",))) == 50
    assert list(tools(spec(paths), operations=("get_x7", "GET /t1/x1?"))) == [
        "get_x7",
        *(f"get_x{n}" for n in range(11, 20) if n % 10 == 1),
    ]
    assert list(tools(spec(paths), operations=("get_x7",), names={"GET /t7/x7": "seven"})) == ["seven"]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"operations": ("get_x",)}, r"operations: 'get_x' stands for no operation\. Did you mean 'get_a'"),
        ({"operations": ("tag:none",)}, r"operations: 'tag:none' stands for no operation"),
        ({"writes": ("get_b*",)}, r"writes: 'get_b\*' stands for no operation"),
        ({"allow": ("get_*",)}, r"allow: 'get_\*' stands for no operation\. It must be a name, not a pattern"),
        ({"names": {"get_a": "a b"}}, r"names\['get_a'\] = 'a b': a tool's name has up to 64 letters.*'a_b'"),
        ({"names": {"get_a": "do"}}, r"POST /a would both be called 'do'\. Name one of them: names=\{'POST /a'"),
        ({"reads": ("do",), "ends": ("do",)}, r"'do' is declared to be read and end at once"),
        ({"reads": "do"}, r"reads = 'do' is one text; write \('do',\)"),
        ({"produces": {"nothing": ("x",)}}, r"produces names 'nothing'"),
        ({"local_ends": {"do": "end"}}, r"local_ends: 'do' is an operation of the service"),
        ({"local_ends": {"a b": "end"}}, r"local_ends: 'a b' is no tool's name; 'a_b' would be one"),
        ({"auth": {"token": "X"}}, r"auth: 'token': a key is bearer, basic"),
        ({"auth": {"bearer": "a secret!"}}, r"auth\['bearer'\] must name an environment variable"),
        ({"headers": {"Authorization": "Bearer x"}}, r"headers\['Authorization'\] holds a secret in code"),
        ({"reset": "/admin/reset"}, r"reset = '/admin/reset': write a verb and a path without variables"),
        ({"conversations": "alone"}, r"conversations = 'alone': must be 'side_by_side' or 'one_at_a_time'"),
        ({"state": "POST /state"}, r"state = 'POST /state': the state is read with GET"),
        ({"state": ("GET /a/list", "GET /b/list")}, r"two of its paths end alike"),
        ({"fixture": {"PUT /x": "nowhere.json"}}, r"fixture: nowhere\.json is no JSON file"),
    ],
)
def test_what_is_said_wrong(about: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        tools(spec({"/a": {"get": {"operationId": "get_a", "responses": OK}, "post": {"operationId": "do", "responses": OK}}}), **about)


# --- requests ---


def parameter(place: str, name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"in": place, "name": name, "required": place == "path", "schema": {"type": kind}, **more}


@pytest.mark.parametrize(
    ("about", "value", "query"),
    [
        ({}, ["a", "b c"], "q=a&q=b%20c"),
        ({"explode": False}, ["a", "b,c"], "q=a,b%2Cc"),
        ({"style": "spaceDelimited", "explode": False}, ["a", "b"], "q=a%20b"),
        ({"style": "pipeDelimited", "explode": False}, ["a", "b"], "q=a|b"),
        ({"style": "deepObject", "explode": True}, {"a": 1, "b": True}, "q[a]=1&q[b]=true"),
        ({}, {"a": 1, "b": "x"}, "a=1&b=x"),
        ({"explode": False}, {"a": 1, "b": "x"}, "q=a,1,b,x"),
        ({"allowReserved": True}, "a/b?c", "q=a/b?c"),
        ({}, 1.5, "q=1.5"),
        ({"content": {"application/json": {"schema": {}}}}, {"a": [1]}, "q=%7B%22a%22%3A%20%5B1%5D%7D"),
    ],
)
def test_queries(about: dict[str, Any], value: Any, query: str) -> None:
    kind = {list: "array", dict: "object", str: "string", float: "number"}[type(value)]
    assert request([parameter("query", "q", kind, **about)], verb="get", q=value).query == query


@pytest.mark.parametrize(
    ("about", "value", "path"),
    [
        ({}, "a/b ä", "/x/a%2Fb%20%C3%A4"),
        ({}, ["a", "b"], "/x/a,b"),
        ({"explode": True}, {"a": 1}, "/x/a=1"),
        ({"style": "label"}, ["a", "b"], "/x/.a,b"),
        ({"style": "label", "explode": True}, ["a", "b"], "/x/.a.b"),
        ({"style": "matrix"}, ["a", "b"], "/x/;p=a,b"),
        ({"style": "matrix", "explode": True}, ["a", "b"], "/x/;p=a;p=b"),
        ({"style": "matrix", "explode": True}, {"a": 1, "b": 2}, "/x/;a=1;b=2"),
        ({"style": "matrix"}, 5, "/x/;p=5"),
    ],
)
def test_paths(about: dict[str, Any], value: Any, path: str) -> None:
    kind = {list: "array", dict: "object", str: "string", int: "integer"}[type(value)]
    assert request([parameter("path", "p", kind, **about)], "/x/{p}", p=value).path == path


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_what_cannot_stand_in_a_path(value: str) -> None:
    with pytest.raises(Refused, match="cannot stand in a path"):
        request([parameter("path", "p", "string")], "/x/{p}", p=value)


def test_headers_cookies_and_two_of_one_name() -> None:
    both = [
        parameter("path", "id", "string"),
        parameter("query", "id", "string"),
        parameter("header", "X-Tags", "array"),
        parameter("cookie", "c", "string"),
    ]
    sent = request(both, "/x/{id}", id="1", query_id="2", c="a b", **{"X-Tags": ["a", "b"]})
    assert (sent.path, sent.query, sent.headers["X-Tags"], sent.headers["cookie"]) == ("/x/1", "id=2", "a,b", "c=a%20b")
    with pytest.raises(Refused, match="cannot stand in a header"):
        request([parameter("header", "X-A", "string")], **{"X-A": "a\nb: c"})


def test_bodies() -> None:
    fields = {"schema": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "array"}}}}
    assert request([], content={"application/json": fields}, a="ä", n=[1]).content == '{"a": "ä", "n": [1]}'.encode()
    assert request([], content={"application/json": fields}).content is None, "not required, and nothing to send"
    form = request([], content={"application/x-www-form-urlencoded": fields}, a="x y", n=[1, 2])
    assert form.content == b"a=x+y&n=1&n=2" and form.headers["content-type"] == "application/x-www-form-urlencoded"
    parts = request([], content={"multipart/form-data": fields}, a="x")
    assert b'name="a"\r\n\r\nx\r\n' in (parts.content or b"") and "boundary=" in parts.headers["content-type"]
    assert request([], content={"text/plain": {"schema": {"type": "string"}}}, body="hello").content == b"hello"
    both = request([], content={"application/xml": {}, "application/vnd.shop+json": fields}, a="x")
    assert both.headers["content-type"] == "application/vnd.shop+json", "of several types the one that can be sent"


def test_what_nobody_can_send(caplog: pytest.LogCaptureFixture) -> None:
    xml = {"post": {"operationId": "xml", "requestBody": {"content": {"application/xml": {}}}, "responses": OK}}
    file = {"schema": {"type": "object", "properties": {"f": {"type": "string", "format": "binary"}}}}
    upload = {"post": {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": file}}, "responses": OK}}
    document = spec({"/a": {"get": {"operationId": "get_a", "responses": OK}}, "/xml": xml, "/upload": upload})
    assert list(tools(document)) == ["get_a"]
    assert "which no tool call can send: xml (it takes application/xml" in caplog.text and "upload (it takes a file" in caplog.text
    with pytest.raises(BadInput, match=r"'upload' .* can be called by nobody: it takes a file"):
        tools(document, operations=("upload",))


# --- descriptions that cannot be used ---


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"swagger": "2.0", "paths": {}}, r"is of version 2\.0 \(Swagger\); 3\.0 and 3\.1 are read\. Convert it: npx swagger2openapi"),
        ({"openapi": "4.0.0", "paths": {"/x": {}}}, r"openapi = '4\.0\.0': 3\.0 and 3\.1 are read"),
        ({"openapi": "3.1.0"}, "has no paths"),
        ({"name": "x"}, r"is no OpenAPI description: it has no key 'openapi', it is an object with the keys name"),
        ({"openapi": "3.1.0", "paths": {"/x": {}}}, "there is no operation to offer"),
        (spec({"/x": {"$ref": "#/paths/~1y"}, "/y": {"$ref": "#/paths/~1x"}}), "/x: its references go in circles: #/paths/~1y -> #/paths/~1x"),
        (spec({"/x": {"get": {"parameters": [{"$ref": "#/components/parameters/P"}]}}}), r"GET /x: it refers to '#/components/parameters/P', where"),
        (spec({"/x": {"get": {"parameters": [{"name": "a"}]}}}), r"GET /x: a parameter needs name and in"),
        (spec({"/x": {"get": {"parameters": [parameter("query", "a", "string", style="label")]}}}), r"style 'label' in query; allowed: form"),
        (spec({"/x": {"get": {"parameters": [{"in": "query", "name": "a", "schema": {"$ref": "other.yaml#/A"}}]}}}), "'other.yaml#/A', which lies elsewhere"),
        (spec({"/x": {"get": {"parameters": [{"in": "query", "name": "a", "schema": {"$ref": "#/components/schemas/A"}}]}}}, A={"$ref": "#/components/schemas/B"}, B={"$ref": "#/components/schemas/A"}), "refers to itself without end"),
        (spec({"/x": {"get": {"parameters": [{"in": "query", "name": "a", "required": True, "schema": {"type": "strin"}}]}}}), "its input schema cannot be used: it is no JSON schema"),
    ],
)  # fmt: skip
def test_descriptions_that_cannot_be_used(document: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        tools(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is neither JSON nor YAML"),
        ("a: [", "is neither JSON nor YAML"),
        ("just words", r"is no OpenAPI description: it has no key 'openapi', it is 'just words'"),
        ("[" * 100_000, "is neither JSON nor YAML|nested deeper"),
    ],
)
def test_files_that_are_no_description(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "openapi.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        tools(tmp_path / "openapi.yaml")
    with pytest.raises(BadInput, match=r"nowhere\.json: cannot be read"):
        tools(str(tmp_path / "nowhere.json"))


def test_yaml(tmp_path: Path) -> None:
    """Numbers as keys, words that YAML 1.1 took for booleans, and dates are text."""
    text = (
        "openapi: 3.0.3\npaths:\n  /x:\n    get:\n      operationId: do\n      responses:\n        200: {description: well}\n"
        "      parameters: [{in: query, name: a, schema: {type: string, enum: [on, off, 2026-01-05]}}]\n"
    )
    (tmp_path / "openapi.yaml").write_text(text)
    assert tools(tmp_path / "openapi.yaml")["do"].parameters["properties"]["a"]["enum"] == ["on", "off", "2026-01-05"]


@pytest.mark.parametrize("url", ["", "shop.example", "ftp://shop.example", None])
def test_a_base_url_is_needed(url: Any) -> None:
    document = {**spec({"/x": {"get": {"responses": OK}}}), "servers": [{"url": "/v1"}, {"url": "https://shop.example/v1"}]}
    with pytest.raises(BadInput, match=r"base_url = .*: write where the service is.* The description names https://shop\.example/v1"):
        from_openapi(document, url, name="shop", policy="R1. Be kind.")


def test_a_description_from_a_url_says_where_its_service_is() -> None:
    for listed, found in (
        ((), ["http://h:1"]),
        (("/v1",), ["http://h:1/v1"]),
        (("../v2/", "https://x/y"), ["http://h:1/v2", "https://x/y"]),
    ):
        described = openapi_spec.Spec({"servers": [{"url": url} for url in listed]}, "x", "3.1")
        assert openapi_spec.servers(described, "http://h:1/api/openapi.json") == found


def test_a_base_url_holds_no_secret() -> None:
    for url in ("http://ada:secret@127.0.0.1/v1", "http://127.0.0.1/v1?key=secret"):
        with pytest.raises(BadInput, match=r"do not belong there\. Use auth") as caught:
            from_openapi(spec({"/x": {"get": {"responses": OK}}}), url, name="shop", policy="R1. Be kind.")
        assert "secret" not in str(caught.value)


def test_a_url_of_a_description_that_nobody_answers() -> None:
    cls = from_openapi("http://ada:secret@127.0.0.1:9/openapi.json", "http://127.0.0.1:9", name="shop", policy="R1. Be kind.")
    with pytest.raises(
        BadInput, match=r"spec http://127\.0\.0\.1:9/openapi\.json: cannot be fetched \(ConnectError\)\. Start the service"
    ):
        cls.FOREIGN.source.tools()
