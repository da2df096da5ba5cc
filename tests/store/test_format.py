"""Promises of the format: what is on the disk is what docs/format.md says, byte for byte, for ever."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from store_kit import LOSS, chunk, commit, edit, f32, fingerprint, large, many

from mvc_callbacks import commit as commit_module
from mvc_callbacks import store as store_module
from mvc_callbacks import store_aliases as store_aliases_module
from mvc_callbacks.canonical import encode
from mvc_callbacks.errors import CorruptRecord, StoreNotFound, UnsafeFile, UnsupportedFormat
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock stand, and the user be nobody in particular."""
    for module in (commit_module, store_module, store_aliases_module):
        monkeypatch.setattr(module, "now", lambda: "2026-01-02T03:04:05.678901Z")
        monkeypatch.setattr(module, "user", lambda: "ada@host")


def golden(store: VersionStore) -> dict[str, Any]:
    """Make a small store, and tell its names."""
    run = store.open_run("base", framework="torch", record={"code": {"commit": "c0ffee"}, "environment": {}})
    weights = State(
        {"layer.weight": f32(1, 2), "layer.bias": f32(0.5), "frozen": f32(7), "scale": f32(3)},
        groups={"frozen": "frozen", "scale": "buffer"},
        labels={"layer.bias": "the bias"},
    )
    tree = {"epoch": 0, "momentum": {"$tensor": "momentum"}}
    version = run.commit(
        Snapshot(weights, tree=tree, tree_tensors=State({"momentum": f32(9)})),
        epoch=0,
        step=10,
        metrics={"val_loss": 0.25, "nan": float("nan")},
        monitor=LOSS,
        hyperparameters={"given": {"lr": 0.1}},
        data={"train": fingerprint("a")},
    )
    store.promote(version, "production", why="first")
    names = [
        path.relative_to(store.path).as_posix() for path in sorted(store.path.rglob("*")) if path.is_file()
    ]
    return {"id": version.id, "names": [name for name in names if not name.startswith("tmp/")]}


