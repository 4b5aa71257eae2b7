"""`cairn migrate`: params of an earlier version of Cairn are brought to where they stand today, comments kept.

It goes over params/pipeline.yaml and every profile: moves what has another place now (the table is `tasks/engine/layout.py`), takes
over the files of single methods (params/<stage>/<method>.yaml) that earlier versions read, and says what is left for a person:
params of which today's Cairn knows nothing stay where they are. Doing it twice changes nothing more.

`cairn upgrade` calls this module as a program (`python -m flows.migrate --since COMMIT`) after the merge, so that it is the new
version's table that counts.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.repository import Repository
from tasks.contract.params import BadInput, brief, read_yaml
from tasks.engine import layout
from tasks.engine import project as project_file
from tasks.engine.files import write_text
from tasks.engine.layout import NOTHING, get
from tasks.engine.param_files import PIPELINE
from tasks.engine.settings import Settings
from tasks.road import ROAD, Road


@dataclass
class Migration:
    """What is to be done. texts: file -> its new text; gone: files that nobody reads any more, their values taken over. changed, left:
    lines for people; left is for them to do."""

    texts: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def lines(self, check: bool) -> list[str]:
        """What was done, or would be, and what is left, said once of all files that it concerns."""
        head = [f"{'would change' if check else 'changed'}  {line}" for line in self.changed]
        same: dict[str, list[str]] = {}
        for name, _, what in (line.partition(": ") for line in self.left):
            same.setdefault(what, []).append(name)
        rest = [f"left to you  {', '.join(names)}: {what}" for what, names in same.items()]
        return [*head, *rest] or ["params/ is as today's Cairn wants it; nothing to migrate"]


def migrate(project: Path, check: bool = False, since: str = "") -> Migration:
    """Bring params/ up to date; with `check` only say what would change.

    since: a commit of Cairn's. What the active params' profile changed since then is taken over into params/pipeline.yaml, where the
    project still has the old value; where it has another one, that stays. Raises BadInput for files that are no YAML mappings.
    """
    done = Migration()
    apart = _method_files(project)
    for path in (project / PIPELINE, *sorted((project / "params/profiles").glob("*.yaml"))):
        name = path.relative_to(project).as_posix()
        read_yaml(path)  # refuses what is no YAML, in words
        raw = path.read_bytes().decode()
        old = raw.replace("\r\n", "\n")
        yaml = project_file.round_trip()
        tree = _loaded(yaml, old, path)
        before = [*tree]
        lines = [*_taken_over(tree, apart), *moved(tree), *_added(tree)]
        text = project_file.written(yaml, tree) if lines else old
        text = _apart(text, [key for key in tree if key not in before])
        if since and name == PIPELINE:
            text, more = _follow(project, since, old, text)
            lines += more
        done.changed += [f"{name}: {line}" for line in lines]
        done.left += left(project, name, text)
        if text != old:
            done.texts[name] = text.replace("\n", "\r\n") if "\r\n" in raw else text
    done.gone = [name for name, _, _ in apart]
    done.changed += [
        f"{name} is deleted: params of a method stand in params/pipeline.yaml and the profiles alone" for name in done.gone
    ]
    if not check:
        for name, text in done.texts.items():
            write_text(project / name, text)
        for name in done.gone:
            (project / name).unlink()
            with suppress(OSError):  # other files of the project's lie there
                (project / name).parent.rmdir()
    return done


def _loaded(yaml: Any, text: str, path: Path) -> Any:
    """A file's params with their comments; BadInput for a file that cannot be written again as it means."""
    from ruamel.yaml import YAMLError

    try:
        tree = yaml.load(text)
    except YAMLError as error:  # DVC's reader takes a tab before a comment, this one does not
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{path}{line}: {getattr(error, 'problem', None) or error}, so its comments cannot be kept.") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: expected a mapping of params")
    stages = {stage for one in layout.outdated(tree) for stage in (one.old.split(".")[0], one.new.split(".")[0])}
    counts = Counter(id(node) for _, node in _sections(tree))
    for key, node in _sections(tree):
        if key.split(".")[0] in stages and (counts[id(node)] > 1 or getattr(node, "merge", None)):
            raise BadInput(f"{path}: {key} shares its params with another section (&, *, <<). Write them out in both, then migrate.")
    return tree


def _sections(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, section) of all sections of a file, one that an alias names wherever it stands."""
    for key, value in tree.items():
        if isinstance(value, dict):
            here = f"{path}.{key}" if path else str(key)
            yield here, value
            yield from _sections(value, here)


def left(project: Path, name: str, text: str) -> list[str]:
    """What of a file today's Cairn does not take: params it does not know, and such as found their new place taken."""
    tree = project_file.round_trip().load(text)
    if name != PIPELINE:
        project_file.fill(tree, project_file.read(project))
    stay = []
    for one in layout.outdated(tree):
        stay.append(f"{name}: {one.old} = {brief(one.value)} stays: {one.why}")
    return stay or list(Settings(project, tree, name).mistakes())


