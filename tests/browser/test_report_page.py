"""Promises of the report in a real browser, by clicking and typing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_kit import ASKED, EVIL, shown_names, write
from report_values import many_versions

from mvc_callbacks.diff import Change, Difference
from mvc_callbacks.render_report import report_text
from mvc_callbacks.store import VersionStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NEWEST_FIRST = ["evil/2", "evil/1", "finetune/2", "finetune/1", "baseline/3", "baseline/2", "baseline/1"]


def box(page: Page, name: str) -> Locator:
    return page.get_by_label(f"Choose {name} to compare", exact=True)


def head(page: Page, name: str) -> Locator:
    return page.locator("#versions thead").get_by_role("button", name=name, exact=True)


def part(page: Page, name: str) -> Locator:
    return page.locator(f'#compared details[data-part="{name}"]')


def lines(part: Locator) -> list[list[str]]:
    """Return the cells of a part's tables, whether it is open or folded."""
    rows = part.locator("tbody tr")
    return [rows.nth(place).locator("> *").all_text_contents() for place in range(rows.count())]


# --- the page itself ---


def test_the_page_asks_for_nothing_but_itself(opened: Page, report: str) -> None:
    ASKED.clear()
    opened.reload()
    opened.locator("#rows input").first.check()
    assert {each.partition("#")[0] for each in ASKED} - {"data:,"} == {report}


def test_the_page_can_be_read_without_javascript(browser: Browser, report: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report)
    assert shown_names(page) == NEWEST_FIRST
    assert not page.locator("#filter").is_visible()
    assert page.locator("#curves svg polyline").count() >= 4
    assert page.locator("#lineage svg").is_visible()
    assert page.locator("#aliases").get_by_text("good enough").is_visible()
    assert page.get_by_text("Comparing needs JavaScript").is_visible()
    page.close()


def test_text_of_a_store_is_shown_and_is_no_markup(opened: Page) -> None:
    for name in ("evil/1", "evil/2"):
        box(opened, name).check()
    opened.get_by_label("also what is the same").check()
    for shown in ("hyperparameters", "data", "environment", "metrics", "code"):
        assert EVIL.partition("/")[0] in part(opened, shown).inner_text(), shown
    assert opened.locator("#compared .card").last.get_by_text(EVIL).count() >= 1
    assert opened.locator("#aliases").get_by_text(EVIL).is_visible()
    assert opened.locator("#rows").get_by_text(EVIL).count() >= 1
    assert opened.locator("img").count() == 0
    assert opened.evaluate("window.owned") is None
    assert opened.evaluate("document.scripts.length") == 2


def test_what_is_called_as_a_part_of_every_object_is_compared_like_anything_else(opened: Page) -> None:
    opened.goto(opened.url.partition("#")[0] + "#diff=evil/1..evil/2")
    assert ["~ changed", "__proto__", "0", "1"] in lines(part(opened, "hyperparameters"))
    opened.locator("#filter").fill("toString=1")
    assert "No version has toString" in opened.locator("#shown").inner_text()


def test_markup_that_came_in_all_the_same_could_neither_run_nor_load(
    browser: Browser, report: str, tmp_path: Path
) -> None:
    text = Path(report.removeprefix("file://")).read_text("utf-8")
    evil = (
        '<script>document.title="owned"</script><img src="http://127.0.0.1:9/x" onerror="document.title=1">'
    )
    other = browser.new_page()  # what it complains of is wanted here
    refused: list[str] = []
    other.on("console", lambda message: refused.append(message.text))
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.on(
        "requestfailed", lambda request: asked.remove(request.url)
    )  # told of, and refused before it left
    other.goto(
        write(tmp_path / "evil.html", text.replace("<main>", f"<main>{evil}<style>main{{color:red}}</style>"))
    )
    assert shown_names(other) == NEWEST_FIRST
    assert other.title() != "owned" and not [each for each in asked if each.startswith("http")]
    assert len([each for each in refused if "Content Security Policy" in each]) >= 3
    with pytest.raises(Exception, match="TrustedHTML"):
        other.evaluate("document.body.innerHTML = '<b>x</b>'")
    other.close()


# --- sorting, filtering, columns ---


