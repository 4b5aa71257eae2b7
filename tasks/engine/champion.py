"""Who is champion, as a file that both drivers read: `params/champion.yaml`.

    champion: {identity: <artifact>}             # or: none
    anchor: {identity: <artifact>}               # the best champion so far; left out where that is the champion
    history:                                     # every champion so far
    - {identity: <artifact>, against: none}      # and whom it met when it was decided; anchor: <artifact>, where it met that too

It is written when a champion is made or unmade, never by looking at it. A candidate that is or was champion is compared with whom it
met when that was decided; so a promotion or a rollback makes no decision stale, and the params of a former champion run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, read_yaml

CHAMPION = "params/champion.yaml"
NONE = "none"


@dataclass(frozen=True)
class Standing:
    """What the file says. champion: identity of the champion's artifact, None without one. met: identity of each champion so far ->
    identity of whom it met when it was decided (None: nobody). anchor: identity of the best champion so far, None where that is the
    champion. anchors: identity of a champion -> of the anchor that it met."""

    champion: str | None = None
    opponents: Mapping[str, str | None] = field(default_factory=dict)
    anchor: str | None = None
    anchors: Mapping[str, str] = field(default_factory=dict)

    def opponent(self, candidate: str) -> str | None:
        """Identity of the model that a candidate (identity of its artifact) has to meet; None when there is none."""
        if candidate in self.opponents:
            return self.opponents[candidate]
        return None if candidate == self.champion else self.champion

    def held_to(self, candidate: str) -> str | None:
        """Identity of the anchor that a candidate has to meet beside its opponent; None when there is none, or it is one of them."""
        if candidate in self.opponents:
            return self.anchors.get(candidate)
        return None if self.anchor in (candidate, self.opponent(candidate)) else self.anchor

    def tree(self) -> dict[str, Any]:
        """The file's content."""
        met = {one: {"anchor": anchor} for one, anchor in self.anchors.items()}
        history = [{"identity": one, "against": other or NONE, **met.get(one, {})} for one, other in self.opponents.items()]
        anchor = {"anchor": {"identity": self.anchor}} if self.anchor else {}
        champion = {"identity": self.champion} if self.champion else NONE
        return {"champion": champion, **anchor, **({"history": history} if history else {})}


def read(path: Path) -> Standing:
    """What the file says; BadInput when it is not of the form above (other entries beside `identity` are for people)."""
    tree = read_yaml(path)
    if not isinstance(tree, Mapping) or "champion" not in tree:
        raise BadInput(f"{path}: the key 'champion' is missing; it names the champion's artifact, or says none")
    champion, history = tree["champion"], tree.get("history") or []
    if champion != NONE and not _names(champion, "identity"):
        raise BadInput(f"{path}: champion = {_short(champion)}: allowed are none, or {{identity: <artifact>}}")
    if not isinstance(history, list) or not all(_names(one, "identity") and _names(one, "against") for one in history):
        raise BadInput(
            f"{path}: history = {_short(history)}: allowed is a list of {{identity: <artifact>, against: <artifact> or none}}"
        )
    anchor = tree.get("anchor")
    if anchor is not None and not _names(anchor, "identity"):
        raise BadInput(f"{path}: anchor = {_short(anchor)}: allowed is {{identity: <artifact>}}, or leave it out")
    anchors = {one["identity"]: one["anchor"] for one in history if _names(one, "anchor")}
    opponents = {one["identity"]: None if one["against"] == NONE else one["against"] for one in history}
    return Standing(None if champion == NONE else champion["identity"], opponents, anchor and anchor["identity"], anchors)


def _names(value: Any, key: str) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get(key), str) and bool(value[key])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
