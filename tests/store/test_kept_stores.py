"""Stores that earlier releases wrote open for ever; what a stranger put into one can at worst be refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import stat
import warnings
from pathlib import Path

import pytest
from store_kit import bits, expected
from torture_kit import check, shot, small_store

from mvc_callbacks import cli, writing
from mvc_callbacks.canonical import digest_of
from mvc_callbacks.errors import MVCError, UnsupportedFormat
from mvc_callbacks.store import VersionStore

DATA = Path(__file__).parents[1] / "data"
KEPT = sorted(path.name for path in DATA.iterdir() if path.is_dir())


@pytest.fixture
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> VersionStore:
    return VersionStore(shutil.copytree(DATA / request.param, tmp_path / "store"))


def test_a_store_of_each_format_is_kept() -> None:
    assert "store-v1" in KEPT


@pytest.mark.parametrize("kept", KEPT, indirect=True)
def test_a_store_that_an_earlier_release_wrote_says_what_it_said(kept: VersionStore) -> None:
    told = json.loads((DATA / "store-v1.json").read_bytes())
    shown = {version.id: version for version in kept.versions()}
    assert list(shown) == [each["id"] for each in told["versions"]]
    for each in told["versions"]:
        version = shown[each["id"]]
        assert (version.run, version.number) == (each["run"], each["number"])
        assert {name: repr(value) for name, value in version.metrics.items()} == each["metrics"]
        assert [gone.what for gone in version.pruned] == each["pruned"]
        assert version.weights.digest == each["weights"]
        if each["bits"] is not None:
            found = {name: data.hex() for name, data in bits(kept, version).items()}
            assert found == each["bits"]
    assert kept.aliases() == told["aliases"]
    assert [[move.name, move.id, move.how, move.why] for move in kept.alias_log()] == told["moves"]
    assert kept.training_state("base/3")[0]["step"] == 3
    assert kept.get("tuned").parent.id == kept.get("base/3").id
    assert kept.details(kept.get("base/1").id).environment == {"python": "3.12.1"}
    assert kept.verify(full=True).ok


@pytest.mark.parametrize("kept", KEPT, indirect=True)
def test_a_store_that_an_earlier_release_wrote_is_gone_on_with(kept: VersionStore) -> None:
    before = {version.id: bits(kept, version) for version in kept.versions() if version.has_weights}
    kept.open_run("base", framework="torch").commit(shot(3))
    kept.rebuild()
    check(kept.path, before)
    assert [run.label for run in kept.runs()] == ["base", "tuned", "base-2"]


@pytest.mark.parametrize("kept", KEPT, indirect=True)
@pytest.mark.parametrize("change", [{"format": 2}, {"requires": ["packs-of-packs"]}], ids=str)
def test_bad_input_13_a_store_of_a_later_release_is_not_written(kept: VersionStore, change: dict) -> None:
    path = kept.path / "format.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    before = {each: each.stat().st_mtime_ns for each in kept.path.rglob("*") if each.is_file()}
    for write in (
        lambda store: store.open_run("new", framework="torch"),
        lambda store: store.promote("base/3", "production"),
        lambda store: store.prune("base/3"),
        lambda store: store.delete_run("tuned"),
        lambda store: store.rebuild(),
        lambda store: store.evaluate("base/3", "test", {}),
        lambda store: store.put_patch(b"x"),
    ):
        with pytest.raises(UnsupportedFormat, match="upgrade"):
            write(VersionStore(kept.path))
    assert {each: each.stat().st_mtime_ns for each in kept.path.rglob("*") if each.is_file()} == before


# --- strangers ---


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._marker), 0o700)


def test_bad_input_24_a_pickle_bomb_in_the_place_of_any_file_never_goes_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)
    marker = tmp_path / "exploded"
    bomb = pickle.dumps(_Bomb(marker))
    small = small_store(tmp_path / "whole")
    names = [path.relative_to(small.path) for path in sorted(small.path.rglob("*")) if path.is_file()]
    for turn, name in enumerate(names):
        store = VersionStore(shutil.copytree(small.path, tmp_path / str(turn)))
        (store.path / name).write_bytes(bomb)
        # The same under its right name, as a stranger would put it.
        planted = store.path / name.parent / f"{digest_of(bomb)}{name.suffix}"
        planted.write_bytes(bomb)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for ask in (
                store.versions,
                store.runs,
                store.aliases,
                lambda store=store: [bits(store, version) for version in store.versions()],
                lambda store=store: [store.training_state(version) for version in store.versions()],
                lambda store=store: store.verify(full=True),
                store.rebuild,
                lambda store=store: store.prune(keep_last=1, dry_run=True),
                lambda store=store: store.open_run("after", framework="torch").commit(shot(1)),
            ):
                try:
                    ask()
                except MVCError as error:
                    assert str(error)
            for args in (("log",), ("show", "latest"), ("diff", "base/2", "base/3"), ("verify",)):
                with pytest.raises(SystemExit):
                    cli.mvc.main(["--store", str(store.path), *args])
        shutil.rmtree(store.path)
    assert not marker.exists()
    pickle.loads(bomb)
    assert marker.exists()  # it would have gone off


def test_no_room_of_the_package_can_unpickle() -> None:
    folder = Path(writing.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text("utf-8")
        for word in (
            "pickle.load",
            "Unpickler",
            "torch.load(",
            "eval(",
            "exec(",
            "marshal",
            "shelve",
            "yaml.load(",
        ):
            # Another program's checkpoint is imported by torch's reader of tensors alone.
            text = re.sub(r"torch\.load\([^()]*weights_only=True\)", "", text)
            used = text.replace(".eval()", "").replace("literal_eval(", "")
            assert word not in used, f"{path.name} has {word}"


def test_bad_input_18_20_each_file_and_folder_of_a_store_that_is_a_link_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)
    small = small_store(tmp_path / "whole")
    secret = tmp_path / "outside"
    names = [path.relative_to(small.path) for path in sorted(small.path.rglob("*"))]
    for turn, name in enumerate(names):
        if name.parts[0] == "tmp":
            continue
        store = VersionStore(shutil.copytree(small.path, tmp_path / str(turn)))
        shutil.move(store.path / name, secret)
        (store.path / name).symlink_to(secret)
        before = {path: path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")]}
        refused = False
        for ask in (
            lambda store=store: [bits(store, version) for version in store.versions() if version.has_weights],
            lambda store=store: [
                store.training_state(each) for each in store.versions() if each.has_training_state
            ],
            lambda store=store: [store.details(version.id) for version in store.versions()],
            store.aliases,
            lambda store=store: store.promote("base/3", "staging"),
            lambda store=store: store.open_run("after", framework="torch").commit(shot(2)),
        ):
            try:
                ask()
            except MVCError:
                refused = True
        try:
            refused |= not store.verify(full=True).ok
        except MVCError:
            refused = True
        # A folder that nothing is in, of what was pruned, is not looked at.
        assert refused or not (secret.is_file() or list(secret.iterdir())), name
        assert {path: path.stat().st_mtime_ns for path in [secret, *secret.rglob("*")]} == before, name
        shutil.rmtree(store.path)
        shutil.rmtree(secret) if secret.is_dir() else secret.unlink()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_files_and_folders_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = VersionStore(tmp_path / "store")
        store.open_run("base", framework="torch").commit(shot(1))
        store.promote("base/1", "production")
        bits(store, "base/1")
    finally:
        os.umask(before)
    for path in [store.path, *store.path.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path
    assert bits(store, "production") == expected(shot(1))
