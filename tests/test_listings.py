"""Promises of listings: one line a file in canonical JSON, sorted, and compared without holding them."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks import canonical
from mvc_callbacks.errors import CorruptRecord
from mvc_callbacks.listings import Entry, Listing, Sorter, compare, read, show_name

A = "aa" * 32
B = "bb" * 32


def listing(*entries: tuple[bytes, int, str]) -> list[bytes]:
    return [b"".join(Entry(*each).line() for each in sorted(entries))]


@given(st.text(min_size=1).filter(lambda text: "\0" not in text), st.integers(0, 2**63))
def test_a_line_is_canonical_json(name: str, size: int) -> None:
    try:
        path = name.encode("utf-8")
    except UnicodeEncodeError:
        return
    line = Entry(path, size, A).line()
    assert line == canonical.encode({"path": name, "size": size, "sha256": A}) + b"\n"
    assert Entry.from_line(line.rstrip(b"\n")) == Entry(path, size, A)


@given(st.binary(min_size=1, max_size=60))
def test_any_name_that_a_file_can_have_comes_back_from_one_ascii_line(path: bytes) -> None:
    line = Entry(path, 3, A).line()
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert list(read([line])) == [Entry(path, 3, A)]


def test_a_name_that_is_not_utf8_is_escaped_as_its_bytes() -> None:
    assert json.loads(Entry(b"a\xff\n.png", 1, A).line())["path"] == {"$bytes": "Yf8KLnBuZw=="}


def test_names_are_shown_on_one_printable_line() -> None:
    assert show_name(b"a\xff\nb\x1b[0m") == r"a\xff\nb\x1b[0m"
    assert show_name("Äpfel/1.png") == "Äpfel/1.png"


def test_a_listing_can_be_cut_anywhere(tmp_path: Path) -> None:
    whole = Listing()
    for number in range(50):
        whole.add(Entry(b"%03d" % number, number, A))
    data = b"".join(whole)
    assert whole.sha256 == hashlib.sha256(data).hexdigest()
    assert (whole.files, whole.size) == (50, len(data))
    pieces = [data[start : start + 7] for start in range(0, len(data), 7)]
    assert list(read(pieces)) == list(read(whole)) == list(read([data]))
    whole.save(tmp_path / "listing")
    assert (tmp_path / "listing").read_bytes() == data
    whole.close()


def test_two_listings_are_compared_file_by_file() -> None:
    old = listing((b"a", 1, A), (b"b", 1, A), (b"c", 1, A), (b"e\xff", 1, A))
    new = listing((b"a", 1, A), (b"b", 1, B), (b"d\n", 1, A), (b"f", 2, A))
    told = compare(old, new)
    assert (told.added, told.removed, told.changed, told.same) == (2, 2, 1, 1)
    assert told.added_names == (r"d\n", "f")
    assert told.removed_names == ("c", r"e\xff")
    assert told.changed_names == ("b",)
    assert told
    assert str(told) == r"2 added (d\n, f), 2 removed (c, e\xff), 1 changed (b)"
    assert not compare(old, old)
    assert str(compare(old, old)) == "the same files"


def test_all_differences_are_counted_and_the_first_are_named() -> None:
    new = listing(*((b"%05d" % number, 1, A) for number in range(1000)))
    told = compare([], new, names=3)
    assert told.added == 1000
    assert told.added_names == ("00000", "00001", "00002")
    assert "…" in str(told)


@given(st.dictionaries(st.binary(min_size=1, max_size=4), st.sampled_from([A, B])), st.data())
def test_comparing_agrees_with_sets(old: dict[bytes, str], data: st.DataObject) -> None:
    new = data.draw(st.dictionaries(st.binary(min_size=1, max_size=4), st.sampled_from([A, B])))
    told = compare(
        listing(*((name, 1, sha) for name, sha in old.items())),
        listing(*((name, 1, sha) for name, sha in new.items())),
    )
    assert told.added == len(new.keys() - old.keys())
    assert told.removed == len(old.keys() - new.keys())
    assert told.changed == sum(old[name] != new[name] for name in old.keys() & new.keys())


@pytest.mark.parametrize(
    "data",
    [
        b"[]\n",
        b'{"path":"a"}\n',
        b'{"path":1,"sha256":"' + A.encode() + b'","size":1}\n',
        b'{"path":"a","sha256":"zz","size":1}\n',
        b'{"path":"a","sha256":"' + A.encode() + b'","size":-1}\n',
        b'{"path":"a","sha256":"' + A.encode() + b'","size":true}\n',
        b'{"path":{"$bytes":"?"},"sha256":"' + A.encode() + b'","size":1}\n',
        Entry(b"b", 1, A).line() + Entry(b"a", 1, A).line(),
        Entry(b"b", 1, A).line()[:-1],
        b"x" * 100_000,
    ],
)
def test_what_is_no_listing_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(CorruptRecord):
        list(read([data]))


def test_entries_come_sorted_and_once_however_many_runs_they_fill() -> None:
    entries = [Entry(b"%d" % (number * 7919 % 1000), 1, A) for number in range(1500)]
    sorter = Sorter(run=64)
    for entry in entries:
        sorter.add(entry)
    assert list(sorter) == sorted(set(entries))
    sorter.close()


def test_bad_input_62_a_million_names_are_sorted_and_listed_in_bounded_memory() -> None:
    count = 100_000  # ten runs on disk; a million in runs of 50 000 has twenty

    def names() -> Iterator[bytes]:
        for number in range(count):
            yield b"folder/%08d.png" % (number * 7919 % count)

    tracemalloc.start()
    sorter, lines = Sorter(run=10_000), Listing()
    for name in names():
        sorter.add(Entry(name, 1, A))
    for entry in sorter:
        lines.add(entry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines.files == count
    assert peak < 12 * 1024 * 1024  # all of them at once would be more than 30 MB
    assert not compare(lines, lines)
    sorter.close()
    lines.close()