def test_a_click_on_a_head_sorts_and_another_turns_it_round(opened: Page) -> None:
    assert shown_names(opened) == NEWEST_FIRST
    head(opened, "val_loss").click()
    down = ["evil/2", "baseline/1", "baseline/3", "baseline/2", "finetune/1", "finetune/2", "evil/1"]
    assert shown_names(opened) == down
    column = opened.locator("#versions thead th[data-metric=val_loss]")
    assert column.get_attribute("aria-sort") == "descending"
    head(opened, "val_loss").click()
    assert shown_names(opened) == [*down[:-1][::-1], "evil/1"], "what is no number comes last either way"
    assert column.get_attribute("aria-sort") == "ascending"
    assert opened.locator("thead [aria-sort]").count() == 1
    head(opened, "Version").click()
    assert shown_names(opened)[:3] == ["baseline/1", "baseline/2", "baseline/3"]


def test_the_keyboard_sorts_and_chooses(opened: Page) -> None:
    head(opened, "Version").focus()
    opened.keyboard.press("Enter")
    assert shown_names(opened)[0] == "baseline/1"
    box(opened, "baseline/2").focus()
    opened.keyboard.press("Space")
    assert opened.locator("#chosen").get_by_text("baseline/2").is_visible()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("labels repaired", ["baseline/2"]),
        ("PRODUCTION", ["finetune/2"]),
        ("val_loss<0.3", ["finetune/2", "finetune/1", "baseline/2"]),
        ("val_loss<0.3 -run=baseline", ["finetune/2", "finetune/1"]),
        ("lr=0.01", ["finetune/2", "finetune/1"]),
        ("width>=64 epoch=0", ["baseline/1"]),
        ("pruned=true", ["baseline/1"]),
        ('"before the labels"', ["baseline/2"]),
        ("val_loss!=0.25 run~base", ["baseline/3", "baseline/1"]),
        ("run=evil val_loss>0", ["evil/2"]),
        ("no such words", []),
    ],
)
def test_the_filter_leaves_what_fits(opened: Page, typed: str, names: list[str]) -> None:
    opened.locator("#filter").fill(typed)
    assert shown_names(opened) == names
    assert opened.locator("#shown").inner_text() == f"{len(names)} of 7 versions"
    opened.locator("#filter").fill("")
    assert shown_names(opened) == NEWEST_FIRST


def test_the_filter_says_what_no_version_has(opened: Page) -> None:
    opened.locator("#filter").fill("val_los<1")
    assert opened.locator("#shown").inner_text() == "No version has val_los."


def test_a_run_can_be_chosen_and_the_curves_follow(opened: Page) -> None:
    opened.locator("#run").select_option("finetune")
    assert shown_names(opened) == ["finetune/2", "finetune/1"]
    lines_of = opened.locator("#curves figure").first.locator("polyline")
    assert [each.is_visible() for each in lines_of.all()] == [False, True, False]


def test_columns_are_shown_and_hidden(opened: Page) -> None:
    assert head(opened, "Stored").is_visible()
    opened.get_by_text("Columns", exact=True).click()
    opened.locator("#columns").get_by_label("Stored").uncheck()
    assert not head(opened, "Stored").is_visible()
    assert (
        opened.locator("#rows tr:first-child > :visible").count()
        == opened.locator("#versions thead th:visible").count()
    )
    opened.locator("#columns").get_by_label("Stored").check()
    assert head(opened, "Stored").is_visible()


# --- comparing ---


