"""The benchmarks: their figures are judged rightly, and every topic still runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import Row, Table, alternate, apart, together
from benchmarks.page import Result, missed, render, table_lines

TABLE = Table(
    "Saving",
    "Nothing is fsynced.",
    (
        Row("a save", (0.1, 0.3, 0.2), "s", (2.0, 1.0, 4.0), "a peer", 0.1),
        Row("files", (3.0,), "files", bar=2, bar_on="ours"),
        Row("before the first step", (0.55,), "s", (0.5,), "no callback", 0.1, "difference"),
        Row("only told", (1234.5,), "MB"),
    ),
    ("The limit is the disk.",),
)
RESULT = Result(
    "saving",
    {
        "cores": 2,
        "cpu": "x",
        "memory": "1 GB",
        "file system": "ext4",
        "system": "Linux",
        "python": "3.11",
        "date": "2026-01-01",
    },
    {"torch": "2.13.0"},
    3.0,
    (TABLE,),
)


def test_medians_are_compared_with_their_bar() -> None:
    assert [row.met for row in TABLE.rows] == [True, False, True, None]
    assert TABLE.rows[0].ratio == 0.1
    assert not Row("slower", (0.3,), "s", (2.0,), "a peer", 0.1).met
    assert not Row("slower", (0.65,), "s", (0.5,), "no callback", 0.1, "difference").met


def test_a_table_shows_median_range_ratio_bar_and_verdict() -> None:
    assert table_lines(TABLE)[2:] == [
        "| a save | 0.20 s (0.10–0.30) | 2 s (1–4) · a peer | 0.10 | ≤ 0.1 | met |",
        "| files | 3 files |  |  | ≤ 2 files | **missed** |",
        "| before the first step | 0.55 s | 0.50 s · no callback | 1.10 | ≤ +0.1 s | met |",
        "| only told | 1234 MB |  |  |  |  |",
    ]


def test_results_of_topics_measured_one_by_one_make_one_page() -> None:
    order = ["reading", "saving", "writing"]
    notes = {"Saving: files": "Two were tried.", "Saving: a save": "It is met by now."}
    text = render([RESULT], order, notes)
    assert "## Saving\n\nNothing is fsynced.\n\n| figure |" in text
    assert text.endswith("\n\nThe limit is the disk.\n\n*files*: Two were tried.\n")
    assert missed(TABLE) == ["Saving: files"]
    assert "2 cores of x, 1 GB, ext4" in text and "torch 2.13.0" in text
    assert "Not measured yet: reading, writing." in text
    assert render([], order, notes, before=text) == text

    elsewhere = {**RESULT.machine, "date": "2026-01-02"}
    reading = Result("reading", elsewhere, {}, 1.0, (Table("Reading", "Warm.", (Row("one", (1.0,)),)),))
    both = render([reading], order, {"Saving: files": "Three were tried."}, before=text)
    assert "Not measured yet: writing." in both
    assert "torch 2.13.0, on 2026-01-01 (saving)." in both and "on 2026-01-02 (reading)." in both
    assert both.index("## Reading") < both.index("## Saving")
    assert both.endswith("\n\nThe limit is the disk.\n\n*files*: Three were tried.\n")
    assert text.partition("## Saving")[2].partition("*files*")[0] in both

    again = Result("saving", elsewhere, {}, 1.0, (Table("Saving", "It is all new.", TABLE.rows[:1]),))
    newer = render([again], order, notes, before=both)
    assert (
        "It is all new." in newer and "The limit is the disk." not in newer and "on 2026-01-01" not in newer
    )
    assert "## Reading\n\nWarm." in newer


def test_contenders_take_turns() -> None:
    order: list[str] = []
    results = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaab"
    assert [len(each) for each in results.values()] == [3, 3]


def process(folder: str) -> list[object]:
    return [os.getpid(), [each.name for each in Path(folder).iterdir()], str(Path.cwd())]


def broken() -> None:
    raise ValueError("it broke")


def test_what_is_measured_apart_has_a_process_and_an_empty_folder_of_its_own() -> None:
    number, found, folder = apart(process, folder=".")
    assert number != os.getpid()
    assert found == []
    assert not Path(folder).exists()
    with pytest.raises(RuntimeError, match="it broke"):
        apart(broken)


def test_where_nothing_is_judged_all_is_measured_in_one_process() -> None:
    before = Path.cwd()
    with together():
        number, found, folder = apart(process, folder=".")
        with pytest.raises(ValueError, match="it broke"):
            apart(broken)
    assert (number, found) == (os.getpid(), [])
    assert folder != str(before) and not Path(folder).exists()
    assert Path.cwd() == before


@pytest.mark.slow
@pytest.mark.parametrize("topic", command.TOPICS)
def test_every_topic_runs(topic: str) -> None:
    pytest.importorskip("lightning")
    if topic == "keras":
        pytest.importorskip("keras.callbacks")
    result = command.measure(topic, quick=True)
    assert result.tables
    for table in result.tables:
        assert table.rows
        assert len(table_lines(table)) == len(table.rows) + 2
        assert all(row.ours for row in table.rows)
