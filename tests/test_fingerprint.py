"""Promises of fingerprints: the same data has the same digest anywhere, and doubts are told."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks import digests_cache, file_digests, fingerprint_data, plans
from mvc_callbacks.digests_cache import DigestsCache
from mvc_callbacks.fingerprint import gather, plan
from mvc_callbacks.host_cache import cache_folder
from mvc_callbacks.listings import compare, read
from mvc_callbacks.versions import Fingerprint


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def framed(data: bytes) -> bytes:
    return u64(len(data)) + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small files in two folders."""
    folder = tmp_path / "data"
    (folder / "cat").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"first")
    (folder / "cat" / "1.png").write_bytes(b"second")
    (folder / "cat" / "2.png").write_bytes(b"")
    return folder


# The definition.


def test_the_digest_of_files_is_the_definition_spelled_out_by_hand(folder: Path) -> None:
    files = b"".join(
        framed(name) + u64(len(data)) + sha(data)
        for name, data in [(b"a.txt", b"first"), (b"cat/1.png", b"second"), (b"cat/2.png", b"")]
    )
    by_hand = sha(b"mvc-1\n" + u64(3) + sha(files) + u64(0)).hex()
    assert by_hand == "86d413312df98e44a0019789388ddbd098e68efa9953a1857744092bc027830c"
    told = fingerprint_data(folder)
    assert told.digest == by_hand
    assert told.scheme == "mvc-1"
    assert (told.coverage, told.files, told.bytes, told.problems) == ("files", 3, 11, ())


def test_the_digest_of_an_array_is_the_definition_spelled_out_by_hand() -> None:
    numpy = pytest.importorskip("numpy")
    data = struct.pack("<6f", *range(6))
    array = sha(framed(b"F32") + u64(2) + u64(2) + u64(3) + data)
    by_hand = sha(b"mvc-1\n" + u64(0) + sha(b"") + u64(1) + framed(b"") + framed(b"array") + array).hex()
    assert by_hand == "c18b7a845826b95cc13ebfa86d24694036f4fb5ea56cd56d6cddbc3cca1c569a"
    told = fingerprint_data(numpy.arange(6, dtype="f4").reshape(2, 3))
    assert told.digest == by_hand
    assert (told.coverage, told.files, told.bytes, told.listing) == ("arrays", 0, 24, None)


def test_the_listing_has_the_digest_that_the_fingerprint_names(folder: Path) -> None:
    computed = plan(folder).compute()
    assert computed.listing is not None
    data = b"".join(computed.listing)
    assert hashlib.sha256(data).hexdigest() == computed.fingerprint.listing
    assert [entry.path for entry in read([data])] == [b"a.txt", b"cat/1.png", b"cat/2.png"]
    computed.listing.close()


# The same, and not the same.


