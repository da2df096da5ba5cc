"""Promises of the difference of two versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from neutral_store import make_store

from mvc_callbacks.diff import compare
from mvc_callbacks.listings import ListingDifference
from mvc_callbacks.render_diff import difference_lines
from mvc_callbacks.versions import Details, Fingerprint, Version, Weights

Kinds = dict[str, str]


def version(
    *,
    metrics: dict[str, float] | None = None,
    hyperparameters: Any = None,
    code: Any = None,
    environment: Any = None,
    data: dict[str, Fingerprint] | None = None,
    digest: str = "d" * 64,
) -> Version:
    details = Details({}, code or {}, environment or {}, {"hyperparameters": hyperparameters or {}}, {})
    return Version(
        id="a" * 64,
        run="baseline",
        number=1,
        sequence=1,
        created="2025-11-24T11:58:00Z",
        framework="torch",
        epoch=None,
        step=None,
        metrics=metrics or {},
        monitor=None,
        parents=(),
        weights=Weights(digest, 1, 1, 1),
        training_state=None,
        data=data or {},
        _load=lambda _: details,
    )


def text_of(*versions: Version, **known: Any) -> str:
    return "\n".join(difference_lines(compare(*versions, **known)))


def test_equal_versions_have_no_difference() -> None:
    found = compare(version(metrics={"loss": 1.0}), version(metrics={"loss": 1.0}))
    assert [each.kind for each in found.metrics] == ["same"]
    assert (found.hyperparameters, found.code, found.environment, found.data) == ((), (), (), ())
    assert found.weights.same
    assert "the same, bit for bit" in str(found)


def test_metrics_are_all_told_and_nan_equals_nan() -> None:
    nan = float("nan")
    a, b = (
        version(metrics={"x": 1.0, "n": nan, "gone": 1.0}),
        version(metrics={"x": 3.5, "n": nan, "new": 2.0}),
    )
    kinds = {each.name: each.kind for each in compare(a, b).metrics}
    assert kinds == {"x": "changed", "n": "same", "gone": "removed", "new": "added"}
    assert "+2.5000" in text_of(a, b)


def test_values_that_only_look_equal_differ() -> None:
    a = version(hyperparameters={"given": {"flag": True, "count": 1, "same": {"$tuple": [1]}}})
    b = version(hyperparameters={"given": {"flag": 1, "count": 1.0, "same": {"$tuple": [1]}}})
    assert [each.name for each in compare(a, b).hyperparameters] == ["flag", "count"]


def test_hyperparameters_code_and_packages_are_told_by_path() -> None:
    a = version(
        hyperparameters={"given": {"net": {"width": 64, "depth": 2}}},
        code={"commit": "a" * 40, "source": "one\ntwo\n"},
        environment={"packages": {"torch": "2.13", "gone": "1"}},
    )
    b = version(
        hyperparameters={"given": {"net": {"width": 128, "depth": 2}, "new": "x"}},
        code={"commit": "b" * 40, "source": "one\n"},
        environment={"packages": {"torch": "2.14"}},
    )
    text = text_of(a, b)
    for line in (
        "~ net.width  64 -> 128",
        "+ new  x",
        "~ commit  aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "~ source  (2 lines) -> (1 line)",
        "~ packages.torch  2.13 -> 2.14",
        "- packages.gone  1",
    ):
        assert f"\n  {line}\n" in text
    assert "depth" not in text


FILES = Fingerprint("1" * 64, "files", 6, 100, listing="1" * 64)


@pytest.mark.parametrize(
    ("a", "b", "same", "text"),
    [
        (FILES, FILES, True, "train: the same (6 files, 111111111111)"),
        (FILES, Fingerprint("2" * 64, "files", 7, 100), False, "train: changed (6 files -> 7 files)"),
        (FILES, Fingerprint(None, "pending"), None, "train: cannot be compared (6 files -> pending)"),
        (FILES, Fingerprint("1" * 64, "files", 6, 100, scheme="mvc-2"), None, "train: cannot be compared"),
        (FILES, None, False, "train: only in a (6 files)"),
        (None, FILES, False, "train: only in b (6 files)"),
    ],
)
def test_data_is_the_same_only_where_that_is_known(
    a: Fingerprint | None, b: Fingerprint | None, same: bool | None, text: str
) -> None:
    sides = [version(data={"train": each} if each else {}) for each in (a, b)]
    [found] = compare(*sides).data
    assert found.same is same
    assert text in text_of(*sides)


def test_files_are_told_one_by_one_and_the_rest_counted() -> None:
    sides = version(data={"train": FILES}), version(data={"train": Fingerprint("2" * 64, "files", 40, 1)})
    files = ListingDifference(40, 0, 1, 5, tuple(f"new/{each:02}" for each in range(20)), (), ("a\\x1b.png",))
    text = text_of(*sides, files={"train": files})
    assert "~ a\\x1b.png" in text and "+ new/00" in text and "+ new/11" in text
    assert "new/12" not in text and "+ ... and 28 more" in text
    everything = "\n".join(difference_lines(compare(*sides, files={"train": files}), most=None))
    assert "new/19" in everything and "+ ... and 20 more" in everything
    none = text_of(*sides, files={"train": ListingDifference(0, 0, 0, 6)})
    assert "no file differs: the samples chosen from them, or their order, do" in none
    assert "which files differ is not known" in text_of(*sides)


def test_tensors_are_compared_by_name_form_and_bytes() -> None:
    a = {
        "same": ("F32", (2,), "1"),
        "bytes": ("F32", (2,), "2"),
        "form": ("F32", (2,), "3"),
        "old.name": ("F32", (2,), "4"),
        "zeros.1": ("F32", (2,), "0"),
        "zeros.2": ("F32", (2,), "0"),
        "gone": ("F32", (2,), "5"),
    }
    b = {
        "same": ("F32", (2,), "1"),
        "bytes": ("F32", (2,), "6"),
        "form": ("F32", (1, 2), "7"),
        "new.name": ("F32", (2,), "4"),
        "other.zeros": ("F32", (2,), "0"),
        "new": ("F32", (2,), "8"),
    }
    found = compare(version(digest="1"), version(digest="2"), weights=(a, b)).weights
    assert (found.same, found.unchanged) == (False, 1)
    assert [(each.name, each.a, each.b) for each in found.changed] == [
        ("bytes", "F32 [2]", "F32 [2]"),
        ("form", "F32 [2]", "F32 [1, 2]"),
    ]
    assert found.renamed == (("old.name", "new.name"),)
    assert found.added == ("other.zeros", "new")  # which of the two zeros it was, nobody can say
    assert found.removed == ("zeros.1", "zeros.2", "gone")
    text = text_of(version(digest="1"), version(digest="2"), weights=(a, b))
    assert "2 tensors changed, 1 unchanged, 1 renamed, 2 added, 3 removed" in text
    assert "~ form  F32 [2] -> F32 [1, 2]" in text and "= old.name -> new.name" in text


def test_pruned_weights_differ_as_far_as_the_record_tells() -> None:
    found = compare(version(digest="1"), version(digest="2"), weights=(None, {}))
    assert (found.weights.same, found.weights.unchanged) == (False, None)
    assert "tensor by tensor it cannot be told" in found.text()
    assert compare(version(), version(), weights=(None, {})).weights.same


def test_a_store_compares_its_versions_file_by_file_and_tensor_by_tensor(tmp_path: Path) -> None:
    store, versions = make_store(tmp_path / "store")
    found = store.diff("baseline/2", "finetune/1")
    [train] = found.data
    assert train.files is not None
    assert (train.files.changed_names, train.files.added_names) == (("a/0.png",), ("c/0.png",))
    assert [each.name for each in found.weights.changed] == ["head.bias", "head.weight"]
    assert found.weights.unchanged == 1
    assert [(each.name, each.kind) for each in found.hyperparameters] == [
        ("lr", "changed"),
        ("warmup", "added"),
    ]
    assert [each.name for each in found.environment] == ["packages.torch"]
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["a"] == {
        "id": versions[1].id,
        "short_id": versions[1].short_id,
        "run": "baseline",
        "number": 2,
    }
    assert told["data"][0]["files"]["changed_names"] == ["a/0.png"]
    assert told["weights"]["changed"][0]["name"] == "head.bias"


def test_a_store_compares_pruned_and_damaged_versions_too(tmp_path: Path) -> None:
    store, versions = make_store(tmp_path / "store")
    store.prune("baseline/1")
    assert store.diff("baseline/1", "baseline/2").weights.unchanged is None
    listing = versions[0].data["train"].listing
    [path] = (tmp_path / "store" / "objects").glob(f"*/{listing}*")
    path.write_bytes(b"damaged")
    [train] = store.diff("baseline/1", "finetune/1").data
    assert (train.same, train.files) == (False, None)
