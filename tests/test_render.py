"""Promises of text: it is safe for a terminal, aligned, and tells what a reader looks for."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks.render import (
    Cell,
    Paint,
    age,
    clean,
    clip_painted,
    columns,
    moment,
    number,
    size,
    width_of,
    wrapped,
)
from mvc_callbacks.render_lists import RunLine, alias_lines, run_lines
from mvc_callbacks.render_tables import Log, best_of, changed_data, log_lines, marks
from mvc_callbacks.render_values import flatten, hyperparameters, told
from mvc_callbacks.render_version import Page, version_lines
from mvc_callbacks.versions import (
    AliasMove,
    Details,
    Evaluation,
    Fingerprint,
    Monitor,
    Parent,
    Pruned,
    TrainingState,
    Version,
    Weights,
)

NOW = datetime(2025, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
LOSS = Monitor("val_loss", "min")
EVIL = "\x1b]0;owned\x07\x1b[31mred\nnext\r\u202egnp\x9b2J\ud800"


def version(place: int, **changes: Any) -> Version:
    made = Version(
        id=f"{place:012x}".ljust(64, "0"),
        run="baseline",
        number=place,
        sequence=place,
        created="2025-11-24T11:58:00.000000Z",
        framework="lightning",
        epoch=place - 1,
        step=place * 100,
        metrics={"train_loss": 1 / place, "val_loss": 2 / place},
        monitor=LOSS,
        parents=(Parent(f"{place - 1:012x}".ljust(64, "0"), "run"),) if place > 1 else (),
        weights=Weights("d" * 64, 3, 44_800_000, 6_100),
        training_state=TrainingState("e" * 64, "f" * 64, 2, 1000),
        data={"train": Fingerprint("1" * 64, "files", 1797, 1_200_000, "ImageFolder")},
    )
    return replace(made, **changes)


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


def test_escapes_are_seen_and_do_nothing() -> None:
    assert clean(EVIL) == r"\x1b]0;owned\x07\x1b[31mred\nnext\r\u202egnp\x9b2J\ud800"
    assert clean("größe 数据") == "größe 数据"
    assert clean("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (-0.5, "-0.5000"),
        (0.0, "0.0000"),
        (0.00001234, "1.234e-05"),
        (12.3456, "12.346"),
        (1234.5678, "1234.6"),
        (1e9, "1.000e+09"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (7, "7"),
        (10**15, "1.0000e+15"),
        (True, "True"),
        ("\x1b", r"\x1b"),
    ],
)
def test_a_metric_is_told_in_about_five_digits(value: object, text: str) -> None:
    assert number(value) == text


def test_sizes_are_told_in_units_of_a_thousand() -> None:
    told_sizes = [size(each) for each in (0, 999, 1000, 12_345, 999_949, 1_000_000, 4 * 10**9, 10**18)]
    assert told_sizes == ["0 B", "999 B", "1.0 kB", "12.3 kB", "1.0 MB", "1.0 MB", "4.0 GB", "1000 PB"]


def test_ages_are_told_in_the_largest_unit_and_old_ones_as_a_date() -> None:
    assert age("2025-11-24T11:59:58Z", NOW) == "2 s ago"
    assert age("2025-11-24T12:00:01Z", NOW) == "0 s ago"  # two clocks are never the same
    assert age("2025-11-24T11:58:00.123456Z", NOW) == "1 min ago"
    assert age("2025-11-24T09:00:00Z", NOW) == "3 h ago"
    assert age("2025-11-20T09:00:00Z", NOW) == "4 d ago"
    assert age("2025-01-20T09:00:00Z", NOW) == "2025-01-20"
    assert age("2031-01-20T09:00:00Z", NOW) == "2031-01-20"
    assert age("yesterday\x1b", NOW) == r"yesterday\x1b"
    assert moment("2025-11-24T11:58:00.123456Z") == "2025-11-24 11:58:00 UTC"
    assert moment("2025-11-24T11:58:00") == "2025-11-24 11:58:00 UTC"
    assert moment("never") == "never"


def test_columns_are_aligned_also_with_wide_letters_and_colours() -> None:
    rows = [[Cell("数据", "bold"), Cell("1"), Cell("")], [Cell("e\u0301x"), Cell("200"), Cell("")]]
    plain = columns(["NAME", "N", "EMPTY"], rows, right={"N"})
    assert plain == ["NAME    N", "数据    1", "e\u0301x    200"]
    coloured = columns(["NAME", "N", "EMPTY"], rows, right={"N"}, paint=Paint(True))
    assert [re.sub("\x1b\\[[0-9]+m", "", line) for line in coloured] == plain
    assert coloured[1].startswith("\x1b[1m数据\x1b[0m")
    assert width_of("数据") == 4


def test_lists_are_laid_out_in_lines_of_a_width() -> None:
    assert wrapped(["aaa 1", "bbb 2", "ccc 3"], width=16, indent="  ") == ["  aaa 1, bbb 2,", "  ccc 3"]
    assert wrapped([], width=16, indent="  ") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (True, "true"),
        (None, "null"),
        ("text", "text"),
        ([1, [2, "x"]], "[1, [2, x]]"),
        ({"a": 1}, "{a: 1}"),
        ({"$tuple": [1, 2]}, "(1, 2)"),
        ({"$set": [1]}, "{1}"),
        ({"$path": "/data"}, "/data"),
        ({"$class": "torch.nn.ReLU"}, "torch.nn.ReLU"),
        ({"$masked": True}, "(masked)"),
        ({"$untold": ["builtins.function", "<lambda>"]}, "(not told: builtins.function)"),
        ({"$enum": ["my.Colour", "RED", 1]}, "Colour.RED"),
        ({"$datetime": ["2025-11-24T00:00:00", 0]}, "2025-11-24T00:00:00"),
        ({"$dict": [["b", 1], ["a", 2]]}, "{b: 1, a: 2}"),
        ({"$object": ["my.Dict", {"a": 1}]}, "{a: 1}"),
        ({"$bytes": "QUJD" * 100}, "(bytes)"),
        ({"$range": [0, 3, 1]}, "range [0, 3, 1]"),
        (float("nan"), "NaN"),
        (object, "<class 'object'>"),
        ("\x1b[2J", r"\x1b[2J"),
    ],
)
def test_recorded_values_read_well(value: Any, text: str) -> None:
    assert told(value) == text


def test_nested_values_are_laid_out_by_dotted_path() -> None:
    tree = {"$dict": [["z", 1], ["net", {"width": 64, "act": {"$class": "ReLU"}, "none": {}}]]}
    assert flatten(tree) == {"z": 1, "net.width": 64, "net.act": {"$class": "ReLU"}, "net.none": {}}
    assert flatten(
        {"c": {"$omegaconf": {"$dict": [["b", 1]]}}, "d": {"$dataclass": ["my.D", [["x", 2]]]}}
    ) == {
        "c.b": 1,
        "d.x": 2,
    }
    assert flatten({}) == {}
    assert flatten(3) == {"value": 3}


def test_values_that_nest_absurdly_deep_are_told_in_short() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep}
    assert list(flatten(deep)) == [".".join("a" * 17)]
    assert told(deep).endswith("…" + "}" * 17)


def test_hyperparameters_come_as_one_list_in_which_the_users_win() -> None:
    tree = {
        "module": {"lr": 0.1, "width": 64},
        "given": {"lr": 0.2},
        "datamodule": {"batch": 32, "width": 8},
        "module_meta": {"class": "my.Net"},
    }
    assert hyperparameters(tree) == {
        "lr": 0.2,
        "width": 64,
        "batch": 32,
        "datamodule.width": 8,
        "module_meta.class": "my.Net",
    }
    assert hyperparameters(None) == {}
    assert hyperparameters({"lr": 1}) == {"lr": 1}


def test_the_best_is_the_earliest_of_equals_with_weights_and_never_nan() -> None:
    gone = (Pruned("weights", "2025-11-24T11:00:00Z", "save_top_k=1"),)
    versions = [
        version(1, metrics={"val_loss": 0.5}),
        version(2, metrics={"val_loss": float("nan")}),
        version(3, metrics={"val_loss": 0.1}, pruned=gone),
        version(4, metrics={"val_loss": 0.5}),
        version(5, metrics={}),
        version(6, metrics={"val_loss": 0.9, "acc": 0.3}, monitor=Monitor("acc", "max")),
    ]
    assert best_of(reversed(versions)) == {versions[0].id: {"val_loss"}, versions[5].id: {"acc"}}


def test_data_has_changed_only_where_both_digests_are_known_and_differ() -> None:
    parent = version(1)
    other = Fingerprint("2" * 64, "files")
    assert changed_data(version(2), parent) == ()
    assert changed_data(version(2, data={"train": other}), parent) == ("train",)
    assert changed_data(version(2, data={"train": Fingerprint(None, "pending")}), parent) == ()
    assert changed_data(version(2, data={"val": other}), parent) == ()
    assert changed_data(version(2, data={"train": other}), None) == ()


def test_marks_tell_flags_and_what_is_gone() -> None:
    gone = Pruned("state", "2025-11-24T11:00:00Z", "keep_training_state=2")
    weights = replace(version(1).weights, nonfinite=True)
    assert marks(version(1, flags=("stale",), weights=weights, pruned=(gone,))) == (
        "stale",
        "nonfinite",
        "state pruned",
    )
    assert marks(version(1, flags=("nonfinite",), pruned=(replace(gone, what="weights"), gone))) == (
        "nonfinite",
        "weights pruned",
    )


def log_of(*versions: Version, **changes: Any) -> Log:
    return Log(versions=versions[::-1], parents={each.id: each for each in versions}, **changes)


def test_a_log_tells_each_version_on_a_line_the_monitored_metric_first() -> None:
    first, second = version(1), version(2)
    log = log_of(first, second, aliases={second.id: ["stable"]}, best={second.id: frozenset({"val_loss"})})
    assert log_lines(log, now=NOW) == [
        "ID            VERSION     EPOCH  STEP  val_loss  train_loss  WEIGHTS  STORED        AGE  NOTES",
        "000000000002  baseline/2      1   200   *1.0000      0.5000  44.8 MB  6.1 kB  2 min ago  [stable]",
        "000000000001  baseline/1      0   100    2.0000      1.0000  44.8 MB  6.1 kB  2 min ago",
    ]


def test_a_log_tells_where_a_run_began_and_that_its_data_changed() -> None:
    first = version(1)
    other = {"train": Fingerprint("2" * 64, "files")}
    began = version(2, run="finetune", number=1, parents=(Parent(first.id, "resume"),), data=other)
    lost = version(3, run="lost", number=1, parents=(Parent("9" * 64, "restore"),))
    based = version(4, run="based", number=1, parents=(Parent("8" * 64, "restore", elsewhere=True),))
    lines = log_lines(log_of(first, began, lost, based), now=NOW)
    assert lines[1].endswith("<- 888888888888 (of another store)")
    assert lines[2].endswith("<- 999999999999 (not here)")
    assert lines[3].endswith("<- baseline/1  data changed: train")


def test_a_log_fits_metrics_into_the_terminal_but_keeps_those_that_were_asked_for() -> None:
    metrics = {f"metric_{place}": float(place) for place in range(8)}
    one = version(1, metrics={"val_loss": 1.0, **metrics})
    assert "metric_7" not in log_lines(log_of(one), now=NOW)[0]
    assert "metric_0" in log_lines(log_of(one), now=NOW, width=120)[0]
    narrow = log_lines(log_of(one), now=NOW, width=60)[0]
    assert "val_loss" in narrow and "metric_0" not in narrow
    asked = log_lines(log_of(one, metrics=["metric_7", "nothing"]), now=NOW, width=60)[0]
    assert "metric_7" in asked and "val_loss" not in asked


def test_the_same_metric_of_a_step_and_an_epoch_is_shown_once() -> None:
    one = version(1, metrics={"loss": 1.0, "loss_step": 1.0, "loss_epoch": 1.0, "only_step": 2.0})
    head = log_lines(log_of(one), now=NOW)[0]
    assert "loss_step" not in head and "loss_epoch" not in head and "only_step" in head


def everything_evil() -> tuple[Version, Details]:
    fingerprint = Fingerprint("1" * 64, "files", 1, 1, EVIL, problems=tuple([EVIL] * 9))
    made = version(
        2,
        run=EVIL,
        framework=EVIL,
        created=EVIL,
        metrics={EVIL: 1.0, "val_loss": float("nan")},
        parents=(Parent("3" * 64, EVIL, EVIL), Parent("4" * 64, "run")),
        flags=(EVIL,),
        data={EVIL: fingerprint},
        training_state=TrainingState("e" * 64, "f" * 64, 2, 1000, tuple([EVIL] * 30)),
        evaluations=(Evaluation("5" * 64, EVIL, EVIL, {EVIL: 1.0}, {EVIL: fingerprint}),),
        pruned=(Pruned("weights", EVIL, EVIL),),
    )
    facts = {EVIL: EVIL, "packages": {EVIL: EVIL}, "nested": {EVIL: [EVIL]}, "source": f"{EVIL}\n{EVIL}"}
    return made, Details({}, facts, facts, {}, {})


def test_no_text_of_a_store_reaches_the_terminal_as_it_is() -> None:
    made, details = everything_evil()
    made = replace(made, _load=lambda _: details)
    move = AliasMove(EVIL, made.id, None, EVIL, EVIL, EVIL, EVIL)
    page = Page(made, aliases=[EVIL], hyperparameters={EVIL: EVIL}, run={EVIL: EVIL}, more={EVIL: [EVIL]})
    lines = [
        *log_lines(log_of(made, aliases={made.id: [EVIL]}), now=NOW),
        *version_lines(page, now=NOW),
        *version_lines(replace(page, trouble=EVIL), now=NOW),
        *run_lines([RunLine(EVIL, EVIL, EVIL, 1, 1, EVIL, 1, EVIL, 1.0)], now=NOW),
        *alias_lines({EVIL: made.id}, versions={made.id: made}, moves={EVIL: move}, now=NOW),
        *alias_lines({EVIL: "0" * 64}, versions={}, moves={}, now=NOW),
    ]
    assert [line for line in lines if not line.isprintable()] == []
    assert any(r"\x1b" in line for line in lines)


def test_colours_are_the_only_escapes_and_only_when_asked_for() -> None:
    made, details = everything_evil()
    made = replace(made, _load=lambda _: details)
    lines = [
        *log_lines(log_of(made, aliases={made.id: [EVIL]}), now=NOW, paint=Paint(True)),
        *version_lines(Page(made), now=NOW, paint=Paint(True)),
    ]
    assert any("\x1b[" in line for line in lines)
    assert [line for line in lines if not re.sub("\x1b\\[[0-9]+m", "", line).isprintable()] == []


def test_a_page_tells_everything_of_a_version() -> None:
    record = Details({}, {"commit": "a" * 40}, {"python": "3.11.7", "packages": {"torch": "2.13"}}, {}, {})
    made = version(
        2,
        _load=lambda _: record,
        evaluations=(Evaluation("5" * 64, "2025-11-24T11:59:00Z", "test", {"acc": 0.9}, {}),),
    )
    page = Page(
        made,
        parents={version(1).id: version(1)},
        aliases=["production"],
        best=frozenset({"val_loss"}),
        hyperparameters={"lr": 0.1},
        run={"argv": ["train.py"]},
        more={"guarantee": "exact"},
    )
    text = "\n".join(version_lines(page, now=NOW))
    for told_part in (
        f"version {made.id}",
        "baseline/2  (lightning)",
        "2025-11-24 11:58:00 UTC  (2 min ago)",
        "epoch 1, step 200",
        "production",
        "000000000001  baseline/1  (the run's version before)",
        "val_loss    1.0  monitored, min, the best",
        "test, 2025-11-24 11:59:00 UTC: acc 0.9000",
        "3 tensors, 44.8 MB",
        "6.1 kB were new to the store",
        f"digest {'d' * 64}",
        "2 tensors, 1.0 kB",
        "train: 1,797 files, 1.2 MB",
        "found by ImageFolder",
        "lr  0.1",
        "commit  " + "a" * 40,
        "argv  [train.py]",
        "guarantee  exact",
        "python  3.11.7",
        "packages (1)\n    torch 2.13",
    ):
        assert told_part in text


def test_a_page_is_told_without_the_record_that_cannot_be_read() -> None:
    def broken(_: str) -> Details:
        raise AssertionError("the record must not be asked again")

    text = "\n".join(version_lines(Page(version(1, _load=broken), trouble="it is damaged"), now=NOW))
    assert "the rest cannot be read: it is damaged" in text
    assert "3 tensors" in text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Fingerprint(None, "pending"), "not ready yet"),
        (Fingerprint(None, "none"), "train: not found"),
        (Fingerprint("1" * 64, "arrays", 0, 2000), "train: arrays, 2.0 kB"),
        (Fingerprint(None, "opaque"), "train: opaque\n"),
    ],
)
def test_a_fingerprint_is_told_as_what_it_is(data: Fingerprint, text: str) -> None:
    assert text in "\n".join(version_lines(Page(version(1, data={"train": data})), now=NOW)) + "\n"


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 20, 5, 1])
@pytest.mark.parametrize("paint", [Paint(), Paint(colour=True)])
def test_no_line_of_a_log_is_wider_than_asked_for(width: int, paint: Paint) -> None:
    versions = [version(place, metrics={"val_loss": 0.1, "ID": 1.0, "名" * 30: 2.0}) for place in (3, 2, 1)]
    notes = {each.id: "seen " * 20 for each in versions}
    log = Log(versions, aliases={versions[0].id: ["production"]}, remarks=notes, graph=True)
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in log_lines(log, now=NOW, paint=paint, width=width)]
    assert max(map(width_of, lines)) <= width
    assert width < 60 or all("baseline/" in line and "0.1000" in line for line in lines[1:])
    assert width < 80 or "[production]" in lines[1]


def test_a_cut_line_ends_with_its_colour() -> None:
    red = Paint(colour=True)("red and more", "bad")
    assert clip_painted(red, 6) == "\x1b[31mred a…\x1b[0m"
    assert clip_painted(f"plain {red}", 4) == "pla…"
    assert clip_painted(red, 12) == red