NAMES = [
    "aliases.json",
    "events/07/077001e58d7d54a3168a2dd2c31719513c216d104cb7934c726591d6b9a09176.json",
    "format.json",
    "history/base/0001.json",
    "manifests/26/26b20ae38911bd44a6c33877341d40011cf307092f37bf0061eea742beab97c7.json",
    "manifests/fe/fe5b3c88f45380dad59ec5bd9c21668c014c7173046b42801ab4b6e1aab6f3e1.json",
    "objects/46/461ef168d5a53cd5f12430832b2035ee4b872f01027693ad899ce93b8c1a70fe.safetensors",
    "objects/94/948c94f40712d0025b90822b09bd5ae93aad1bc2e947990ebf8ab6d5cc2d8195.safetensors",
    "objects/c4/c4683a2ad36e93f94fbee4733e4f3e99237431d11cb2f793ea435fd2f3704a20.safetensors",
    "objects/d3/d3cfbebb97a80aa72b1d6482ea052278f2070232b5682fea3df185880ac834c4.safetensors",
    "objects/e9/e9218653cd6be2a5d7b2e2c7c54b7d436d1ed3533acc72e355065bb653a9e9f2.json",
    "runs/a8/a8981c4736dd720d629840690fbeeec60dcdec3a5f7c951303d16da715d9432a.json",
    "versions/b7/b737343c476a8089d534cd42691bf6cada9f257729e2d65bdf3648ecb725b450.json",
]
IDENTITY = "b737343c476a8089d534cd42691bf6cada9f257729e2d65bdf3648ecb725b450"
RECORD = (
    b'{"created":"2026-01-02T03:04:05.678901Z","data":{"train":{"bytes":30,"coverage":"files","d'
    b'igest":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","files":3,"how":'
    b'"test","listing":null,"problems":[],"scheme":"mvc-1"}},"epoch":0,"flags":[],"format":1,"fr'
    b'amework":"torch","hyperparameters":{"given":{"lr":0.1}},"kind":"version","metrics":{"nan":'
    b'{"$float":"nan"},"val_loss":0.25},"monitor":["val_loss","min"],"number":1,"parents":[],"ru'
    b'n":{"id":"a8981c4736dd720d629840690fbeeec60dcdec3a5f7c951303d16da715d9432a","label":"base"'
    b'},"sequence":1,"step":10,"training_state":{"bytes":4,"digest":"26b20ae38911bd44a6c33877341'
    b'd40011cf307092f37bf0061eea742beab97c7","tensors":1,"tree":"e9218653cd6be2a5d7b2e2c7c54b7d4'
    b'36d1ed3533acc72e355065bb653a9e9f2","untold":[]},"weights":{"additions":null,"bytes":20,"di'
    b'gest":"fe5b3c88f45380dad59ec5bd9c21668c014c7173046b42801ab4b6e1aab6f3e1","extra":{},"nonfi'
    b'nite":false,"of":"training","stored_bytes":701,"tensors":4,"tied":[]}}'
)
MANIFEST = (
    b'{"digest":"fe5b3c88f45380dad59ec5bd9c21668c014c7173046b42801ab4b6e1aab6f3e1","format":1,"k'
    b'ind":"manifest","objects":["948c94f40712d0025b90822b09bd5ae93aad1bc2e947990ebf8ab6d5cc2d81'
    b'95","c4683a2ad36e93f94fbee4733e4f3e99237431d11cb2f793ea435fd2f3704a20","d3cfbebb97a80aa72b'
    b'1d6482ea052278f2070232b5682fea3df185880ac834c4"],"tensors":[{"digest":"7fb4a006d8b0675fd82'
    b'c9f0a65ca9bce21b51853ccf1bbdea45249917e5bd753","dtype":"F32","name":"layer.weight","parts"'
    b':[{"in":2}],"shape":[2]},{"digest":"f4ae72e81b5b48609bb3ba0689381d54cd3b11a8d81b2ce5579f8c'
    b'aa671a71c2","dtype":"F32","label":"the bias","name":"layer.bias","parts":[{"in":2}],"shape'
    b'":[1]},{"digest":"6edecd1ad99c75cb5660ee61541912fa2826513e541db61d52f0ac610bcc5727","dtype'
    b'":"F32","name":"frozen","parts":[{"in":0}],"shape":[1]},{"digest":"eff71a1d35741b690437422'
    b'6fd2c1efd827dba1e59002057a49957dbfec54d8a","dtype":"F32","name":"scale","parts":[{"in":1}]'
    b',"shape":[1]}]}'
)


def test_golden_vectors_of_a_small_store(store: VersionStore, fixed: None) -> None:
    told = golden(store)
    assert told["names"] == NAMES
    assert told["id"] == IDENTITY
    record = store._layout.versions.path_of(IDENTITY).read_bytes()
    assert record == RECORD
    weights = json.loads(record)["weights"]["digest"]
    assert store._layout.manifests.path_of(weights).read_bytes() == MANIFEST


def test_golden_vectors_of_digests() -> None:
    assert f32(1, 2).digest() == "7fb4a006d8b0675fd82c9f0a65ca9bce21b51853ccf1bbdea45249917e5bd753"
    assert f32(1, 2).header() + bytes(f32(1, 2).data) == (
        b'@\0\0\0\0\0\0\0{"tensor":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}     \0\0\x80?\0\0\0@'
    )
    assert large(1).digest() == "90090e0b40e809b05ceacded92ff56280215d464debfb685b1c36ba1f7ece150"


def test_format_json_says_what_it_must(store: VersionStore) -> None:
    commit(store)
    told = json.loads((store.path / "format.json").read_bytes())
    assert told.keys() == {"format", "hash", "requires", "store"}
    assert (told["format"], told["hash"], told["requires"]) == (1, "sha256", [])
    assert told["store"] == store.identity