def test_two_chosen_versions_are_compared(opened: Page) -> None:
    box(opened, "finetune/2").check()
    assert "choose another" in opened.locator("#chosen").inner_text()
    box(opened, "baseline/2").check()
    opened.locator("#chosen").get_by_role("button", name="Compare").click()
    assert opened.locator("#compare-head").evaluate("each => each === document.activeElement")
    assert opened.locator("#side-a").input_value() == "baseline/2", "the older one is A"
    assert opened.locator("#side-b").input_value() == "finetune/2"
    assert lines(part(opened, "metrics")) == [
        ["~ changed", "train_loss", "0.1250", "0.1000", "-0.0250"],
        ["~ changed", "val_loss", "0.2500", "★ 0.2000", "-0.0500"],
    ]
    assert lines(part(opened, "hyperparameters")) == [
        ["~ changed", "lr", "0.1", "0.01"],
        ["+ only in B", "warmup", "", "true"],
    ]
    assert lines(part(opened, "data")) == [["~ changed", "a/0.png"], ["+ only in B", "c/0.png"]]
    assert lines(part(opened, "environment")) == [["~ changed", "packages.torch", "2.13.0", "2.14.0"]]
    assert "2 tensors changed, 1 unchanged" in part(opened, "weights").inner_text()
    opened.get_by_label("Swap A and B").click()
    assert lines(part(opened, "metrics"))[1] == ["~ changed", "val_loss", "★ 0.2000", "0.2500", "+0.0500"]
    assert opened.url.endswith("#diff=finetune%2F2..baseline%2F2")
    box(opened, "evil/2").check()  # a third takes the place of one
    assert opened.locator("#rows input:checked").count() == 2
    opened.locator("#chosen").get_by_role("button", name="Clear").click()
    assert opened.locator("#rows input:checked").count() == 0
    assert not opened.locator("#chosen").is_visible()


def changed(changes: tuple[Change, ...]) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in changes if each.kind != "same"}


KINDS = {"+ only in B": "added", "− only in A": "removed", "~ changed": "changed"}


def told(page: Page, name: str) -> set[tuple[str, str]]:
    return {(KINDS[row[0]], row[1]) for row in lines(part(page, name)) if row[0] in KINDS}


def test_any_two_versions_differ_as_the_store_says(opened: Page, store: VersionStore) -> None:
    names = [each for each in NEWEST_FIRST if not each.startswith("evil")]
    for a in names:
        for b in names:
            if a == b:
                continue
            opened.goto(f"{opened.url.partition('#')[0]}#diff={a}..{b}")
            opened.wait_for_function(
                "names => [...document.querySelectorAll('.card h3')]"
                ".every((each, at) => each.textContent.includes(names[at]))",
                arg=[a, b],
            )
            found: Difference = store.diff(a, b)
            assert told(opened, "metrics") == changed(found.metrics), (a, b)
            assert told(opened, "hyperparameters") == changed(found.hyperparameters), (a, b)
            assert told(opened, "code") == changed(found.code), (a, b)
            assert told(opened, "environment") == changed(found.environment), (a, b)
            files = {
                (kind, path)
                for each in found.data
                if each.files is not None
                for kind in ("added", "removed", "changed")
                for path in getattr(each.files, f"{kind}_names")
            }
            assert told(opened, "data") == files, (a, b)
            weights = found.weights
            if weights.unchanged is None:
                assert "its weights were pruned" in part(opened, "weights").inner_text()
            else:
                tensors = {("added", each) for each in weights.added} | changed(weights.changed)
                assert told(opened, "weights") == tensors | {("removed", each) for each in weights.removed}


def test_one_version_alone_is_shown_with_everything(opened: Page) -> None:
    opened.locator("#rows").get_by_role("link", name="baseline/2").click()
    assert opened.locator("#compared .card").count() == 1
    assert ["lr", "0.1"] in lines(part(opened, "hyperparameters"))
    assert ["api_key", "(masked)"] in lines(part(opened, "hyperparameters"))
    assert ["packages.torch", "2.13.0"] in lines(part(opened, "environment"))
    assert ["encoder", "F32 [64, 64]"] in lines(part(opened, "weights"))
    assert "before the labels were repaired" in opened.locator("#compared .card").inner_text()


def test_versions_are_found_by_name_alias_and_id(opened: Page, store: VersionStore) -> None:
    opened.locator("#side-a").fill(store.get("baseline/3").id[:8])
    opened.locator("#side-a").press("Enter")
    opened.locator("#side-b").fill("production")
    opened.locator("#side-b").press("Enter")
    heads = opened.locator("#compared .card h3").all_inner_texts()
    assert ["baseline/3" in heads[0], "finetune/2" in heads[1]] == [True, True]
    opened.locator("#side-a").fill("no-such")
    opened.locator("#side-a").press("Enter")
    assert opened.locator("#side-a").get_attribute("aria-invalid") == "true"
    assert "no-such" in (opened.locator("#side-a").get_attribute("title") or "")