# --- moves -------------------------------------------------------------------------------------------------------------


def moved(tree: Any, road: Road = ROAD) -> list[str]:
    """Move what stands in old places, in place; returns a line for each. What cannot move by itself stays."""
    found = layout.outdated(tree, road)
    lines = [f"{one.old} -> {one.new}" for one in found if not one.why]
    if not found:
        return []
    months = {one.move.since for one in found}
    for one in found:
        if not one.why:
            _move(tree, one.old.split("."), one.new.split("."), road)
    for key, default in ((key, one) for one in layout.DEFAULTS for key in layout.in_steps(one.key, road)):
        stage, method = key.split(".")[:2]
        used = get(tree, f"{stage}.method") == method or get(tree, f"{stage}.{method}") is not NOTHING
        missing = get(tree, key) is NOTHING and layout.makeable(tree, key)
        if default.since in months and used and missing:
            _put(tree, key.split("."), default.value)
            lines.append(f"{key}: {brief(default.value)}, which earlier versions took by themselves")
    return lines


def _move(tree: Any, old: list[str], new: list[str], road: Road) -> None:
    """Move one value. A section that is new takes over the old one's place, style and comments; what stays gets a section before it."""
    before, after = get(tree, old[:-1]), get(tree, new[:-1])
    if after is None:  # `loop:` with nothing below it
        after = _section(tree, new[:-1], like=before)
    if after is NOTHING and old[:-2] == new[:-2]:
        goes = {one.old for one in layout.outdated(tree, road) if not one.why and one.new.split(".")[:-1] == new[:-1]}
        stay = [key for key in before if ".".join([*old[:-1], key]) not in goes]
        _rename(get(tree, old[:-2]), old[-2], new[-2])
        after = before
        for key in stay:
            _carry(after, key, _section(tree, old[:-1], like=after), key)
    elif after is NOTHING:
        after = _section(tree, new[:-1], like=before)
    before = get(tree, old[:-1])
    if before is NOTHING or before is after or old[-1] not in before:  # its section is, or has become, the new one
        _rename(after, old[-1], new[-1])
        return
    _carry(before, old[-1], after, new[-1])
    if not before:
        outer = get(tree, old[:-2])
        outer.ca.items.pop(old[-2], None)
        del outer[old[-2]]


def _carry(source: Any, old: str, target: Any, new: str) -> None:
    """Move a value from a section to another, with its comment; a value that stands there stays."""
    value, comment = source.pop(old), source.ca.items.pop(old, None)
    target.setdefault(new, value)
    if comment is not None:
        target.ca.items.setdefault(new, comment)


def _rename(section: Any, old: str, new: str) -> None:
    """Another name for a key, at the same place, with its comment."""
    if old == new:
        return
    place, comment = list(section).index(old), section.ca.items.pop(old, None)
    value = section.pop(old)
    section.insert(place, new, value)
    if comment is not None:
        section.ca.items[new] = comment


def _section(tree: Any, path: list[str], like: Any) -> Any:
    """The section at a path, made where it is missing in the style of another one, behind `method`."""
    from ruamel.yaml.comments import CommentedMap

    for part in path:
        if tree.get(part) is None:
            made = CommentedMap()
            if like.fa.flow_style():
                made.fa.set_flow_style()
            place = list(tree).index("method") + 1 if "method" in tree else len(tree)
            place = list(tree).index(part) if part in tree else place
            tree.pop(part, None)
            tree.insert(place, part, made)
        tree = tree[part]
    return tree


def _put(tree: Any, path: list[str], value: Any) -> None:
    """Write a value, its sections made where they are missing."""
    from ruamel.yaml.comments import CommentedMap

    for part in path[:-1]:
        if tree.get(part) is None:
            tree[part] = CommentedMap()
        tree = tree[part]
    tree[path[-1]] = value