def test_bad_input_13_a_newer_format_is_read_where_it_can_be_and_never_written(store: VersionStore) -> None:
    commit(store, "base", 2)
    edit(store.path / "format.json", lambda value: value.update(format=2))
    there = VersionStore(store.path)
    assert len(there.versions()) == 2
    for ask in (
        lambda: there.open_run("x", framework="torch"),
        lambda: there.promote("latest", "production"),
        lambda: there.prune("base/1"),
        lambda: there.delete_run("base"),
        there.rebuild,
    ):
        with pytest.raises(UnsupportedFormat, match="upgrade"):
            ask()
    assert len(there.versions()) == 2


def test_a_requirement_that_is_not_known_is_refused_even_for_reading(store: VersionStore) -> None:
    commit(store)
    edit(store.path / "format.json", lambda value: value.update(requires=["encryption"]))
    with pytest.raises(UnsupportedFormat, match="encryption"):
        VersionStore(store.path).versions()


@pytest.mark.parametrize("kind", ["versions", "runs", "manifests"])
def test_a_record_of_a_newer_format_asks_for_an_upgrade(store: VersionStore, kind: str) -> None:
    version = commit(store, "base", 1)[0]
    if kind == "manifests":
        edit(store._layout.manifests.path_of(version.weights.digest), lambda value: value.update(format=2))
        with pytest.raises(UnsupportedFormat, match="upgrade"):
            store.tensors(version)
        return
    folder = store._layout.versions if kind == "versions" else store._layout.runs
    data = encode({"kind": folder.kind, "format": 2})
    path = folder.path_of(hashlib.sha256(data).hexdigest())
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="upgrade"):
        folder.read(path.stem)
    assert store.rebuild().versions == 1


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b'{"format":"1","hash":"sha256"}', b'{"format":1,"hash":"md5"}']
)
def test_a_format_file_that_is_none_is_refused(store: VersionStore, data: bytes) -> None:
    commit(store)
    (store.path / "format.json").write_bytes(data)
    for ask in (
        VersionStore(store.path).versions,
        lambda: VersionStore(store.path).open_run("x", framework="torch"),
    ):
        with pytest.raises(CorruptRecord, match=r"format\.json"):
            ask()


def test_a_store_that_lost_its_format_file_is_not_made_anew(store: VersionStore) -> None:
    commit(store)
    (store.path / "format.json").unlink()
    with pytest.raises(StoreNotFound):
        VersionStore(store.path).versions()
    with pytest.raises(UnsafeFile, match=r"holds versions but no format\.json"):
        VersionStore(store.path).open_run("x", framework="torch")


def test_a_folder_with_other_things_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UnsafeFile, match=r"thesis\.txt"):
        VersionStore(tmp_path).open_run("x", framework="torch")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UnsafeFile):
        VersionStore(tmp_path / "file").open_run("x", framework="torch")
    with pytest.raises(StoreNotFound):
        VersionStore(tmp_path / "file" / "below").versions()


@pytest.mark.parametrize("left", ["tmp", "objects", "history", "aliases.json"])
def test_a_store_that_a_kill_left_half_made_is_made_whole(store: VersionStore, left: str) -> None:
    (store.path / "tmp").mkdir(parents=True)
    if left == "aliases.json":
        (store.path / left).write_bytes(b'{"aliases":{},"log":{}}')
    else:
        (store.path / left).mkdir(exist_ok=True)
    assert commit(store)[0].number == 1
    assert store.verify().ok


def test_a_newest_store_has_only_the_files_of_the_format(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(3):
        run.commit(many(number))
    assert sorted(path.name for path in store.path.iterdir()) == [
        "aliases.json", "events", "format.json", "history", "manifests", "objects", "runs", "tmp", "versions",
    ]  # fmt: skip
    assert sorted(path.name for path in (store.path / "tmp").iterdir()) == ["lock", "shared.json"]
    assert chunk(store).exists()
    shutil.rmtree(store.path)
