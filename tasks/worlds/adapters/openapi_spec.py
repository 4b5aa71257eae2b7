"""An OpenAPI description, read from a file, a dict or a url, and what its references lead to."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

from tasks.contract.params import BadInput, nearest
from tasks.worlds.adapters.server_file import without_secrets

FETCH_SECONDS = 30.0
"""Seconds that a url may take to give the description; ours."""
LARGEST = 64 * 2**20
"""Bytes of a description; ours: the largest public ones have some 12 MB."""


@dataclass(frozen=True)
class Spec:
    """document: as it was read. where: how messages call it. version: "3.0" or "3.1"."""

    document: Mapping[str, Any]
    where: str
    version: str

    def behind(self, node: Any, where: str) -> Mapping[str, Any]:
        """The object that a node is or refers to. BadInput for a reference that leads nowhere, in circles or to another file."""
        seen: list[str] = []
        while isinstance(node, Mapping) and isinstance(pointer := node.get("$ref"), str):
            if pointer in seen:
                raise BadInput(f"{where}: its references go in circles: {' -> '.join([*seen, pointer])}.")
            seen.append(pointer)
            node = self.at(pointer, where)
        if not isinstance(node, Mapping):
            raise BadInput(f"{where}: an object belongs here, the description has {str(node)[:80]!r}.")
        return node

    def at(self, pointer: str, where: str) -> Any:
        """What "#/components/schemas/Order" leads to. BadInput when that is nothing, or lies in another file."""
        if not pointer.startswith("#/") and pointer != "#":
            raise BadInput(
                f"{where}: it refers to {pointer!r}, which lies elsewhere, and nothing is fetched. Bundle the description into one "
                "file (redocly bundle)."
            )
        found: Any = self.document
        for part in pointer.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping) and name in found:
                found = found[name]
            else:
                known = found if isinstance(found, Mapping) else ()
                raise BadInput(f"{where}: it refers to {pointer!r}, where there is no {name!r}.{nearest(name, known)}")
        return found


def read(spec: Path | str | Mapping[str, Any], where: str) -> Spec:
    """The description. where: the world, for messages. BadInput for what is none, for other versions and for what is not there."""
    if isinstance(spec, Mapping):
        return _checked(spec, f"{where}: spec")
    if str(spec).startswith(("http://", "https://")):
        place = without_secrets(str(spec))
        return _checked(_parsed(_fetched(str(spec), f"{where}: spec {place}"), f"{where}: spec {place}"), f"{where}: spec {place}")
    path = Path(spec)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"{where}: spec {path}: cannot be read ({error}).") from None
    return _checked(_parsed(text, f"{where}: spec {path}"), f"{where}: spec {path}")


def _fetched(url: str, where: str) -> str:
    import httpx

    try:
        with httpx.stream("GET", url, timeout=FETCH_SECONDS, follow_redirects=True) as response:
            found = b""
            for piece in response.iter_bytes():
                found += piece
                if len(found) > LARGEST:
                    raise BadInput(
                        f"{where}: it is larger than {LARGEST:,} bytes. Give the description of the operations needed as a file."
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadInput(
            f"{where}: cannot be fetched ({type(error).__name__}). Start the service, or save its description as a file."
        ) from None
    if response.status_code != 200:
        raise BadInput(f"{where}: answers {response.status_code}. Give the url of the description itself, or save it as a file.")
    return found.decode("utf-8", "replace")


def _parsed(text: str, where: str) -> Any:
    """JSON, else YAML 1.2, of which keys and dates become text."""
    from ruamel.yaml import YAML, YAMLError

    try:
        return json.loads(text)
    except RecursionError:
        raise BadInput(f"{where}: it is nested deeper than can be followed.") from None
    except ValueError as broken:
        try:
            return _plain(YAML(typ="safe").load(text))
        except (YAMLError, ValueError, TypeError, RecursionError) as error:
            first = str(broken) if text.lstrip().startswith("{") else " ".join(str(error).split())[:200]
            raise BadInput(f"{where}: is neither JSON nor YAML: {first}.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.datetime) else value


def _key(key: Any) -> str:
    return json.dumps(key) if isinstance(key, bool | int | float) or key is None else str(key)


def _checked(document: Any, where: str) -> Spec:
    if not isinstance(document, Mapping) or not ("openapi" in document or "swagger" in document):
        what = (
            f"an object with the keys {', '.join(map(str, document))[:80]}"
            if isinstance(document, Mapping)
            else f"{str(document)[:60]!r}"
        )
        raise BadInput(f"{where}: is no OpenAPI description: it has no key 'openapi', it is {what}.")
    version = str(document.get("openapi") or document["swagger"])
    if version.startswith(("1.", "2.")):
        raise BadInput(
            f"{where}: is of version {version} (Swagger); 3.0 and 3.1 are read. Convert it: npx swagger2openapi FILE > openapi.json"
        )
    if not version.startswith(("3.0", "3.1")):
        raise BadInput(f"{where}: openapi = {version!r}: 3.0 and 3.1 are read.")
    if not isinstance(document.get("paths"), Mapping) or not document["paths"]:
        raise BadInput(f"{where}: has no paths, so there is no operation to offer.")
    return Spec(document, where, version[:3])


def servers(spec: Spec, origin: str = "") -> list[str]:
    """Absolute urls of the servers that the description names. origin: the url that it was read from, against which relative ones
    count, and which says the host where none is named (as OpenAPI has it); else "".
    """
    listed = spec.document.get("servers") or []
    urls = [one.get("url") for one in listed if isinstance(one, Mapping)]
    if origin:
        urls = [urljoin(origin, url).rstrip("/") for url in urls or ["/"] if isinstance(url, str)]
    return [without_secrets(url) for url in urls if isinstance(url, str) and url.startswith(("http://", "https://"))]
