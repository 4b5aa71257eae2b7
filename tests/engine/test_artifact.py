"""The store: identities as DVC's, bytes once, damage noticed, locks that die with their process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from tasks.engine.artifact import Store
from tasks.engine.key import Key
from tasks.engine.locks import lock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_put_and_view(store: Store, tmp_path: Path) -> None:
    made = folder(tmp_path / "out", **{"a": "one", "b/c": "two"})
    identity = store.put(made)
    assert identity == store.put(made) and identity.endswith(".dir")
    view = store.view(identity)
    assert (view / "b/c").read_text() == "two"
    assert (view / "a").stat().st_ino == (store._object(store.files(identity)["a"])).stat().st_ino, "the bytes exist once"  # type: ignore[index]


def test_an_empty_artifact_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="is empty: a stage that leaves nothing has no artifact"):
        store.put(tmp_path / "out")


def test_lay_out_makes_a_folder_exactly_the_artifact(store: Store, tmp_path: Path) -> None:
    identity = store.put(folder(tmp_path / "out", **{"a": "one", "b/c": "two"}))
    target = folder(tmp_path / "target", **{"a": "old", "stale/x": "gone"})
    assert store.lay_out(identity, target)
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == ["a", "b", "b/c"]
    assert (target / "a").read_text() == "one"
    assert not store.lay_out(identity, target), "nothing to do the second time"


@pytest.mark.parametrize("damage", ["delete", "truncate", "alter", "listing"])
def test_damage_makes_a_miss_and_the_rest_survives(store: Store, tmp_path: Path, damage: str) -> None:
    identity = store.put(folder(tmp_path / "out", a="some bytes", b="others"))
    other = store.put(folder(tmp_path / "other", b="others"))
    key = Key({"stage": "x"})
    store.record(key, identity, {})
    assert store.find(key)
    path = store._object(identity) if damage == "listing" else store._object(store.files(identity)["a"])  # type: ignore[index]
    if damage == "delete":
        path.unlink()
    else:
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-1] if damage == "truncate" else bytes([data[0] ^ 1]) + data[1:])
    assert store.find(key) is None
    assert store.has(other)
    assert store.put(folder(tmp_path / "again", a="some bytes", b="others")) == identity
    assert store.find(key), "made again, it is a hit again"


def flip(path: Path, kept: bool = True) -> None:
    """Alter one byte; with `kept`, size and modification time stay as they were."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    if kept:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def the_object(store: Store, identity: str, name: str = "a") -> Path:
    return store._object((store.files(identity) or {})[name])


def test_a_flipped_byte_under_size_and_time_kept_is_found(store: Store, tmp_path: Path) -> None:
    identity = store.put(folder(tmp_path / "out", a="some bytes"))
    assert store.has(identity)
    flip(the_object(store, identity))
    assert not store.has(identity)
    assert not the_object(store, identity).exists(), "the damaged object is gone"


def test_a_flipped_byte_that_no_stamp_shows_is_found_by_verify_and_by_who_reads(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that rots tells nobody: all stamps stay. A run trusts them, a computation does not."""
    monkeypatch.setattr("tasks.engine.hashes._looks", lambda seen: str(seen.st_size))
    identity = store.put(folder(tmp_path / "out", a="some bytes"))
    store.view(identity)
    flip(the_object(store, identity))
    assert store.has(identity)
    with pytest.raises(LookupError, match="was damaged"):
        store.read(identity)
    assert not store.has(identity), "what was damaged is gone"
    other = store.put(folder(tmp_path / "out2", a="other bytes"))
    flip(the_object(store, other))
    assert store.has(other) and not store.has(other, verify=True)


def test_links_and_rights_alone_are_no_damage_and_read_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = store.put(folder(tmp_path / "out", a="some bytes", b="others"))
    path = the_object(store, identity)
    os.link(path, tmp_path / "another name")
    path.chmod(0o400)
    assert store.has(identity), "the change time moved; read again, it is the same"
    time.sleep(0.05)
    assert store.has(identity)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read once more"))
    assert store.has(identity)


def test_what_we_did_to_links_ourselves_is_not_read_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in, laid out twice, replaced by another version, cleared away: then a run reads nothing."""
    out, _ = store.workbench("k" * 64)
    first = store.put(folder(out, **{"a": "one", "same": "s", "twice": "s"}))
    store.clear_workbench("k" * 64)
    second = store.put(folder(tmp_path / "second", **{"a": "two", "same": "s"}))
    store.view(first)
    for identity in (first, second, first):
        assert store.lay_out(identity, tmp_path / "data")
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert store.has(first) and store.has(second) and not store.lay_out(first, tmp_path / "data")
    assert not out.parent.exists()


def test_a_workspace_file_edited_in_place_damages_nothing_unseen(store: Store, tmp_path: Path) -> None:
    """The workspace shares inodes with the store: writing into a data file shows as damage of the artifact, never as its bytes."""
    identity = store.put(folder(tmp_path / "out", a="some bytes"))
    store.lay_out(identity, tmp_path / "data")
    (tmp_path / "data/a").chmod(0o644)
    (tmp_path / "data/a").write_text("edited")
    assert not store.has(identity)


def _hold(state: Path, told: object) -> None:
    with lock(state, "one"):
        told.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    told = multiprocessing.get_context("spawn").Event()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, told))
    holder.start()
    assert told.wait(30)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    start = time.monotonic()
    with lock(tmp_path, "one"):
        assert time.monotonic() - start < 5


def test_the_workbench_keeps_scratch_and_empties_out(store: Store) -> None:
    out, scratch = store.workbench("k" * 64)
    (out / "half").write_text("")
    (scratch / "state").write_text("step 3")
    out, scratch = store.workbench("k" * 64)
    assert not list(out.iterdir()) and (scratch / "state").read_text() == "step 3"