def test_it_is_independent_of_where_the_folder_lies_and_of_how_it_is_named(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "deep" / "er" / "renamed"
    shutil.copytree(folder, other)
    digests = {
        fingerprint_data(source).digest
        for source in (
            folder,
            str(folder),
            f"{folder}/",
            [folder],
            os.fsencode(folder),
            f"file://{folder}",
            other,
            f"{other}/**",
            [other / "a.txt", other / "cat"],
            [other / "cat" / "1.png", other / "cat" / "2.png", other / "a.txt"],
        )
    }
    assert len(digests) == 1


def test_relative_paths_mean_the_folder_at_the_time_of_planning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    planned = plan("data")
    monkeypatch.chdir("/")
    assert planned.compute().fingerprint.digest == fingerprint_data(folder).digest


def _one_byte(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"firsT")


def _one_name(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "b.txt")


def _one_folder(folder: Path) -> None:
    (folder / "cat").rename(folder / "dog")


def _one_more(folder: Path) -> None:
    (folder / "cat" / "3.png").write_bytes(b"")


def _one_less(folder: Path) -> None:
    (folder / "cat" / "2.png").unlink()


def _swapped(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"second")
    (folder / "cat" / "1.png").write_bytes(b"first")


@pytest.mark.parametrize("change", [_one_byte, _one_name, _one_folder, _one_more, _one_less, _swapped])
def test_it_differs_when_anything_does(folder: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint_data(folder)
    change(folder)
    assert fingerprint_data(folder).digest != before.digest


def test_two_listings_say_which_file_changed(folder: Path) -> None:
    old = plan(folder).compute().listing
    _one_byte(folder)
    _one_more(folder)
    new = plan(folder).compute().listing
    assert old is not None
    assert new is not None
    told = compare(old, new)
    assert told.changed_names == ("a.txt",)
    assert told.added_names == ("cat/3.png",)


def test_several_folders_are_told_apart_by_their_names_wherever_they_lie(tmp_path: Path) -> None:
    for place in ("x/train", "y/extra", "z/deep/train", "w/extra"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1").write_bytes(place[-1:].encode())
    first = fingerprint_data([tmp_path / "x/train", tmp_path / "y/extra"])
    second = fingerprint_data([tmp_path / "z/deep/train", tmp_path / "w/extra"])
    assert first.digest == second.digest
    assert first.files == 2
    same_name = fingerprint_data([tmp_path / "x/train", tmp_path / "z/deep/train"])
    assert same_name.files == 2


def test_what_changes_while_one_trains_is_no_data(folder: Path) -> None:
    before = fingerprint_data(folder)
    store = folder / "model_versions"
    for name in ("objects", "versions"):
        (store / name).mkdir(parents=True)
        (store / name / "x").write_bytes(b"x")
    (store / "format.json").write_text("{}")
    (folder / "lightning_logs").mkdir()
    (folder / "lightning_logs" / "metrics.csv").write_text("x")
    (folder / ".DS_Store").write_bytes(b"x")
    assert fingerprint_data(folder) == before


def test_a_dict_gives_a_fingerprint_for_each_of_its_names(folder: Path) -> None:
    told = fingerprint_data({"train": folder, "val": folder / "cat"})
    assert {name: each.files for name, each in told.items()} == {"train": 3, "val": 2}


def test_what_the_user_named_is_declared(folder: Path) -> None:
    assert plan(folder, declared=True).compute().fingerprint.coverage == "declared"
    planned = gather({"train": [folder / "a.txt", folder / "cat"], "val": None}, declared=True)
    assert list(planned) == ["train"]
    assert planned["train"].compute().fingerprint.digest == fingerprint_data(folder).digest


def test_a_fingerprint_survives_being_told_as_json(folder: Path) -> None:
    told = fingerprint_data([folder, folder / "missing"])
    assert Fingerprint.from_dict(told.to_dict()) == told


def test_braces_name_shards_and_globs_name_files(folder: Path) -> None:
    for number in range(3):
        (folder / f"shard-{number:03}.tar").write_bytes(b"%d" % number)
    shards = fingerprint_data(f"{folder}/shard-{{000..002}}.tar")
    assert shards.files == 3
    assert shards.digest == fingerprint_data(f"{folder}/shard-*.tar").digest
    assert fingerprint_data(f"{folder}/shard-{{000..003}}.tar").coverage == "partial"


# What cannot be believed is told.


def test_bad_input_57_file_changed_while_hashing_is_retried(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = iter([b"x", b"y"])
    read_into = file_digests._read_into

    def meddle(descriptor: int, block: memoryview) -> int:
        count = read_into(descriptor, block)
        data = next(changes, None)
        if data is not None:
            (folder / "a.txt").write_bytes(b"changed " + data)
        return count

    monkeypatch.setattr(file_digests, "_read_into", meddle)
    told = plan(folder / "a.txt").compute().fingerprint
    assert told.problems == ()
    monkeypatch.undo()
    assert told.digest == fingerprint_data(folder / "a.txt").digest


def test_bad_input_57_file_that_never_stays_the_same_is_marked_unstable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_into = file_digests._read_into
    changing = folder / "a.txt"

    def meddle(descriptor: int, block: memoryview) -> int:
        with changing.open("ab") as file:
            file.write(b"more")
        return read_into(descriptor, block)

    monkeypatch.setattr(file_digests, "_read_into", meddle)
    told = plan([changing, folder / "cat"]).compute().fingerprint
    assert told.coverage == "partial"
    assert any("a.txt" in each and "unstable" in each for each in told.problems)
    assert told.digest is not None


def test_bad_input_57_file_replaced_while_hashing_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = iter([True])
    read_into = file_digests._read_into

    def meddle(descriptor: int, block: memoryview) -> int:
        if next(once, False):
            (folder / "new").write_bytes(b"after")
            (folder / "new").rename(folder / "a.txt")
        return read_into(descriptor, block)

    monkeypatch.setattr(file_digests, "_read_into", meddle)
    told = plan(folder / "a.txt").compute().fingerprint
    monkeypatch.undo()
    assert told.digest == fingerprint_data(folder / "a.txt").digest


def test_bad_input_58_mtime_set_back_is_caught_by_the_change_time(aged: Path) -> None:
    before = fingerprint_data(aged)
    assert fingerprint_data(aged) == before
    seen = (aged / "a.txt").stat()
    (aged / "a.txt").write_bytes(b"firsT")
    os.utime(aged / "a.txt", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    after = (aged / "a.txt").stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (seen.st_size, seen.st_mtime_ns, seen.st_ino)
    assert fingerprint_data(aged).digest != before.digest


def test_bad_input_59_missing_and_unreadable_files_are_recorded(folder: Path) -> None:
    (folder / "broken").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    told = fingerprint_data([folder, folder.parent / "gone.csv"])
    assert told.coverage == "partial"
    assert told.files == 3
    assert len(told.problems) == 3
    text = "\n".join(told.problems)
    assert "gone.csv: missing" in text
    assert "broken: missing" in text
    assert "circle: unreadable" in text


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_bad_input_59_a_file_without_permission_is_recorded(folder: Path) -> None:
    (folder / "a.txt").chmod(0)
    assert "Permission denied" in fingerprint_data(folder).problems[0]


def test_bad_input_60_fifo_device_socket_and_proc_are_skipped_and_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # names of sockets are short
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "process").symlink_to("/proc/self/environ")
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind("socket")
        told = fingerprint_data(folder)
    assert told.files == 3
    assert told.coverage == "partial"
    text = "\n".join(sorted(told.problems))
    assert [each.rpartition(": ")[2] for each in sorted(told.problems)] == [
        "a device; skipped",
        "a FIFO; skipped",
        "a file of the system's, not of data; skipped",
        "a socket; skipped",
    ], text


def test_bad_input_61_symlink_loops_end(folder: Path) -> None:
    before = fingerprint_data(folder)
    (folder / "cat" / "again").symlink_to(folder, target_is_directory=True)
    told = fingerprint_data(folder)
    assert told.files == 3
    assert told.digest == before.digest
    assert told.coverage == "partial"
    assert "a link to a folder that it is in" in told.problems[0]


def test_links_to_files_and_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a.txt").symlink_to(folder / "a.txt")
    (linked / "cat").symlink_to(folder / "cat", target_is_directory=True)
    assert fingerprint_data(linked).digest == fingerprint_data(folder).digest


def test_bad_input_62_many_files_are_hashed_in_batches_with_progress(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    seen: list[tuple[int, int]] = []
    told = plan(tmp_path).compute(progress=lambda files, size: seen.append((files, size)), threads=2)
    assert told.fingerprint.files == 3000
    assert seen[-1] == (3000, told.fingerprint.bytes)
    assert seen == sorted(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_bad_input_63_names_that_are_not_utf8_or_have_newlines(tmp_path: Path) -> None:
    names = [b"a\xff.png", b"b\n.png", b"\xe2\x82\xac.png", b"back\\slash", b'"quote"']
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    computed = plan(tmp_path).compute()
    assert computed.fingerprint.problems == ()
    assert computed.listing is not None
    assert [entry.path for entry in read(computed.listing)] == sorted(names)
    (tmp_path / os.fsdecode(names[0])).rename(tmp_path / os.fsdecode(b"a\xfe.png"))
    assert fingerprint_data(tmp_path).digest != computed.fingerprint.digest


def test_bad_input_63_problems_are_one_printable_line_each(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"x\xff\ny")).symlink_to("nowhere")
    [problem] = fingerprint_data(tmp_path).problems
    assert problem.isprintable()
    assert r"x\xff\ny: missing" in problem


def test_bad_input_64_a_sparse_terabyte_is_told_as_not_hashed(folder: Path) -> None:
    try:
        with (folder / "huge.bin").open("wb") as file:
            file.truncate(1024**4)
    except OSError:
        pytest.skip("this file system has no files of a terabyte")
    began = time.monotonic()
    told = fingerprint_data(folder)
    assert time.monotonic() - began < 5
    assert told.files == 3
    assert told.coverage == "partial"
    assert "a sparse file of 1099511627776 bytes; not hashed" in told.problems[0]


def test_bad_input_64_a_limit_of_size_is_told(folder: Path) -> None:
    told = fingerprint_data(folder, largest=5)
    assert told.files == 2
    assert "6 bytes, more than the limit of 5; not hashed" in told.problems[0]


@pytest.mark.parametrize(
    "url", ["https://example.org/x.tar", "s3://bucket/x", "hf://datasets/a/b", "pipe:cat x"]
)
def test_bad_input_64_urls_are_told_as_not_hashed(folder: Path, url: str) -> None:
    alone = fingerprint_data(url)
    assert (alone.digest, alone.coverage) == (None, "opaque")
    assert "not hashed" in alone.problems[0]
    told = fingerprint_data([folder, url])
    assert told.coverage == "partial"
    assert told.digest not in (None, fingerprint_data(folder).digest)


@pytest.mark.parametrize(
    "source", ["nothing-*.png", "missing", "missing/**", "empty", ["missing", "gone"], []]
)
def test_bad_input_65_no_files_found_is_none_and_never_the_hash_of_nothing(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for declared in (False, True):
        computed = plan(source, declared=declared).compute()
        assert computed.fingerprint.digest is None
        assert computed.fingerprint.coverage == "none"
        assert computed.fingerprint.listing is None
        assert computed.listing is None


def test_problems_are_counted_and_the_first_hundred_told(tmp_path: Path) -> None:
    told = fingerprint_data([tmp_path / f"{number}" for number in range(250)])
    assert len(told.problems) == 101
    assert told.problems[-1] == "and 150 more"


# The cache.


def test_an_unchanged_file_is_not_read_again(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_data(aged)

    def refuse(*_: Any) -> Any:
        raise AssertionError("a file was read")

    monkeypatch.setattr(file_digests, "_read", refuse)
    assert fingerprint_data(aged) == before
    assert fingerprint_data([aged / "cat", aged / "a.txt"]).digest == before.digest
    with pytest.raises(AssertionError, match="a file was read"):
        fingerprint_data(aged, cache=False)


def test_only_changed_files_are_read_again(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint_data(aged)
    _one_byte(aged)
    paths = []
    read_one = file_digests._read
    monkeypatch.setattr(
        file_digests, "_read", lambda path, *rest: paths.append(path) or read_one(path, *rest)
    )
    told = fingerprint_data(aged)
    assert paths == [str(aged / "a.txt")]
    monkeypatch.undo()
    assert told == fingerprint_data(aged, cache=False)


def test_a_young_file_is_not_remembered_because_it_may_change_unseen(folder: Path) -> None:
    now = time.time_ns()
    cache = DigestsCache(cache_folder("t") / "digests.sqlite")
    seen = (folder / "a.txt").stat()
    cache.add("/x/young", seen, "aa" * 32, now=now)
    cache.add("/x/old", seen, "aa" * 32, now=now + 10**10)
    cache.close()
    again = DigestsCache(cache_folder("t") / "digests.sqlite")
    assert again.look_up({"/x/young": seen, "/x/old": seen}) == {"/x/old": "aa" * 32}
    again.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "folder", "other table", "no home"])
def test_the_cache_is_expendable(
    aged: Path, damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = fingerprint_data(aged)
    path = cache_folder("files") / "digests.sqlite"
    assert path.exists()
    if damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif damage == "truncated":
        os.truncate(path, 5000)
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "other table":
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE digests (x)")
            database.execute("CREATE TABLE listings (x)")
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fingerprint_data(aged) == before
    assert fingerprint_data(aged) == before


@pytest.mark.parametrize(("seconds", "used"), [(1e6, {"MainThread"}), (0.0, {"MainThread", "mvc-hash"})])
def test_small_files_are_read_by_threads_only_where_reading_waits(
    seconds: float, used: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(300):
        (tmp_path / f"{at:03d}").write_text(str(at), "utf-8")
    seen: set[str] = set()
    read_one = file_digests._read

    def read_here(*given: Any) -> Any:
        seen.add(threading.current_thread().name.partition("_")[0])
        return read_one(*given)

    ticks = iter(range(1000))
    monkeypatch.setattr(file_digests, "_read", read_here)
    monkeypatch.setattr(file_digests.time, "thread_time", lambda: next(ticks) * seconds)
    found = fingerprint_data(tmp_path, cache=False)
    assert seen == used
    monkeypatch.undo()
    assert found == fingerprint_data(tmp_path, cache=False)
    assert found.files == 300


def test_large_files_are_read_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(bytes(100_000))
    seen: set[str] = set()
    read_one = file_digests._read
    monkeypatch.setattr(
        file_digests,
        "_read",
        lambda *given: seen.add(threading.current_thread().name) or read_one(*given),
    )
    fingerprint_data(tmp_path, cache=False)
    assert seen and "MainThread" not in seen


def test_the_cache_is_where_the_user_says(folder: Path) -> None:
    fingerprint_data(folder)
    assert (Path(os.environ["XDG_CACHE_HOME"]) / "mvc" / "files" / "digests.sqlite").is_file()


def test_two_at_once_share_the_cache(folder: Path) -> None:
    told: list[Fingerprint] = []
    threads = [threading.Thread(target=lambda: told.append(fingerprint_data(folder))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(told) == 4
    assert len(set(told)) == 1


# Giving up.


def test_a_run_that_ends_need_not_wait(tmp_path: Path) -> None:
    for number in range(5):
        with (tmp_path / f"{number}").open("wb") as file:
            file.write(os.urandom(1024))
            file.truncate(400 * 1024 * 1024)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    computed = plan(tmp_path).compute(cancelled=stop.is_set, threads=1)
    if not stop.is_set():
        pytest.skip("this machine was quicker")
    assert time.monotonic() - began < 2
    assert (computed.fingerprint.coverage, computed.fingerprint.digest) == ("pending", None)
    assert computed.listing is None


def test_memory_stays_bounded_while_large_files_are_hashed(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(900 * 1024 * 1024)
    code = (
        "import resource, sys; from mvc_callbacks import fingerprint_data; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        f"assert fingerprint_data({str(tmp_path)!r}).files == 1; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB


def test_the_memory_for_a_fingerprint_does_not_grow_with_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # What is held at a time is made so small that a few thousand files stand for a million.
    monkeypatch.setattr(plans, "Sorter", functools.partial(plans.Sorter, run=200))
    monkeypatch.setattr(plans, "_LARGEST_KEPT", 0)
    monkeypatch.setattr(digests_cache, "_WRITTEN_TOGETHER", 200)
    monkeypatch.setattr(digests_cache, "YOUNG", 0)
    monkeypatch.setattr(file_digests, "_AT_ONCE", 200)
    peaks = []
    for count in (1000, 5000):
        folder = tmp_path / str(count)
        for number in range(count):
            place = folder / f"{number // 500:03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:06d}.bin").write_bytes(b"%d" % number)
        for _ in ("first", "again"):
            tracemalloc.start()
            computed = plan(folder).compute()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert computed.listing is not None
            assert computed.fingerprint.files == computed.listing.files == count
            computed.listing.close()
    first, again, first_of_many, again_of_many = peaks
    # Runs that were sorted onto the disk are open files, 2 KB each.
    assert first_of_many < first + 500_000
    assert again_of_many < again + 500_000
