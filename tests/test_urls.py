"""URLs: what is made is understood again, and what path libraries make of it too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvc_callbacks import urls


@pytest.mark.parametrize("folder", ["/data/versions", "/a b/ü@home", "/x@y/versions"])
@pytest.mark.parametrize("ref", ["run/3", "best:val_acc:max", "3fa9", "production~2"])
def test_a_url_names_store_and_ref(folder: str, ref: str) -> None:
    url = urls.make(folder, ref)
    assert url == f"mvc://{folder}@{ref}"
    assert urls.is_url(url)
    assert urls.parse(url) == (Path(folder), ref)
    assert urls.parse(Path(url)) == (Path(folder), ref)
    assert urls.parse(url.removeprefix("mvc://")) == (Path(folder), ref)


@pytest.mark.parametrize(
    "text", ["mvc://baseline/latest", "mvc:baseline/latest", Path("mvc://baseline/latest")]
)
def test_without_a_store_it_is_a_ref_of_the_default_one(text: str | os.PathLike[str]) -> None:
    assert urls.parse(text) == (None, "baseline/latest")
    assert urls.is_url(text)


def test_a_store_alone_has_no_ref() -> None:
    assert urls.make_store("/data/versions") == "mvc:///data/versions"
    assert urls.parse("mvc:///data/versions") == (Path("/data/versions"), "")
    assert urls.parse("/data/versions") == (Path("/data/versions"), "")


def test_a_relative_store_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert urls.parse("mvc://model_versions@best") == (tmp_path / "model_versions", "best")
    assert urls.make("model_versions", "best") == f"mvc://{tmp_path}/model_versions@best"


@pytest.mark.parametrize("other", ["/tmp/x.ckpt", "s3://bucket/x", None, 3, "mvcx://a"])
def test_other_paths_are_no_urls(other: object) -> None:
    assert not urls.is_url(other)
