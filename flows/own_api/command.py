"""What `cairn init --from` is told, the API and the rest, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.own_api import http_service, mcp_server, python_object
from flows.own_api.api import FORMS, Api, Wish
from flows.own_api.guesses import listed
from flows.worlds.new import place
from tasks.contract.params import BadInput, read_yaml


def look(origin: str, wish: Wish) -> Api:
    """The API that `--from` names. Raises BadInput for what is none, with the forms that there are."""
    if origin.startswith(("http://", "https://")):
        return http_service.look(origin, wish)
    path = Path(origin).expanduser()
    if path.suffix in (".yaml", ".yml", ".json"):
        if not path.is_file():
            raise BadInput(f"--from {origin}: there is no such file in {Path.cwd()}. Give {FORMS}.")
        if path.suffix == ".json" or _is_description(path):
            return http_service.look(origin, wish)
        if wish != Wish():
            raise BadInput(
                "--url, --disposable and --operations go with an OpenAPI description; an MCP server's file says this itself."
            )
        return mcp_server.look(path.resolve())
    if wish != Wish():
        raise BadInput("--url, --disposable and --operations go with an OpenAPI description.")
    if ":" not in origin:
        raise BadInput(f"--from {origin}: give {FORMS}.")
    return python_object.look(origin)


def _is_description(path: Path) -> bool:
    values = read_yaml(path, lenient=True)
    return isinstance(values, Mapping) and bool({"openapi", "swagger"} & set(values))


def policy_of(file: str) -> str:
    """The text of a policy; "" where no file is named. Raises BadInput for one that cannot be read or is empty."""
    if not file:
        return ""
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--policy {file}: cannot be read ({error}). Give a text file.") from None
    if not text.strip():
        raise BadInput(f"--policy {file}: is empty. Write the rules that the agent must keep, one a line: R1. ...")
    return text


def player_of(server: str, model: str, key_env: str) -> dict[str, Any]:
    """Who plays the roles that profiles leave to scripts, as under `roles` in the params."""
    if not server.startswith(("http://", "https://")):
        raise BadInput(f"--server {server}: must begin with http:// or https://, such as http://127.0.0.1:8000/v1.")
    return {"backend": "openai_compatible", "base_url": server, "model": model, **({"key_env": key_env} if key_env else {})}


def begun(api: Api, address: str, has_policy: bool, player: Mapping[str, Any]) -> list[str]:
    """What was guessed, and what is left to the user."""
    home = place(address)
    where = f"{home}/world.py" if api.listing or not api.files.keys() | api.texts.keys() >= {"mcp.yaml"} else f"{home}/api/mcp.yaml"
    stands_in = f"none was given (--policy FILE): {home}/policy.md says so until you write it"
    return [
        f"Around {api.origin}. What its tools do was guessed; correct it in {where}:",
        *listed(api.guesses),
        *([f"files of it, copied into {home}/api: {', '.join(sorted(api.files))}"] if api.files else []),
        f"policy: {f'{home}/policy.md' if has_policy else stands_in}",
        f"roles: {player['model']} at {player['base_url']} (project.yaml); in `make smoke` a stub",
        *api.notes,
    ]
