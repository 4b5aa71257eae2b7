"""Settings that are inherited from the environment and from files outside the project, with their origin."""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.finding import Finding, Place, good, note, warning
from flows.inherited_config import NONE, everything


def settings(place: Place) -> Iterator[Finding]:
    """All of them; a warning for one that changes the bytes of files, and with them every key."""
    found = everything(place.project)
    for one in found:
        if one.name == "git core.autocrlf" and one.value.lower() != "false":
            yield warning(
                "inherited",
                str(one),
                "git config core.autocrlf false   # in this project alone; a fresh clone has the line ends of the repository",
            )
        else:
            yield note("inherited", str(one))
    if not found:
        yield good("inherited", NONE)
