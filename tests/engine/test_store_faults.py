"""A disk that does not answer for a moment, bytes that are altered, a process that is killed half-way: nothing good is ever deleted,
nothing bad is ever returned."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import random
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import StageFailed
from tasks.engine import files
from tasks.engine.artifact import Store
from tasks.engine.files import sweep, write_text
from tasks.engine.hashes import file_md5, folder_id
from tasks.engine.key import Key
from tests.engine.test_artifact import flip, folder, the_object

KEY = Key({"stage": "x"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> str:
    """An artifact of two files, recorded, whose stamps have moved, so that a look at it reads it."""
    identity = store.put(folder(tmp_path / "out", a="some bytes", b="others"))
    store.record(KEY, identity, {})
    for name in ("a", "b"):
        the_object(store, identity, name).chmod(0o400)
    return identity


def snapshot(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for part in ("store", "keys") for path in (store.state / part).rglob("*") if path.is_file()}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`failing(part, number)`: every opening for reading of a path that holds `part` fails with that error."""

    def fail(part: str, number: int) -> None:
        real = {"open": builtins.open, "io": io.open}

        def refuse(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if part in os.fspath(path if not isinstance(path, int) else "") and "w" not in mode:
                raise OSError(number, os.strerror(number), os.fspath(path))
            return real["io"](path, mode, *rest, **more)

        monkeypatch.setattr(io, "open", refuse)
        monkeypatch.setattr(builtins, "open", refuse)

    yield fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM, errno.EISDIR])
@pytest.mark.parametrize("what", ["listing", "file", "key"])
def test_a_read_error_is_told_and_deletes_nothing(
    store: Store, kept: str, failing: Callable[..., None], number: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(store)
    paths = {"listing": store._object(kept), "file": the_object(store, kept), "key": store._entry(KEY.digest)}
    with monkeypatch.context() as patch:
        failing(str(paths[what]), number)
        for look in (lambda: store.find(KEY), lambda: store.find(KEY, verify=True)):
            with pytest.raises(OSError, match=os.strerror(number).split("(")[0]):
                look()
        if what != "key":
            with pytest.raises(OSError):
                store.view(kept)
        patch.undo()
    monkeypatch.undo()
    assert snapshot(store) == before
    assert store.find(KEY), "a moment later it is there"


def test_out_of_file_descriptors_for_real(store: Store, kept: str) -> None:
    before = snapshot(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError) as caught:
            store.has(kept)
        assert caught.value.errno == errno.EMFILE
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert snapshot(store) == before and store.has(kept)


def test_an_unreadable_part_makes_no_smaller_listing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be looked into is an error, never an artifact without it."""
    made, real = folder(tmp_path / "out", **{"a": "one", "deep/b": "two"}), os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        store.put(made)


def test_a_disk_that_misreads_once_costs_nothing(store: Store, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first reading gives other bytes, the second the right ones: the object stays."""
    real, count = store.hashes.files, []

    def misread(paths: Any, trust: bool = True) -> Any:
        count.append(1)
        return {path: "0" * 32 if len(count) == 1 else md5 for path, md5 in real(paths, trust).items()}

    before = snapshot(store)
    monkeypatch.setattr(store.hashes, "files", misread)
    store.has(kept)
    assert snapshot(store) == before and store.has(kept)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 3}', '{"identity": "x.dir"}'])
def test_a_damaged_record_is_a_miss_and_is_made_again(store: Store, kept: str, text: str) -> None:
    store._entry(KEY.digest).write_text(text)
    assert store.entry(KEY.digest) is None and store.find(KEY) is None
    store.record(KEY, kept, {})
    assert store.find(KEY)


