"""A call's arguments as an HTTP request, in the styles that OpenAPI has for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from tasks.worlds.adapters.openapi_operations import Argument, Operation
from tasks.worlds.api.tools import Refused

_RESERVED = ":/?#[]@!$&'()*+,;="
_BETWEEN = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "|", "simple": ","}


@dataclass(frozen=True)
class Prepared:
    """A request without address and authentication. path: with the values in it. query: as it is sent, without "?"."""

    verb: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


def prepared(operation: Operation, arguments: Mapping[str, Any]) -> Prepared:
    """The request of a call. Raises Refused for a value that cannot be sent where it belongs."""
    path, query, headers, cookies, fields = operation.listed.path, list[str](), {"accept": "application/json, */*;q=0.5"}, [], {}
    whole: Any = None
    for argument in operation.arguments:
        if argument.name not in arguments:
            continue
        value = arguments[argument.name]
        value = json.dumps(value, ensure_ascii=False) if argument.json else value
        if argument.place == "path":
            path = path.replace(f"{{{argument.key}}}", _in_path(argument, value))
        elif argument.place == "query":
            query += _in_query(argument, value)
        elif argument.place == "header":
            headers[argument.key] = _on_one_line(argument, _joined(value, ",", argument.explode, lambda text: text))
        elif argument.place == "cookie":
            cookies += _in_query(argument, value)
        elif argument.place == "field":
            fields[argument.key] = value
        else:
            whole = value
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    content, kind = _body(operation, fields, whole, any(one.place == "body" and one.name in arguments for one in operation.arguments))
    return Prepared(operation.listed.verb, path, "&".join(query), {**headers, **kind}, content)


def _text(value: Any) -> str:
    """A plain value as a query has it."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _joined(value: Any, between: str, explode: bool, coded: Any) -> str:
    """Lists as a,b; objects as key,value (explode: key=value)."""
    if isinstance(value, list):
        return between.join(coded(_text(one)) for one in value)
    if isinstance(value, dict):
        pairs = [(coded(key), coded(_text(one))) for key, one in value.items()]
        return between.join(f"{key}={one}" if explode else f"{key}{between}{one}" for key, one in pairs)
    return str(coded(_text(value)))


def _in_path(argument: Argument, value: Any) -> str:
    def coded(text: str) -> str:
        return quote(text, safe="")

    if not isinstance(value, list | dict) and _text(value) in ("", ".", ".."):
        raise Refused(f"argument {argument.name!r} is wrong: {_text(value)!r} cannot stand in a path")
    if argument.style == "simple":
        return _joined(value, ",", argument.explode, coded)
    if argument.style == "label":
        return "." + _joined(value, "." if argument.explode else ",", argument.explode, coded)
    if argument.explode and isinstance(value, list):
        return "".join(f";{argument.key}={coded(_text(one))}" for one in value)
    if argument.explode and isinstance(value, dict):
        return ";" + _joined(value, ";", True, coded)
    return f";{argument.key}={_joined(value, ',', False, coded)}"


def _in_query(argument: Argument, value: Any) -> list[str]:
    def coded(text: str) -> str:
        return quote(text, safe=_RESERVED if argument.reserved else "")

    key = quote(argument.key, safe="[]")
    if argument.style == "deepObject" and isinstance(value, dict):
        return [f"{key}[{coded(name)}]={coded(_text(one))}" for name, one in value.items()]
    if argument.explode and isinstance(value, list):
        return [f"{key}={coded(_text(one))}" for one in value]
    if argument.explode and isinstance(value, dict):
        return [f"{coded(name)}={coded(_text(one))}" for name, one in value.items()]
    return [f"{key}={_joined(value, _BETWEEN.get(argument.style, ','), False, coded)}"]


def _on_one_line(argument: Argument, text: str) -> str:
    """A header's value. Raises Refused for one that HTTP does not take."""
    if not text.isprintable() or not text.isascii():
        raise Refused(f"argument {argument.name!r} is wrong: {text[:60]!r} cannot stand in a header (printable ASCII on one line)")
    return text


def _body(operation: Operation, fields: Mapping[str, Any], whole: Any, has_whole: bool) -> tuple[bytes | None, dict[str, str]]:
    """The content and its type; None where none is sent."""
    if not operation.body or not (has_whole or fields or operation.body_needed):
        return None, {}
    value = whole if has_whole else dict(fields)
    kind = operation.body.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _form(value), {"content-type": kind}
    if kind == "multipart/form-data":
        return _parts(value), {"content-type": f"{kind}; boundary={_BOUNDARY}"}
    if kind == "text/plain":
        return _text(value).encode(), {"content-type": "text/plain; charset=utf-8"}
    return json.dumps(value, ensure_ascii=False).encode(), {"content-type": kind if "json" in kind else "application/json"}


def _pairs(value: Any) -> list[tuple[str, str]]:
    """Fields of a form; a list gives its field several times."""
    if not isinstance(value, dict):
        raise Refused("the body of a form must be an object")
    return [(name, _text(one)) for name, item in value.items() for one in (item if isinstance(item, list) else [item])]


def _form(value: Any) -> bytes:
    return urlencode(_pairs(value)).encode()


_BOUNDARY = "cairn-7f1d2b9e4c"


def _parts(value: Any) -> bytes:
    parts = []
    for name, text in _pairs(value):
        if _BOUNDARY in text:
            raise Refused(f"argument {name!r} is wrong: {_BOUNDARY!r} cannot stand in it")
        safe = name.replace('"', "%22").replace("\r", "").replace("\n", "")
        parts.append(f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{safe}"\r\n\r\n{text}\r\n')
    return ("".join(parts) + f"--{_BOUNDARY}--\r\n").encode()