def _method_files(project: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(file, key of the method's section, its values) of each params/<stage>/<method>.yaml, which earlier versions read beside the
    profiles."""
    found = []
    for path in sorted(path for stage in ROAD.names for path in (project / "params" / stage).glob("*.yaml")):
        values = read_yaml(path) or {}
        if not isinstance(values, Mapping):
            raise BadInput(f"{path}: expected a mapping of params")
        found.append((path.relative_to(project).as_posix(), f"{path.parent.name}.{path.stem}", values))
    return found


def _added(tree: Any, road: Road = ROAD) -> Iterator[str]:
    """Write the sections that every file needs where they are missing, behind `method`; a line for each."""
    from ruamel.yaml.comments import CommentedMap

    for key, value in ((key, value) for one, value in layout.NEW for key in layout.in_steps(one, road)):
        stage, _, name = key.partition(".")
        if not name:
            if stage not in tree:
                tree.insert(_behind(tree, stage, road), stage, _flow(value))
                yield f"{key}: {brief(value)}, new"
        elif isinstance(section := tree.get(stage), CommentedMap) and name not in section:
            section.insert(list(section).index("method") + 1 if "method" in section else 0, name, _flow(value))
            yield f"{key}: {brief(value)}, as it was"


def _apart(text: str, sections: Sequence[str]) -> str:
    """A file with a blank line on both sides of these one-line sections, where its sections stand apart from each other."""
    if not re.search(r"\n\n+\w+:", text):
        return text
    for section in sections:
        text = re.sub(rf"\n+({section}: .*\n)\n*", r"\n\n\1\n", text, count=1)
    return text.rstrip("\n") + "\n" if sections else text


def _behind(tree: Any, stage: str, road: Road) -> int:
    """The place of a step's section: behind that of the nearest step before it that has one; at the end where it is no step."""
    before = road.names[: road.index(stage)] if stage in road.names else ()
    return max((list(tree).index(name) + 1 for name in before if name in tree), default=len(tree))


def _flow(value: Mapping[str, Any]) -> Any:
    """A section on one line."""
    from ruamel.yaml.comments import CommentedMap

    made = CommentedMap(value)
    made.fa.set_flow_style()
    return made


def _taken_over(tree: Any, apart: list[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    """Write the values of methods' own files where a profile names none; a line for each."""
    for name, section, values in apart:
        for key, value in values.items():
            if get(tree, f"{section}.{key}") is NOTHING:
                if not layout.makeable(tree, f"{section}.{key}"):
                    raise BadInput(f"{section} is no mapping of params, so what {name} says of {key} cannot be written there.")
                _put(tree, [*section.split("."), key], value)
                yield f"{section}.{key}: {brief(value)}, from {name}"


# --- what the profile changed --------------------------------------------------------------------------------------------


def _follow(project: Path, since: str, old: str, text: str) -> tuple[str, list[str]]:
    """params/pipeline.yaml with what its profile changed since a commit of Cairn's, and a line for each param concerned.

    old: the file as it is. text: the same with everything in its present place.
    """
    yaml = project_file.round_trip()
    active = yaml.load(text)
    path = f"params/profiles/{active.get('profile')}.yaml"
    answer = Repository(project).run("show", f"{since}:{path}")
    if answer.returncode or not (project / path).is_file():
        return text, []  # a profile of the project's own
    own, now = project_file.read(project), (project / path).read_text(encoding="utf-8")
    then = yaml.load(answer.stdout)
    if answer.stdout != now and old == project_file.profile_text(answer.stdout, own):  # never edited: the profile, byte for byte
        return project_file.profile_text(now, own), [f"as profile {active['profile']} is now"]
    moved(then)
    lines = list(follow(active, then, yaml.load(now)))
    return (project_file.written(yaml, active) if lines else text), lines


def follow(active: Any, then: Any, now: Any) -> Iterator[str]:
    """Change in `active` what changed between two states of its profile, unless it was changed there too; a line for each param."""
    before, after = dict(_leaves(then)), dict(_leaves(now))
    for path in [*after, *(path for path in before if path not in after)]:
        key, was, new, mine = ".".join(path), before.get(path, NOTHING), after.get(path, NOTHING), get(active, path)
        if new == was or mine == new:
            continue
        if mine != was or not layout.makeable(active, key):
            yield f"{key} stays {_text(mine)} (its profile: {_text(was)}, now {_text(new)})"
        elif new is NOTHING:
            del get(active, path[:-1])[path[-1]]
            yield f"{key} is gone, as in its profile"
        else:
            _put(active, list(path), new)
            yield f"{key}: {_text(was)} -> {_text(new)}, as in its profile"


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything that is no section."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _text(value: Any) -> str:
    return "not set" if value is NOTHING else brief(value)


def main() -> int:
    """`python -m flows.migrate`: 0 when all is well, 1 when something is left to do."""
    from flows import OUTSIDE, PROJECT

    parser = argparse.ArgumentParser(prog="cairn migrate")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--since", default="", metavar="COMMIT")
    given = parser.parse_args()
    if OUTSIDE:
        raise BadInput(OUTSIDE)
    return report(PROJECT, given.check, given.since)


def report(project: Path, check: bool, since: str = "") -> int:
    """Migrate and say so; 1 when params are left for a person, or with `check` when something would change."""
    done = migrate(project, check, since)
    print("\n".join(done.lines(check)))
    return int(bool(done.left or (check and done.changed)))


if __name__ == "__main__":
    from flows.exit_codes import guarded

    sys.exit(guarded(main))
