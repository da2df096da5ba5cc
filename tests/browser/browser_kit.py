"""What the tests of pages in a browser share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
EVIL = '</script><script>window.owned=1</script><img src=x onerror="window.owned=1">'
ASKED: list[str] = []
"""Addresses that pages asked for."""


def chromium() -> str | None:
    """Say where Chromium is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("MVC_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def shown_names(page: Page) -> list[str]:
    """Return the names of the versions in the table, from the top, as far as they are to be seen."""
    names: list[Any] = page.locator("#rows tr:visible th").all_inner_texts()
    return [str(each) for each in names]


def write(path: Path, text: str) -> str:
    """Write a page; return its address."""
    path.write_text(text, "utf-8")
    return path.as_uri()
