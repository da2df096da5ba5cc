"""Promises of the command ``mvc``, by real processes and, where these tell no more, by click's runner."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from neutral_store import make_store, snapshot, tensor

from mvc_callbacks import cli_frame
from mvc_callbacks.cli import mvc
from mvc_callbacks.errors import BadName, UnsafeFile, UnsupportedTensor
from mvc_callbacks.export import write_safetensors
from mvc_callbacks.store import VersionStore
from mvc_callbacks.store_reader import StoreReader
from mvc_callbacks.versions import Monitor, Version

COMMANDS = (
    *("log", "show", "diff", "runs", "aliases", "alias-log", "verify"),
    *("report", "export", "import", "identify"),
    *("promote", "rollback", "remove-alias", "note", "prune", "delete", "rebuild"),
)
RUN = [sys.executable, "-c", "from mvc_callbacks.cli import main; main()"]


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return make_store(tmp_path / "store")[0]


def call(store: VersionStore, *arguments: str) -> Result:
    """Run a command that must do."""
    result = CliRunner().invoke(mvc, [*arguments, "--store", str(store.path)])
    assert result.exit_code == 0, result.output
    return result


def told(store: VersionStore, *arguments: str) -> Any:
    return json.loads(call(store, *arguments, "--json").stdout)


def refused(store: VersionStore | Path, *arguments: str) -> str:
    """Run a command that must fail with one or two lines on standard error; return them."""
    path = store.path if isinstance(store, VersionStore) else store
    result = CliRunner().invoke(mvc, [*arguments, "--store", str(path)])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("mvc: error: ")
    assert 1 <= len(result.stderr.splitlines()) <= 2
    return result.stderr


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=60, **options)


# --- log ---


def test_log_lists_all_versions_newest_first_and_marks_the_best(store: VersionStore) -> None:
    lines = call(store, "log", "--no-graph").stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == [
        *("finetune/2", "finetune/1", "baseline/3", "baseline/2", "baseline/1")
    ]
    assert [line for line in lines if "*" in line] == [lines[1]]
    assert "*0.2000" in lines[1]
    assert "<- baseline/2  data changed: train" in lines[2]


def test_log_of_a_ref_follows_parents_across_runs(store: VersionStore) -> None:
    assert [each["number"] for each in told(store, "log", "finetune")] == [2, 1, 2, 1]
    assert [each["number"] for each in told(store, "log", "latest~1")] == [1, 2, 1]


def test_log_of_a_run_marks_the_best_of_that_run(store: VersionStore) -> None:
    found = told(store, "log", "--run", "baseline")
    assert {each["run"] for each in found} == {"baseline"}
    assert [each["best"] for each in found] == [[], ["val_loss"], []]


def test_log_shows_as_many_as_asked_for_and_says_how_many_more_there_are(store: VersionStore) -> None:
    result = call(store, "log", "-n", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "3 older versions: -n 0 shows all" in result.stderr
    assert len(call(store, "log", "-n", "0", "--no-graph").stdout.splitlines()) == 6
    assert len(told(store, "log", "-n", "1")) == 1


def test_log_shows_twenty_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    run = store.open_run("long", framework="torch")
    for place in range(23):
        run.commit(snapshot(place))
    assert len(call(store, "log").stdout.splitlines()) == 21
    assert len(told(store, "log")) == 23


def test_log_shows_the_metrics_that_are_asked_for(store: VersionStore) -> None:
    assert "val_loss" not in call(store, "log", "--metric", "train_loss").stdout


def test_log_tells_aliases_flags_and_what_was_pruned(store: VersionStore) -> None:
    call(store, "promote", "best", "production")
    store.prune("baseline/1")
    store.prune("baseline/2", what="state")
    lines = call(store, "log", "--no-graph").stdout.splitlines()
    assert "[production]" in lines[1]
    assert lines[4].endswith("state pruned") and lines[5].endswith("weights pruned")


def test_log_still_works_when_the_version_that_a_run_began_from_is_gone(store: VersionStore) -> None:
    call(store, "delete", "--run", "baseline")
    assert re.search(r"<- [0-9a-f]{12} \(not here\)", call(store, "log").stdout)


def test_log_as_json_tells_every_key_that_is_documented(store: VersionStore) -> None:
    text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| (log, show|show) \|", text, re.M))
    [version] = told(store, "log", "-n", "1")
    assert set(version) == {key for key, where in documented.items() if where == "log, show"}
    assert set(told(store, "show")) == set(documented)


def test_metrics_that_are_not_finite_are_texts_in_json(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    store.open_run("odd", framework="torch").commit(
        snapshot(1), metrics={"a": float("nan"), "b": float("-inf"), "c": 1.0}
    )
    assert told(store, "log")[0]["metrics"] == {"a": "nan", "b": "-inf", "c": 1.0}


def names(store: VersionStore, *arguments: str) -> list[str]:
    return [f"{each['run']}/{each['number']}" for each in told(store, "log", *arguments)]


def test_log_draws_where_a_run_branched_off(store: VersionStore) -> None:
    lines = call(store, "log").stdout.splitlines()
    assert [line[:5].rstrip() for line in lines] == ["", "●", "●", "│ ●", "├─╯", "●", "●"]
    straight = call(store, "log", "--run", "baseline").stdout
    assert "●" not in straight
    assert "●" in call(store, "log", "--run", "baseline", "--graph").stdout
    ascii_only = process("log", "--store", str(store.path), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert "|-/" in ascii_only.stdout and ascii_only.stdout.isascii()


def test_log_joins_what_is_shown_to_the_nearest_ancestor_that_is(store: VersionStore) -> None:
    lines = call(
        store, "log", "--graph", "--where", "number==2 or val_loss==0.3 or epoch==0"
    ).stdout.splitlines()
    assert [line[:5].rstrip() for line in lines] == ["", "●", "│ ●", "├─╯", "●", "●"]


def test_log_selects_by_metrics_hyperparameters_and_fields(store: VersionStore) -> None:
    assert names(store, "--where", "lr<0.05 and val_loss<0.22") == ["finetune/2"]
    assert names(store, "--where", "width==64 and act~relu and run=='baseline'") == [
        *("baseline/3", "baseline/2", "baseline/1")
    ]
    assert names(store, "--where", "warmup==true") == ["finetune/2", "finetune/1"]
    assert names(store, "--where", "net.width>64") == []
    assert "asks for 'vall'" in (said := refused(store, "log", "--where", "vall<1"))
    assert "val_loss" in said
    assert "cannot be read at '<1'" in refused(store, "log", "--where", "lr<<1")
    assert "none of " in call(store, "log", "--where", "lr>5").stderr


def test_log_marks_the_best_of_all_whatever_the_filter_leaves(store: VersionStore) -> None:
    assert [each["best"] for each in told(store, "log", "--where", "run=='baseline'")] == [[], [], []]


def test_log_selects_by_time(store: VersionStore) -> None:
    assert len(names(store, "--since", "1h")) == len(names(store, "--since", "2020-01-01")) == 5
    assert names(store, "--since", "2100-01-01") == []
    assert "is no time" in refused(store, "log", "--since", "soon")


def test_log_tells_which_versions_saw_a_file(store: VersionStore, tmp_path: Path) -> None:
    assert names(store, "--data-file", "c/0.png") == ["finetune/2", "finetune/1"]
    assert "train: c/0.png" in call(store, "log", "--data-file", "./c/0.png").stdout
    assert len(names(store, "--data-file", "/data/digits/a/0.png")) == 5
    other = tmp_path / "renamed.png"
    other.write_text("other")  # the content of a/0.png as finetune saw it, under another name
    assert names(store, "--data-file", str(other)) == ["finetune/2", "finetune/1"]
    here = tmp_path / "a" / "0.png"
    here.parent.mkdir()
    here.write_text("a0")
    lines = call(store, "log", "--no-graph", "--data-file", str(here)).stdout.splitlines()
    assert ["other bytes" in line for line in lines[1:]] == [True, True, False, False, False]
    assert names(store, "--data-file", "nothing.png") == []


def test_a_metric_that_no_version_has_is_told_with_those_that_there_are(store: VersionStore) -> None:
    for arguments in (["log", "--metric", "vall"], ["show", "best:vall"], ["show", "best:vall:max"]):
        assert "has the metric 'vall'" in (said := refused(store, *arguments))
        assert "val_loss" in said


# --- notes ---


def test_a_note_is_shown_found_and_kept_by_a_rebuild(store: VersionStore) -> None:
    before = store.get("baseline/2").id
    assert "baseline/2" in call(store, "note", "baseline/2", " Labels of class 8\nwere wrong ").stdout
    call(store, "note", "baseline/2", "second")
    assert store.get("baseline/2").id == before
    for _ in range(2):
        assert [each["text"] for each in told(store, "show", "baseline/2")["notes"]] == [
            *("Labels of class 8\nwere wrong", "second")
        ]
        assert names(store, "--grep", "LABELS of") == ["baseline/2"]
        assert "Labels of class 8\\nwere wrong" in call(store, "log").stdout
        assert "second" in call(store, "show", "baseline/2").stdout
        assert store.verify(full=True).ok
        call(store, "rebuild")
    assert names(store, "--grep", "nothing") == []
    assert "1 to 10000 letters" in refused(store, "note", "best", " ")
    assert "1 to 10000 letters" in refused(store, "note", "best", "x" * 10001)


def test_a_note_that_no_event_tells_is_found_by_verify(store: VersionStore) -> None:
    call(store, "note", "baseline/2", "said")
    path = store.path / "history" / "baseline" / "0001.json"
    path.write_text(path.read_text().replace('"said"', '"never said"'))
    assert not store.verify().ok


# --- show, diff, runs, aliases ---


def test_show_tells_everything_of_a_version_and_of_the_latest_if_none_is_named(store: VersionStore) -> None:
    text = call(store, "show").stdout
    for part in ("finetune/2", "val_loss    0.2", "monitored, min, the best", "warmup", "torch.nn.ReLU"):
        assert part in text
    assert "(masked)" in text and "torch 2.14.0" in text and "b" * 40 in text
    assert "finetune/1  (the run's version before)" in text
    assert "changed since the parent" in call(store, "show", "finetune/1").stdout


def test_show_as_json_has_hyperparameters_as_they_were_recorded(store: VersionStore) -> None:
    page = told(store, "show", "best")
    assert page["hyperparameters"]["given"]["root"] == {"$path": "/data/digits"}
    assert page["code"]["commit"] == "b" * 40
    assert page["run_record"]["resumes"] == store.get("baseline/2").id
    assert page["trouble"] is None


def test_show_tells_what_the_history_knows_when_the_record_of_the_run_is_damaged(store: VersionStore) -> None:
    run = store.get("baseline/1").details.record["run"]["id"]
    [record] = (store.path / "runs").glob(f"*/{run}.json")
    record.write_bytes(record.read_bytes() + b" ")
    text = call(store, "show", "baseline/1").stdout
    assert "the rest cannot be read" in text and "val_loss" in text
    assert told(store, "show", "baseline/1")["hyperparameters"] is None


def test_a_version_whose_record_is_damaged_is_listed_but_not_believed(store: VersionStore) -> None:
    version = store.get("baseline/1")
    [record] = (store.path / "versions").glob(f"*/{version.id}.json")
    record.write_bytes(record.read_bytes() + b" ")
    assert version.short_id in call(store, "log").stdout
    assert str(record) in refused(store, "show", "baseline/1")
    assert CliRunner().invoke(mvc, ["verify", "--store", str(store.path)]).exit_code == 1


def test_diff_tells_what_changed_between_two_versions(store: VersionStore) -> None:
    text = call(store, "diff", "baseline/2", "finetune/1").stdout
    for part in ("~ lr  0.1 -> 0.01", "+ warmup  true", "~ a/0.png", "+ c/0.png", "~ packages.torch"):
        assert part in text
    assert "2 tensors changed, 1 unchanged" in text
    assert told(store, "diff", "baseline/2", "finetune/1")["weights"]["unchanged"] == 1
    assert "the same, bit for bit" in call(store, "diff", "best", "latest").stdout


def test_runs_tells_each_run_with_its_best_and_what_it_resumed(store: VersionStore) -> None:
    lines = call(store, "runs").stdout.splitlines()
    assert lines[1].split()[:5] == ["baseline", "3", "baseline/2", "val_loss", "0.2500"]
    assert lines[2].endswith("<- baseline/2")
    first, second = told(store, "runs")
    assert (first["label"], first["versions"], first["best"]["number"]) == ("baseline", 3, 2)
    assert second["resumes"] == store.get("baseline/2").id


def test_an_alias_moves_and_goes_back_and_tells_why(store: VersionStore) -> None:
    assert (
        "production -> baseline/2" in call(store, "promote", "baseline/best", "production", "-m", "ok").stdout
    )
    moved = call(store, "promote", "best", "production", "-m", "better").stdout
    assert "production -> finetune/2" in moved and "it was baseline/2" in moved
    assert "better" in call(store, "aliases").stdout
    assert "production -> baseline/2" in call(store, "rollback", "production", "--why", "it was worse").stdout
    [alias] = told(store, "aliases")
    assert (alias["name"], alias["run"], alias["number"]) == ("production", "baseline", 2)
    assert (alias["move"]["how"], alias["move"]["why"]) == ("rollback", "it was worse")
    assert "nothing to roll back to" in refused(store, "rollback", "production")


def test_the_log_of_an_alias_tells_who_when_from_to_and_why(store: VersionStore) -> None:
    call(store, "promote", "baseline/1", "production", "-m", "first")
    call(store, "promote", "best", "production")
    call(store, "rollback", "production", "-m", "slow")
    call(store, "promote", "best", "staging")
    lines = call(store, "alias-log", "production").stdout.splitlines()
    assert [re.split(r"  +", line)[1:5] for line in lines[1:]] == [
        ["production", "rollback", "finetune/2", "baseline/1"],
        ["production", "promote", "baseline/1", "finetune/2"],
        ["production", "promote", "-", "baseline/1"],
    ]
    assert lines[1].endswith("slow") and "@" in lines[1] and "UTC" in lines[1]
    assert len(told(store, "alias-log")) == 4
    assert "there are: production, staging" in refused(store, "alias-log", "prod")


def test_an_alias_moves_only_from_where_it_is_expected(store: VersionStore) -> None:
    def moved(*arguments: str) -> int:
        result = CliRunner().invoke(mvc, [*arguments, "--store", str(store.path)])
        assert len(result.stderr.splitlines()) <= 2
        return result.exit_code

    assert moved("promote", "best", "production", "--expect", "baseline/1") == 3
    assert moved("promote", "baseline/1", "production", "--expect", "-") == 0
    assert moved("promote", "best", "production", "--expect", "-") == 3
    assert moved("promote", "best", "production", "--expect", "baseline/2") == 3
    assert store.get("production").number == 1
    assert moved("promote", "best", "production", "--expect", "production") == 0
    assert moved("rollback", "production", "--expect", "baseline/1") == 3
    assert moved("rollback", "production", "--expect", "finetune/2") == 0
    assert moved("promote", "best", "production", "--expect", "nothing") == 2
    assert len(store.alias_log("production")) == 3


def test_an_alias_that_is_removed_lets_its_run_go_and_keeps_its_log(store: VersionStore) -> None:
    call(store, "promote", "baseline/2", "production", "-m", "first")
    assert "remove-alias production" in refused(store, "delete", "--run", "baseline")
    result = CliRunner().invoke(
        mvc, ["remove-alias", "production", "--expect", "best", "--store", str(store.path)]
    )
    assert result.exit_code == 3 and "somebody else has moved it" in result.stderr
    said = call(
        store, "remove-alias", "production", "--expect", "baseline/2", "-m", "nobody serves it"
    ).stdout
    assert re.fullmatch(
        r"removed the alias production; it was baseline/2 \([0-9a-f]{12}\), which stays\n", said
    )
    assert told(store, "aliases") == []
    assert "no alias yet" in call(store, "aliases").stderr
    lines = call(store, "alias-log").stdout.splitlines()
    assert re.split(r"  +", lines[1])[1:5] == ["production", "remove", "baseline/2", "-"]
    assert lines[1].endswith("nobody serves it")
    for command in ("rollback", "remove-alias"):
        assert "there is no alias 'production'" in refused(store, command, "production")
    call(store, "promote", "baseline/1", "staging")
    removed = told(store, "remove-alias", "staging")
    assert removed == {
        "name": "staging", "id": None, "run": "baseline", "number": 1,
        "previous": store.get("baseline/1").id,
    }  # fmt: skip
    assert "deleted the run baseline" in call(store, "delete", "--run", "baseline").stdout


def test_of_many_that_expect_the_same_one_moves_the_alias(store: VersionStore) -> None:
    call(store, "promote", "baseline/1", "production")
    arguments = ["promote", "best", "production", "--expect", "baseline/1", "--store", str(store.path)]
    runs = [
        subprocess.Popen([*RUN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert sorted(run.wait(60) for run in runs) == [0, 3, 3, 3]
    assert len(store.alias_log("production")) == 2


# --- verify, prune, delete, rebuild ---


def test_verify_ends_with_0_where_all_is_well_and_with_1_where_not(store: VersionStore) -> None:
    assert "all is well: 5 versions" in call(store, "verify").stdout
    assert told(store, "verify", "--full")["ok"] is True
    entry = store.entries("baseline/1")["encoder"]
    damaged = next(
        path
        for path in (store.path / "objects").rglob("*.safetensors")
        if entry[2].encode() in path.read_bytes()
    )
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(data)
    result = CliRunner().invoke(mvc, ["verify", "--full", "--store", str(store.path)])
    assert result.exit_code == 1
    assert "baseline/1" in result.stdout and "finetune/2" in result.stdout and "encoder" in result.stdout
    result = CliRunner().invoke(mvc, ["verify", "--json", "--store", str(store.path)])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


def test_prune_frees_the_disk_without_asking_and_tells_what_went(store: VersionStore) -> None:
    call(store, "promote", "baseline/1", "staging")
    planned = call(store, "prune", "--keep-last", "1", "--dry-run").stdout
    assert "would prune the weights of 2 versions" in planned
    assert "kept baseline/1" in planned and "staging" in planned
    assert store.get("baseline/2").has_weights
    done = call(store, "prune", "--keep-last", "1").stdout
    assert "pruned the weights of 2 versions; that freed" in done
    assert [each.has_weights for each in store.versions()] == [True, False, True, False, True]
    assert "nothing to prune" in call(store, "prune", "--keep-last", "1").stdout


def test_prune_keeps_every_nth_and_what_is_young(store: VersionStore) -> None:
    assert "nothing to prune" in call(store, "prune", "--older-than", "1h").stdout
    report = told(store, "prune", "--keep-every", "2", "--older-than", "2100-01-01", "--dry-run")
    assert {store.get(each).number for each in report["versions"]} == {1, 3}
    call(store, "prune", "--keep-every", "2")
    assert [each.has_weights for each in store.versions()] == [False, True, False, False, True]
    assert store.get("baseline/1").pruned[0].policy == "keep_every=2"
    assert "is no time" in refused(store, "prune", "--older-than", "old")


def test_prune_keeps_what_an_alias_pointed_to(store: VersionStore) -> None:
    call(store, "promote", "baseline/1", "production")
    call(store, "promote", "baseline/2", "production")
    report = told(store, "prune", "--keep-alias", "production", "--run", "baseline", "--dry-run")
    assert {store.get(each).number for each in report["versions"]} == {3}
    assert "no alias 'prod'" in refused(store, "prune", "--keep-alias", "prod")


def test_prune_of_named_versions_may_take_the_state_only(store: VersionStore) -> None:
    report = told(store, "prune", "baseline/1", "baseline/2", "--what", "state", "-m", "too large")
    assert len(report["versions"]) == 2
    version = store.get("baseline/1")
    assert version.has_weights and version.pruned[0].policy == "too large"


@pytest.mark.parametrize(
    "arguments", [[], ["--run", "baseline"], ["latest", "--keep-last", "1"], ["--keep-last", "-1"]]
)
def test_prune_refuses_to_guess(store: VersionStore, arguments: list[str]) -> None:
    refused(store, "prune", *arguments)
    assert all(each.has_weights for each in store.versions())


def test_delete_removes_a_run_for_good(store: VersionStore) -> None:
    assert "deleted the run baseline with 3 versions" in call(store, "delete", "--run", "baseline").stdout
    call(store, "rebuild")
    assert {each.run for each in store.versions()} == {"finetune"}
    assert "baseline" in refused(store, "delete", "--run", "baseline")


def test_rebuild_makes_the_history_again(store: VersionStore) -> None:
    before = call(store, "log").stdout
    call(store, "promote", "best", "production")
    for path in (store.path / "history").rglob("*.json"):
        path.write_bytes(b"")
    assert "rebuild" in refused(store, "log")
    assert "made again: 5 versions, 2 runs, 1 alias" in call(store, "rebuild").stdout
    after = call(store, "log").stdout
    assert [line.split()[0] for line in after.splitlines()] == [
        line.split()[0] for line in before.splitlines()
    ]
    assert told(store, "rebuild")["versions"] == 5


# --- export ---


def test_an_exported_file_is_what_stock_safetensors_loads(store: VersionStore, tmp_path: Path) -> None:
    load = pytest.importorskip("safetensors.torch").load_file
    target = tmp_path / "model.safetensors"
    said = call(store, "export", "best", str(target)).stdout
    assert "3 tensors" in said and "finetune/2" in said
    loaded = load(target)
    neutral = store.tensors("best")
    assert {name: each.numpy().tobytes() for name, each in loaded.items()} == {
        name: bytes(each.data) for name, each in neutral.items()
    }
    assert list(tmp_path.glob("*.staged")) == []


def test_export_overwrites_only_when_told_to(store: VersionStore, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.write_text("mine")
    assert "already" in refused(store, "export", "best", str(target))
    assert target.read_text() == "mine"
    link = tmp_path / "link.safetensors"
    link.symlink_to(target)
    call(store, "export", "best", str(link), "--force")
    assert link.is_symlink() and target.stat().st_size > 1000


def test_export_refuses_folders_devices_and_the_store_itself(store: VersionStore, tmp_path: Path) -> None:
    assert "not a regular file" in refused(store, "export", "best", str(tmp_path))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in refused(store, "export", "best", str(fifo), "--force")
    assert "no such folder" in refused(store, "export", "best", str(tmp_path / "none" / "model.safetensors"))
    assert "inside the store" in refused(
        store, "export", "best", str(store.path / "objects" / "x.safetensors")
    )


def test_export_says_what_it_leaves_out(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    store.open_run("x", framework="torch").commit(snapshot(1, extra={"head._extra_state": {"a": 1}}))
    assert "head._extra_state" in call(store, "export", "latest", str(tmp_path / "m.safetensors")).stderr


def test_export_of_pruned_weights_says_what_there_is_instead(store: VersionStore, tmp_path: Path) -> None:
    store.prune("baseline/1")
    assert "the nearest one" in refused(store, "export", "baseline/1", str(tmp_path / "m.safetensors"))
    assert not (tmp_path / "m.safetensors").exists()


def test_every_dtype_that_safetensors_has_is_exported_as_itself(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    load = pytest.importorskip("safetensors.torch").load_file
    names = {
        "BOOL": "bool",
        "U8": "uint8",
        "I16": "int16",
        "U16": "uint16",
        "F16": "float16",
        "BF16": "bfloat16",
        "F32": "float32",
        "I64": "int64",
        "F64": "float64",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "F8_E8M0": "float8_e8m0fnu",
        "F4_E2M1X2": "float4_e2m1fn_x2",
    }
    tensors = {f"odd/ä\0{dtype}": tensor(7, (3, 2), dtype) for dtype in names if dtype != "BOOL"}
    tensors["BOOL"] = type(tensor(1))("BOOL", (), memoryview(b"\x01"))
    tensors[""] = tensor(1, (0, 3))
    target = tmp_path / "all.safetensors"
    assert write_safetensors(tensors, target) == target.stat().st_size
    loaded = load(target)
    assert set(loaded) == set(tensors)
    for name, each in loaded.items():
        assert tuple(each.shape) == tensors[name].shape
        assert each.reshape(-1).view(torch.uint8).numpy().tobytes() == bytes(tensors[name].data)
    assert all(
        loaded[f"odd/ä\0{dtype}"].dtype == getattr(torch, name)
        for dtype, name in names.items()
        if dtype != "BOOL"
    )


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"__metadata__": tensor(1)}, BadName),
        ({"x": tensor(1, (2,), "C128")}, UnsupportedTensor),
        ({"x": tensor(1, (), "F4_E2M1X2")}, UnsupportedTensor),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_by_name(
    tensors: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error, match="safetensors"):
        write_safetensors(tensors, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_safetensors({"x": tensor(1)}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile):
        write_safetensors({}, tmp_path, overwrite=True)


# --- errors, output, start-up ---


def test_what_is_not_there_is_told_with_the_absolute_path_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    needed = {
        "diff": ["latest", "best"],
        "export": ["best", "y.safetensors"],
        "identify": ["x.safetensors"],
        "note": ["best", "text"],
        "promote": ["best", "production"],
        "rollback": ["production"],
        "remove-alias": ["production"],
        "prune": ["--keep-last", "1"],
        "delete": ["--run", "baseline"],
    }
    (tmp_path / "x.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    for command in set(COMMANDS) - {"import"}:  # which makes a store
        said = refused(Path("none"), command, *needed.get(command, []))
        assert str(tmp_path / "none") in said
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_store_is_named_before_the_command_after_it_or_by_the_environment(store: VersionStore) -> None:
    runner = CliRunner()
    before = runner.invoke(mvc, ["--store", str(store.path), "log", "--json"])
    after = runner.invoke(mvc, ["log", "--json", "--store", str(store.path)])
    named = runner.invoke(mvc, ["log", "--json"], env={"MVC_STORE": str(store.path)})
    both = runner.invoke(mvc, ["--store", "/nowhere", "log", "--json", "--store", str(store.path)])
    assert before.stdout == after.stdout == named.stdout == both.stdout != ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "zzzz"],
        ["show", "../../etc/passwd"],
        ["show", "abcd1234"],
        ["show", "best:nothing:max"],
        ["log", "--run", "nope"],
        ["log", "latest", "--run", "baseline"],
        ["log", "-n", "-1"],
        ["log", "-n", "many"],
        ["promote", "best", "latest"],
        ["promote", "best", "baseline"],
        ["rollback", "nothing"],
        ["remove-alias", "nothing"],
        ["diff", "best"],
        ["prune", "best", "--what", "all"],
        ["nonsense"],
        ["log", "--nonsense"],
    ],
)
def test_errors_are_one_or_two_lines_and_the_status_is_2(store: VersionStore, arguments: list[str]) -> None:
    refused(store, *arguments)


def test_an_error_of_the_system_is_told_with_its_file(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(store.path / "history\x1b"))

    monkeypatch.setattr(StoreReader, "overview", refuse)
    assert r"mvc: error: Permission denied: " in (said := refused(store, "log"))
    assert r"history\x1b" in said


def test_a_fault_of_mvc_itself_is_told_in_two_lines(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(StoreReader, "overview", fail)
    assert "ZeroDivisionError" in (said := refused(store, "log")) and "MVC_DEBUG=1" in said
    monkeypatch.setenv("MVC_DEBUG", "1")
    assert isinstance(
        CliRunner().invoke(mvc, ["log", "--store", str(store.path)]).exception, ZeroDivisionError
    )


def test_a_store_without_a_version_is_no_error(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    store.open_run("empty", framework="torch")
    for command in ("log", "runs", "aliases"):
        result = call(store, command)
        assert result.stdout == "" and str(store.path) in result.stderr
        assert told(store, command) == []


def test_help_is_there_for_every_command(store: VersionStore) -> None:
    runner = CliRunner()
    text = runner.invoke(mvc, []).stdout
    assert [command for command in COMMANDS if re.search(rf"^  {command} ", text, re.M)] == list(COMMANDS)
    assert list(mvc.commands) == list(COMMANDS)
    for command in COMMANDS:
        result = runner.invoke(mvc, [command, "--help"])
        assert result.exit_code == 0 and "--store" in result.stdout
        assert f"Example: mvc {command}" in result.stdout
    assert runner.invoke(mvc, ["--version"]).stdout.startswith("mvc ")


def test_reading_imports_no_framework_and_writes_nothing(store: VersionStore) -> None:
    code = (
        "import sys, click\n"
        "from mvc_callbacks.cli import mvc\n"
        "for command in 'log', 'show', 'runs', 'aliases', 'verify', 'diff baseline/1 latest', 'report':\n"
        "    try: mvc.main(command.split())\n"
        "    except SystemExit as end: assert not end.code, command\n"
        "bad = {'torch', 'numpy', 'lightning', 'keras', 'tensorflow', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'{bad}' if bad else 0)"
    )
    before = sorted(store.path.rglob("*"))
    environment = {**os.environ, "MVC_STORE": str(store.path)}
    folder = store.path.parent  # a report goes there
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(store.path.rglob("*")) == before


def test_export_imports_no_framework(store: VersionStore, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mvc_callbacks.cli import mvc\n"
        "try: mvc.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    arguments = ["export", "best", str(tmp_path / "x.safetensors"), "--store", str(store.path)]
    assert subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True).returncode == 0
    assert (tmp_path / "x.safetensors").exists()


def test_a_reader_that_goes_away_is_no_error(store: VersionStore) -> None:
    run = subprocess.Popen(
        [*RUN, "show", "--json", "--store", str(store.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert run.stdout is not None and run.stderr is not None
    run.stdout.close()
    with run.stderr:
        assert run.stderr.read() == b""
    assert run.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_an_error(store: VersionStore) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*RUN, "log", "--store", str(store.path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert ended.stderr == "mvc: error: No space left on device\n"


def test_ctrl_c_ends_with_130_and_no_traceback(store: VersionStore) -> None:
    code = (
        "import time, mvc_callbacks.store_reader as s\n"
        "def wait(*_, **__):\n"
        "    print('waiting', flush=True); time.sleep(60)\n"
        "s.StoreReader.overview = wait\n"
        "from mvc_callbacks.cli import main; main()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, "log", "--store", str(store.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "waiting\n"
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said.strip() == ""


def test_a_terminal_without_the_letters_gets_escapes_not_a_traceback(store: VersionStore) -> None:
    store.open_run("odd", framework="torch").commit(snapshot(1), metrics={"größe 数据": 1.0})
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    ended = process("log", "--store", str(store.path), env=environment, encoding="latin-1")
    assert ended.returncode == 0 and r"größe \u6570\u636e" in ended.stdout


def on_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a command with a terminal of 100 columns as its standard output."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    run = subprocess.Popen([*RUN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said = b"".join(_read(ours))
    os.close(ours)
    assert run.wait(60) == 0
    return said.decode()


def _read(descriptor: int) -> Iterator[bytes]:
    began = time.monotonic()
    while time.monotonic() - began < 60:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # the other end is closed
            return
        if not chunk:
            return
        yield chunk


def test_a_log_that_is_longer_than_the_terminal_goes_through_the_pager(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    run = store.open_run("long", framework="torch")
    for place in range(30):
        run.commit(snapshot(place))
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged; cat\n")
    pager.chmod(0o755)
    environment = {**os.environ, "TERM": "xterm", "PAGER": str(pager)}
    arguments = ["log", "-n", "0", "--store", str(store.path)]
    assert on_terminal(arguments, environment).startswith("paged")
    assert not on_terminal([*arguments, "--no-pager"], environment).startswith("paged")
    assert not on_terminal(["log", "-n", "5", "--store", str(store.path)], environment).startswith("paged")
    assert "paged" not in process(*arguments, env=environment).stdout


def test_no_line_of_a_log_is_wider_than_the_terminal(store: VersionStore) -> None:
    call(store, "note", "best", "word " * 60)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    said = on_terminal(["log", "--store", str(store.path)], environment)
    assert "…" in said and "word" in said
    assert max(map(len, said.replace("\r", "").splitlines())) <= 100


def test_no_line_of_runs_and_aliases_is_wider_than_the_terminal(store: VersionStore) -> None:
    label = "a-label-of-forty-eight-letters-which-is-not-few"
    run, monitor = store.open_run(label, framework="torch"), Monitor("val_loss", "min")
    run.commit(snapshot(5), metrics={"val_loss": 0.7}, monitor=monitor)
    for name in ("production", "another-alias"):
        store.promote(f"{label}/1", name, why="because " * 20)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    for command, heads, gone in (
        ("runs", ("RUN", "BEST"), "FRAMEWORK"), ("aliases", ("ALIAS", "VERSION", "WHY"), "WHO"),
        ("alias-log", ("ALIAS", "HOW"), "WHO"),
    ):  # fmt: skip
        said = on_terminal([command, "--store", str(store.path)], environment)
        lines = said.replace("\r", "").splitlines()
        assert max(map(len, lines)) <= 100
        assert set(heads) <= set(lines[0].split()) and gone not in lines[0]
        assert gone in call(store, command).stdout  # all of it, where it is no terminal


def test_colours_are_for_terminals_that_want_them(store: VersionStore) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM", "COLUMNS")}
    arguments = ["log", "--store", str(store.path)]
    assert "\x1b[32m*0.2000\x1b[0m" in on_terminal(arguments, {**plain, "TERM": "xterm"})
    assert "\x1b" not in on_terminal(arguments, {**plain, "TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in on_terminal(arguments, {**plain, "TERM": "dumb"})
    assert "\x1b" not in process(*arguments, env={**plain, "TERM": "xterm"}).stdout


def test_what_a_stranger_wrote_into_a_store_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    store = VersionStore(tmp_path / "store")
    run = store.open_run(
        "x", framework="torch", record={"code": {"branch": evil}, "environment": {evil: evil}}
    )
    versions: list[Version] = [
        run.commit(
            snapshot(place),
            metrics={evil: 1.0},
            hyperparameters={"given": {evil: [evil, place]}},
            flags=(evil,),
        )
        for place in range(2)
    ]
    store.promote(versions[0], "production", why=evil)
    for arguments in (
        ["log"],
        ["show"],
        ["diff", "x/1", "x/2"],
        ["aliases"],
        ["runs"],
        ["alias-log"],
        ["show", "--json"],
        ["log", "--json"],
    ):
        said = call(store, *arguments).stdout
        assert said.replace("\n", "").isprintable(), arguments


def test_the_installed_command_is_this_one() -> None:
    from importlib.metadata import entry_points

    found = list(entry_points(group="console_scripts", name="mvc"))
    if not found:
        pytest.skip("the package is not installed here")
    [entry] = found
    assert entry.value == "mvc_callbacks.cli:main"


def test_runs_that_went_on_one_from_the_other_are_one_line(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    last: Version | None = None
    for part in range(3):  # twice interrupted, and gone on from the newest version each time
        run = store.open_run("long", framework="torch", record={"resumes": last.id} if last else {})
        for place in range(2):
            last = run.commit(
                snapshot(10 * part + place), metrics={"loss": 1.0 - part}, monitor=Monitor("loss", "min")
            )
    store.open_run("branch", framework="torch", record={"resumes": store.get("long/1").id}).commit(
        snapshot(99)
    )
    lines = call(store, "runs").stdout.splitlines()
    assert re.split(r"  +", lines[1])[:4] == ["long > long-2 > long-3", "6", "long-3/1", "loss -1.0000"]
    assert lines[2].startswith("branch ") and lines[2].endswith("<- long/1") and len(lines) == 3
    found = told(store, "runs")
    assert [each["label"] for each in found] == ["long", "long-2", "long-3", "branch"]
    assert [each["chain"] for each in found] == ["long", "long", "long", "branch"]


def test_what_changes_a_store_tells_it_as_json_too(store: VersionStore, tmp_path: Path) -> None:
    first, best = store.get("baseline/1"), store.get("best")
    assert told(store, "promote", "baseline/1", "production") == {
        "name": "production",
        "id": first.id,
        "run": "baseline",
        "number": 1,
        "previous": None,
    }
    assert told(store, "promote", "best", "production")["previous"] == first.id
    assert told(store, "rollback", "production") == {
        "name": "production",
        "id": first.id,
        "run": "baseline",
        "number": 1,
        "previous": best.id,
    }
    assert told(store, "note", "best", "seen")["notes"][0]["text"] == "seen"
    target = tmp_path / "model.safetensors"
    assert told(store, "export", "best", str(target)) == {
        "file": str(target),
        "format": "safetensors",
        "bytes": target.stat().st_size,
        "id": best.id,
        "run": best.run,
        "number": best.number,
    }


def example_of(command: str) -> str:
    text = CliRunner().invoke(mvc, [command, "--help"], terminal_width=200).stdout
    [example] = re.findall(r"Example: (mvc .*)", text)
    return str(example)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_the_help_of_a_command_works(command: str, tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "model_versions")
    run = store.open_run("experiment-7", framework="torch")
    run.commit(snapshot(77), metrics={"val_loss": 0.4}, hyperparameters={"given": {"lr": 1e-4}})
    store.promote("baseline/1", "production")
    store.promote("baseline/2", "production")
    store.promote("baseline/2", "staging")
    if command == "identify":
        call(store, "export", "best", str(tmp_path / "model.safetensors"))
    if command == "import":
        torch = pytest.importorskip("torch")
        folder = tmp_path / "lightning_logs/version_0/checkpoints"
        folder.mkdir(parents=True)
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, folder / "epoch=0.ckpt")
    environment = {name: value for name, value in os.environ.items() if name != "MVC_STORE"}
    line = f"mvc() {{ '{sys.executable}' -c '{RUN[2]}' \"$@\"; }}; {example_of(command)}"
    ended = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout and "error" not in ended.stderr


def test_a_version_that_is_longer_than_the_terminal_goes_through_the_pager(
    store: VersionStore, tmp_path: Path
) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged; cat\n")
    pager.chmod(0o755)
    environment = {**os.environ, "TERM": "xterm", "PAGER": str(pager)}
    assert on_terminal(["show", "best", "--store", str(store.path)], environment).startswith("paged")
    assert "paged" not in process("show", "best", "--store", str(store.path), env=environment).stdout


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_takes_long_shows_a_bar_on_a_terminal_and_takes_it_away(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_frame, "PATIENCE", -1.0)
    monkeypatch.setattr(sys, "stderr", shown := _Terminal())
    with pytest.raises(SystemExit) as left:
        mvc.main(["--store", str(store.path), "verify", "--full"])
    assert left.value.code == 0
    bars = shown.getvalue().split("\r")
    assert f"verifying [{'#' * 25}] 100 %" in bars
    assert any(bar.startswith("verifying [###") and not bar.endswith("100 %") for bar in bars)
    assert bars[-1] == "" and not bars[-2].strip()
