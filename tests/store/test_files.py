"""Promises of the room of files: atomic, durable, and never through a link."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from store_kit import fault

from mvc_callbacks import files
from mvc_callbacks.errors import MissingObject, UnsafeFile


def test_a_file_is_replaced_at_once_and_nothing_is_left_in_staging(tmp_path: Path) -> None:
    target = tmp_path / "a"
    files.replace_file(target, b"one", tmp_path / "tmp")
    files.replace_file(target, b"two", tmp_path / "tmp")
    assert target.read_bytes() == b"two"
    assert files.list_names(tmp_path / "tmp") == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_bad_input_42_43_a_refusing_disk_leaves_the_old_file_and_no_staged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = tmp_path / "a"
    files.replace_file(target, b"old", tmp_path / "tmp")
    for at in range(1, 20):
        with fault(monkeypatch, at, lambda: OSError(number, "refused")) as trace:
            try:
                files.replace_file(target, b"new", tmp_path / "tmp")
            except OSError as error:
                assert error.errno == number
        assert files.list_names(tmp_path / "tmp") == []
        assert target.read_bytes() in (b"old", b"new")
        if len(trace) < at:
            break
        if trace[-1] != "fsync" or trace.count("fsync") == 1:
            assert target.read_bytes() == b"old"
    assert at == 6, trace  # open, write, fsync, rename, fsync of the folder, and then none


def test_bad_input_44_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    path = files.stage(tmp_path, [b"0123456789", b"", memoryview(b"ab")])
    assert path.read_bytes() == b"0123456789ab"


def test_bad_input_44_a_write_of_nothing_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: 0)
    with pytest.raises(OSError, match="no bytes"):
        files.stage(tmp_path, [b"x"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    files.make_folder(tmp_path / "tmp")
    with fault(monkeypatch, 0, OSError) as trace:
        files.replace_file(tmp_path / "a", b"x", tmp_path / "tmp")
    assert trace == ["open", "write", "fsync", "replace", "fsync"]


def test_a_new_folder_is_synced_in_the_one_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault(monkeypatch, 0, OSError) as trace:
        files.make_folder(tmp_path / "a" / "b")
        files.make_folder(tmp_path / "a" / "b")
    assert trace == ["mkdir", "fsync", "mkdir", "fsync"]


def test_a_folder_that_another_process_made_is_synced_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    with fault(monkeypatch, 0, OSError) as trace:
        files.make_folder(tmp_path / "theirs")
        files.make_folder(tmp_path / "theirs")
    assert trace == ["fsync"]


def test_a_rename_that_fails_leaves_the_file_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "only-copy"
    path.write_bytes(b"x")
    with fault(monkeypatch, 1, lambda: OSError(errno.EACCES, "no")), pytest.raises(OSError, match="no"):
        files.rename(path, tmp_path / "b")
    assert path.read_bytes() == b"x"


def _put(kind: str, path: Path) -> None:
    outside = path.parent / "outside"
    if kind == "link":
        outside.write_bytes(b"secret")
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(outside)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # the path of a socket may not be long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.fchdir(here)
        os.close(here)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "fifo", "socket", "device"])
def test_bad_input_18_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    _put(kind, path)
    with pytest.raises(UnsafeFile, match="not a regular file"):
        files.read_file(path, limit=10)
    with pytest.raises(UnsafeFile, match="not a regular file"):
        files.map_file(path)
    assert files.size_of(path) is None
    assert not files.begins_with(path, b"s")


def test_bad_input_20_a_file_in_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeFile, match="plain folder"):
        files.read_file(tmp_path / "link" / "a", limit=10)


def test_bad_input_11_a_file_larger_than_accepted_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UnsafeFile, match="more than"):
        files.read_file(path, limit=1 << 20)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingObject):
        files.read_file(tmp_path / "a", limit=1)
    with pytest.raises(MissingObject):
        files.stamp_of(tmp_path / "a")
    assert not files.remove(tmp_path / "a")
    assert files.list_names(tmp_path / "a") == files.list_folders(tmp_path / "a") == []


def test_an_empty_file_is_read_and_mapped(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert files.read_file(tmp_path / "a", limit=0) == bytes(files.map_file(tmp_path / "a")) == b""


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = files.stage(tmp_path / "tmp", [b"x"])
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_stamp_of_a_file_changes_when_it_is_replaced(tmp_path: Path) -> None:
    files.replace_file(tmp_path / "a", b"1", tmp_path)
    before = files.stamp_of(tmp_path / "a")
    files.replace_file(tmp_path / "a", b"2", tmp_path)
    assert files.stamp_of(tmp_path / "a") != before