@pytest.mark.parametrize("damage", ["rubbish", "empty", "cut", "other"])
def test_a_damaged_database_of_hashes_is_named_and_made_anew(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "state")
    identity = store.put(folder(tmp_path / "out", **{f"f{number}": str(number) for number in range(100)}))
    store.hashes._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.hashes._db.close()
    path = tmp_path / "state/hashes.db"
    if damage == "other":
        path.unlink()
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE files (something INT)")
        other.close()
    else:
        data = path.read_bytes()
        path.write_bytes({"rubbish": b"no database at all" * 500, "empty": b"", "cut": data[: len(data) // 2]}[damage])
    again = Store(tmp_path / "state")
    again.hashes.check()
    assert again.has(identity)
    assert damage == "empty" or f"{path} is damaged" in capsys.readouterr().err
    assert again.hashes.check()


def test_a_database_that_breaks_while_it_is_open(store: Store, kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.hashes._db.execute("DROP TABLE files")
    assert store.has(kept)
    assert "it is made anew" in capsys.readouterr().err


def test_a_busy_database_is_not_thrown_away(store: Store, kept: str) -> None:
    store.hashes._db.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(store.state / "hashes.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.hashes._note([(os.stat(store.state), "x")])
    other.execute("ROLLBACK")
    other.close()
    assert store.has(kept)


def test_others_may_read_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o027, 0o640), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            store = Store(tmp_path / oct(umask))
            identity = store.put(folder(tmp_path / f"out{umask}", a="bytes"))
            store.record(KEY, identity, {})
            write_text(store.state / "last/x.json", "{}")
        finally:
            os.umask(before)
        for path in (store._object(identity), store._entry(KEY.digest), store.state / "last/x.json"):
            assert stat.S_IMODE(path.stat().st_mode) == mode, (oct(umask), path)


def test_a_symbolic_link_of_dvc_is_taken_in_as_bytes(store: Store, tmp_path: Path) -> None:
    """`dvc config cache.type symlink`: data/ holds links into another cache."""
    folder(tmp_path / "cache", a="some bytes")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").symlink_to(tmp_path / "cache/a")
    identity = store.put(tmp_path / "data")
    assert not the_object(store, identity).is_symlink() and the_object(store, identity).read_text() == "some bytes"


def test_a_file_system_without_links_copies(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    identity = store.put(folder(tmp_path / "out", a="some bytes"))
    assert (store.view(identity) / "a").read_text() == "some bytes"
    assert stat.S_IMODE((store.view(identity) / "a").stat().st_mode) == 0o666 & ~_umask()
    flip(store.view(identity) / "a")
    assert (store.view(identity) / "a").read_text() == "some bytes", "the copy is laid out anew"
    assert store.has(identity)


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_what_a_killed_process_left_half_written_is_collected(store: Store, kept: str) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tasks.engine.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as path:\n    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = store.state / "keys" / "other.json"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    (left,) = (store.state / "keys").glob(".new-*")
    assert store.sweep() == [left] and not left.exists()
    assert store.find(KEY)


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "x") as path:
        path.write_text("half")
        assert sweep(tmp_path) == []
    assert (tmp_path / "x").read_text() == "half" and sweep(tmp_path) == []


def test_a_link_just_being_placed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("bytes")
    os.link(tmp_path / "x", tmp_path / ".new-1")
    assert sweep(tmp_path) == []


def test_scratch_of_inputs_that_were_put_back_is_not_gone_on_with(store: Store, tmp_path: Path) -> None:
    """A killed attempt may have read what was damaged then: its work in progress goes with it."""
    identity = store.put(folder(tmp_path / "out", a="some bytes"))
    for healed, left in ((False, True), (True, False)):
        _, scratch = store.workbench("k" * 64, [identity])
        (scratch / "state").write_text("step 3")
        if healed:
            the_object(store, identity).unlink()
            time.sleep(0.01)
            assert store.put(folder(tmp_path / "again", a="some bytes")) == identity
        _, scratch = store.workbench("k" * 64, [identity])
        assert (scratch / "state").exists() is left


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_events_returns_right_bytes_or_none(tmp_path: Path, seed: int) -> None:
    """Put, lay out, link, flip, cut, delete, heal, look, in any order: what `view` and `lay_out` give is right, an object whose bytes
    are right is never deleted by a look, and what was put again is there again."""
    rng, store = random.Random(seed), Store(tmp_path / "state")
    contents = [{name: f"{name}{rng.randrange(6)}" * rng.randrange(1, 4) for name in ("a", "b", "c/d")} for _ in range(4)]
    made = [folder(tmp_path / f"made{number}", **one) for number, one in enumerate(contents)]
    known: dict[str, dict[str, str]] = {}

    def put() -> None:
        number = rng.randrange(4)
        for name, text in contents[number].items():  # an earlier flip may have gone through a link into it
            (made[number] / name).unlink()
            (made[number] / name).write_text(text)
        identity = store.put(made[number])
        known[identity] = contents[number]
        assert store.has(identity)

    def objects() -> list[Path]:
        return [path for path in (store.state / "store").rglob("*") if path.is_file()]

    def damage() -> None:
        path = rng.choice(objects())
        what = rng.choice(("flip", "flip loudly", "cut", "delete", "chmod", "link"))
        if what in ("flip", "flip loudly") and path.stat().st_size:
            flip(path, kept=what == "flip")
        elif what == "cut":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1])
        elif what == "delete":
            path.unlink()
        elif what == "chmod":
            path.chmod(0o600)
        else:
            os.link(path, tmp_path / f"link{rng.random()}")

    def good() -> set[Path]:
        return {path for path in objects() if (file_md5(path) + (".dir" if path.suffix else "")) == path.parent.name + path.name}

    def look() -> None:
        identity, before = rng.choice(list(known)), good()
        there = store.has(identity, verify=rng.random() < 0.3)
        assert good() == before
        if not there:
            return
        shown = store.view(identity) if rng.random() < 0.5 else tmp_path / "data"
        store.lay_out(identity, shown)
        assert {str(path.relative_to(shown)): path.read_text() for path in shown.rglob("*") if path.is_file()} == known[identity]

    put()
    for _ in range(40):
        rng.choice((put, look, look, damage))()
    for identity, content in known.items():
        assert store.put(folder(tmp_path / f"last{identity}", **content)) == identity
        assert {path: (store.view(identity) / path).read_text() for path in content} == content
        assert folder_id(store.files(identity) or {}) == identity
    assert not list(store.state.rglob(".new-*"))
    assert all(json.loads(path.read_text()) for path in objects() if path.suffix == ".dir")


@pytest.mark.parametrize("name", ["xx{victim}", "{victim}", "xx{victim}.dir", "", "..", "a\0b", "a" * 400, "A" * 32 + ".dir"])
def test_only_an_objects_name_leads_to_an_object(store: Store, kept: str, tmp_path: Path, name: str) -> None:
    """A dvc.lock or a record may hold anything: no file elsewhere is looked at, let alone removed as damaged."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    victim.with_suffix(".dir").write_text("mine")
    identity = name.format(victim=victim)
    assert not store.has(identity) and store.files(identity) is None and not store.loses(identity)
    assert victim.exists() and victim.with_suffix(".dir").exists() and store.has(kept)
    data = json.dumps([{"md5": identity, "relpath": "a"}]).encode()
    listed = hashlib.md5(data).hexdigest() + ".dir"
    place = store.state / "store/files/md5" / listed[:2] / listed[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    with pytest.raises(StageFailed, match="lists files outside"):
        store.has(listed)
    assert victim.exists()
