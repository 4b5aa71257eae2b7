"""The files of a world around an API: world.py, policy.md, what the API is made of, and a test."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.own_api.api import Api
from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.api.runtime import World

SIZE = 60
"""Users of the world that is looked at; an API has as many as it has."""

PLACEHOLDER = """\
This text stands in for a policy, since none was given: write the rules that the agent must keep, one a line.

R1. Change only what the user asked for, and only after the user said yes.
"""
"""policy.md of a project that was made without --policy."""
UNWRITTEN = "its policy is still the text that `cairn init` put there: write policy.md, which agents, judges and problems go by"


def is_unwritten(policy: str) -> bool:
    """Whether a policy still begins as the one that stands in where none was given."""
    return policy.startswith(PLACEHOLDER.partition("\n")[0])


def check(api: Api, name: str, policy: str) -> None:
    """Raise BadInput for an API that is no world: one that cannot be set back, or whose tools cannot be called."""
    cls = api.built(name, policy or PLACEHOLDER)
    try:
        World.build(cls, SIZE, 0)
    except BadInput as error:
        raise BadInput(f"{api.origin}: it cannot be a world yet. {error}") from None


def write(api: Api, address: str, folder: Path, policy: str) -> None:
    """Write the world's package and its test into a project's folder. address: "package.module:Class" of the world."""
    module, _, cls = address.partition(":")
    home = folder / module.rpartition(".")[0].replace(".", "/")
    texts = _package(api, home.name, cls, policy)
    for place, text in {
        **{home / place: text for place, text in texts.items()},
        folder / f"tests/test_{home.name}.py": _test(api, address),
    }.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, Path):
            shutil.copy(text, place)
        else:
            place.write_text(text, encoding="utf-8")


def _package(api: Api, name: str, cls: str, policy: str) -> dict[str, str | Path]:
    """Place below the world's package -> its text, or the file that it is a copy of."""
    return {
        "__init__.py": f'"""{_title(name)}: {api.origin}, as a world."""\n',
        "world.py": _world(api, name, cls),
        "policy.md": policy or PLACEHOLDER,
        **{f"api/{place}": file for place, file in api.files.items()},
        **{f"api/{place}": text for place, text in api.texts.items()},
    }


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _world(api: Api, name: str, cls: str) -> str:
    """The text of world.py."""
    function, first = api.call
    path = ["# The API's own modules import each other by their names.", 'sys.path.append(str(HERE / "api"))', ""]
    own = [*path, f"import {api.own}  # noqa: E402"] if api.own else []
    listing = [*_listing(api, "writes", "write"), *_listing(api, "ends", "end")] if api.listing else []
    return "\n".join(
        (
            f'"""{_title(name)}: {api.origin}, as a world.',
            "",
            "What its tools do was guessed when this was written. Correct it, write policy.md, and prove the world after every change",
            f"(make world). Problems of your own, users and what is real for `cairn serve --with-tools` are arguments of `{function}`.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            *(f"import {name}" for name in (*api.imports, *(["sys"] if own else []))),
            "from pathlib import Path",
            "",
            f"from tasks.worlds.adapters import {function}",
            "",
            "HERE = Path(__file__).parent",
            *(["", *own] if own else []),
            "",
            "",
            f"class {cls}(",
            f"    {function}(  # type: ignore[misc]",
            f"        {first},",
            f'        name="{name}",',
            '        policy=(HERE / "policy.md").read_text(encoding="utf-8"),',
            *(f"        {line}" for line in api.keywords),
            *(f"        {line}" for line in listing),
            "    )",
            "):",
            f'    """The world of {api.origin}."""',
            "",
        )
    )


def _listing(api: Api, word: str, kind: Kind) -> list[str]:
    """An argument that names tools, each with the reason for which it is there."""
    found = [one for one in api.guesses if one.kind == kind]
    if not found:
        return [f"{word}=(),"]
    return [f"{word}=(", *(f'    "{one.name}",  # {one.why}' for one in found), "),"]


def _test(api: Api, address: str) -> str:
    """The text of the project's own test of the world."""
    module, _, cls = address.partition(":")
    kinds = {one.name: one.kind for one in api.guesses}
    return f'''"""The API is a world: its tools do what world.py says, and it comes back to where it began."""

from __future__ import annotations

from tasks.worlds.api.runtime import World
from {module} import {cls}

KINDS = {{
{"".join(f'    "{name}": "{kind}",{chr(10)}' for name, kind in sorted(kinds.items()))}}}


def test_the_api_is_a_world() -> None:
    """What was guessed when the project was made; correct it here as well as there."""
    world = World.build({cls}, 60, 0, "{address}")
    assert {{name: tool.kind for name, tool in sorted(world.tools.items())}} == KINDS
    assert world.fork().state_hash() == world.fork().state_hash()
'''
