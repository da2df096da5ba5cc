"""A real browser, and pages of reports for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser_kit import ASKED, EVIL, FLAGS, chromium
from neutral_store import files, make_store, snapshot

from mvc_callbacks.store import VersionStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api")
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one with MVC_CHROMIUM")
    with api.sync_playwright() as playwright:
        # It gets a profile of its own, which goes with it.
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a tab of a desktop's size; what it complains of fails the test."""
    page = browser.new_page(locale="en-US")
    page.on("request", lambda request: ASKED.append(request.url))
    page.set_viewport_size({"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield page
    page.close()
    assert complaints == []


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> VersionStore:
    """Make a store of five versions in two runs; somebody has written markup wherever text may stand."""
    store, _ = make_store(tmp_path_factory.mktemp("store") / "store")
    run = store.open_run(
        "evil",
        framework="torch",
        record={"code": {"branch": EVIL}, "environment": {EVIL: EVIL, "__proto__": 1}},
    )
    for number, loss in enumerate((float("nan"), 0.7)):
        run.commit(
            snapshot(5000 + number),
            metrics={"val_loss": loss, EVIL: 1.0, "__proto__": 2.0},
            hyperparameters={"given": {EVIL: [EVIL, number], "__proto__": number, "lr": 1.0}},
            data={EVIL: files(store, {EVIL.replace("/", "-"): str(number), "constructor": "same"})},
            flags=(EVIL,),
        )
    store.note("evil/2", EVIL)
    store.note("baseline/2", "before the labels were repaired")
    store.promote("baseline/best", "production", why="good enough")
    store.promote("finetune/best", "production", why=EVIL)
    store.prune("baseline/1", policy=EVIL)
    return store


@pytest.fixture(scope="session")
def report(store: VersionStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the store's report; return its address."""
    return store.report(tmp_path_factory.mktemp("report") / "report.html").as_uri()


@pytest.fixture
def opened(page: Page, report: str) -> Page:
    """Open the report."""
    page.goto(report)
    return page
