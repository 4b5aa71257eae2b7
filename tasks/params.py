"""Typed params: one frozen model per method, and errors that name the file, the key, the value and what is allowed."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe, and in C where libyaml is there: the whole road's YAML is read on every run. 1e-05 is a number, as in YAML 1.2, which DVC
    reads and writes; PyYAML by itself takes it for a string."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class BadInput(Exception):
    """A user's mistake: shown without a traceback, exit code 2, nothing written."""


class StageFailed(RuntimeError):
    """A stage could not be finished, or would have ended without what it is for; the message says why and what to do."""


class Params(BaseModel):
    """Base of every method's params: frozen, complete, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def nearest(word: str, known: Any) -> str:
    """' Did you mean 'x'?' or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _allowed(model: type[BaseModel], key: str) -> str:
    field = model.model_fields.get(key)
    if field is None:
        return ""
    limits = [
        f"{sign} {value}"
        for meta in field.metadata
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if (value := getattr(meta, name, None)) is not None
    ]
    kind = getattr(field.annotation, "__name__", str(field.annotation).replace("typing.", ""))
    about = f" ({field.description})" if field.description else ""
    return f" Allowed: {kind}{' ' + ' and '.join(limits) if limits else ''}{about}."


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Build `model` from `values`, or raise BadInput with every mistake on a line of its own.

    `where` names the place the values come from, e.g. "params/pipeline.yaml: merge.breadcrumbs".
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            top = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] == "extra_forbidden":
                known = list(model.model_fields)
                lines.append(f"{where}: unknown key {key!r}.{nearest(top, known)} Known keys: {', '.join(known) or 'none'}.")
            else:
                lines.append(f"{where}: {key} = {problem['input']!r}: {problem['msg']}.{_allowed(model, top)}")
        raise BadInput("\n".join(lines)) from None


def read_yaml(path: Path) -> Any:
    """A YAML file, or BadInput that names the file and the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=YamlLoader)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