def test_an_address_opens_a_comparison_and_going_back_leaves_it(page: Page, report: str) -> None:
    page.goto(f"{report}#diff=baseline/2..finetune/1")
    assert page.locator("#compared .card h3").all_inner_texts()[0].endswith("baseline/2")
    page.goto(f"{report}#show=finetune/2")
    assert "finetune/2" in page.locator("#compared .card h3").inner_text()
    page.go_back()
    page.wait_for_function("document.querySelectorAll('#compared .card').length === 2")
    page.goto(f"{report}#diff=%E0..nobody")  # an address that is none does no harm
    assert "Choose one version" in page.locator("#compared").inner_text()


def test_aliases_lead_to_their_versions(opened: Page) -> None:
    opened.locator("#aliases tbody").first.get_by_role("link").click()
    assert "finetune/2" in opened.locator("#compared .card h3").inner_text()


# --- curves ---


def test_the_nearest_version_is_told_and_a_click_shows_it(opened: Page) -> None:
    svg = opened.locator("#curves svg[data-metric=val_loss]")
    svg.scroll_into_view_if_needed()
    ring = svg.locator("circle.ring").bounding_box()
    assert ring is not None
    opened.mouse.move(ring["x"] + ring["width"] / 2 + 3, ring["y"] + ring["height"] / 2 + 3)
    assert opened.locator("#tip").inner_text().split("\n")[:2] == ["finetune/2", "val_loss 0.2000"]
    opened.mouse.click(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
    opened.wait_for_function("location.hash === '#show=finetune%2F2'")
    assert "finetune/2" in opened.locator("#compared .card h3").inner_text()
    opened.mouse.move(2, 2)
    assert not opened.locator("#tip").is_visible()


def test_a_dot_of_the_lineage_shows_its_version(opened: Page) -> None:
    opened.locator('#lineage [data-version="baseline/3"] circle').last.click()
    opened.wait_for_function("location.hash === '#show=baseline%2F3'")
    assert "baseline/3" in opened.locator("#compared .card h3").inner_text()


def test_a_run_in_the_legend_stands_out(opened: Page) -> None:
    button = opened.locator(".legend").get_by_role("button", name="finetune")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    first = opened.locator("#curves figure").first
    assert first.locator("polyline.faint").count() == first.locator("polyline").count() - 1
    button.click()
    assert opened.locator(".faint").count() == 0


# --- looks ---


def brightness(page: Page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_it_is_light_or_dark_as_the_system_is_until_somebody_chooses(opened: Page) -> None:
    opened.emulate_media(color_scheme="light")
    assert brightness(opened) > 200
    opened.emulate_media(color_scheme="dark")
    assert brightness(opened) < 60
    button = opened.locator("#theme")
    assert button.inner_text() == "Light"
    button.click()
    assert brightness(opened) > 200 and button.inner_text() == "Dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(opened: Page, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    box(opened, "baseline/2").check()
    box(opened, "finetune/2").check()
    opened.get_by_label("also what is the same").check()
    found = axe.Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()


def test_on_a_phone_nothing_is_wider_than_the_screen(opened: Page) -> None:
    opened.set_viewport_size({"width": 390, "height": 844})
    box(opened, "evil/1").check()
    box(opened, "evil/2").check()
    assert opened.evaluate("document.scrollingElement.scrollWidth") <= 390
    field = opened.locator("#rows input").first.bounding_box()
    assert field is not None and field["width"] >= 18


def test_a_thousand_versions_are_sorted_filtered_and_compared(page: Page, tmp_path: Path) -> None:
    report = many_versions(runs=30, each=40)
    page.goto(write(tmp_path / "many.html", report_text(report)))
    assert len(shown_names(page)) == 1200
    head(page, "val_loss").click()
    head(page, "val_loss").click()
    values = {f"{each.run}/{each.number}": each.metrics["val_loss"] for each in report.versions}
    assert [values[name] for name in shown_names(page)] == sorted(values.values())
    page.locator("#filter").fill("run=run-7 epoch>=30")
    assert page.locator("#shown").inner_text() == "10 of 1,200 versions"
    page.goto(f"{page.url.partition('#')[0]}#diff=run-1/1..run-29/40")
    assert "400 tensors changed, 0 unchanged" in part(page, "weights").inner_text()
    assert lines(part(page, "hyperparameters")) == [["~ changed", "lr", "0.0455", "0.0028"]]
