"""The report as one page: its parts as elements, and the values that its script compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from mvc_callbacks.render import clean, count, moment, short, size
from mvc_callbacks.render_curves import COLOURS, curve_svg, over
from mvc_callbacks.render_html import Content, element
from mvc_callbacks.render_lineage import lineage_svg
from mvc_callbacks.render_page import asset, page_text
from mvc_callbacks.render_report_data import report_data
from mvc_callbacks.render_report_table import address, named, versions_table
from mvc_callbacks.render_tables import Log, metrics_of
from mvc_callbacks.report import Report

__all__ = ["report_text"]

_MOST_METRICS = 40
_MOST_CURVES = 12
_MOST_DRAWN = 3000
_MOST_MOVES = 2000
_LONGEST = 400


def report_text(report: Report) -> str:
    """Write a report as one HTML file.

    Args:
        report: What is shown.

    Returns:
        The text of the file; it needs no network, and no text of the store is markup in it.
    """
    wanted, others = metrics_of(report.versions)
    metrics = [*wanted, *others][:_MOST_METRICS]
    log = Log(
        versions=report.versions[::-1],
        parents={**report.elsewhere, **{each.id: each for each in report.versions}},
        aliases=report.aliases,
        best=report.best,
    )
    runs = {run: place for place, run in enumerate(dict.fromkeys(each.run for each in report.versions))}
    parts = (
        ("versions", "Versions", list(versions_table(log, metrics))),
        ("compare", "Compare", list(_compare())),
        ("curves", "Curves", list(_curves(report, log, metrics, runs))),
        ("lineage", "Lineage", list(_lineage(report, log))),
        ("aliases", "Aliases", list(_aliases(report, log))),
        ("storage", "Storage", list(_storage(report))),
    )
    body = (
        element("a", "Skip to the versions", href="#versions", class_="skip"),
        _top(report, runs, [(key, head) for key, head, _ in parts]),
        element("main", [_part(key, head, inside) for key, head, inside in parts]),
        element("div", class_="chosen", id="chosen", role="status", hidden=True),
        element("div", class_="tip", id="tip", hidden=True),
        element("footer", element("p", f"Made by mvc_callbacks on {moment(report.created)}.")),
    )
    return page_text(
        f"{_name_of(report)} – model versions",
        body,
        style=asset("report.css"),
        script=asset("report.js"),
        data=report_data(report, log, metrics, runs),
    )


def _name_of(report: Report) -> str:
    parts = [each for each in report.path.replace("\\", "/").split("/") if each]
    generic = len(parts) > 1 and parts[-1] == "model_versions"
    return clean("/".join(parts[-2:] if generic else parts[-1:]) or report.path, 80)


def _top(report: Report, runs: Mapping[str, int], parts: Sequence[tuple[str, str]]) -> Element:
    told = [
        count(len(report.versions), "version"),
        count(len(runs), "run"),
        f"{size(report.disk_bytes)} on disk",
        f"as of {moment(report.created)}",
    ]
    left_out = [f"{count(report.left_out, 'version')} of other runs left out"] if report.left_out else []
    return element(
        "header",
        element(
            "div",
            element("h1", _name_of(report)),
            element("p", " · ".join([*told, *left_out]), class_="dim"),
            element("p", clean(report.path, _LONGEST), class_="dim path"),
            class_="title",
        ),
        element("nav", [element("a", head, href=f"#{key}") for key, head in parts], aria_label="Parts"),
        element("button", "Dark", type="button", id="theme", class_="quiet js", aria_pressed="false"),
    )


def _part(key: str, head: str, inside: Sequence[Element]) -> Element:
    return element(
        "section", element("h2", head, id=f"{key}-head"), inside, id=key, aria_labelledby=f"{key}-head"
    )


def _compare() -> Iterator[Element]:
    fields = [
        element(
            "label",
            element("span", side),
            element(
                "input",
                id=f"side-{side.lower()}",
                list="names",
                autocomplete="off",
                spellcheck="false",
                placeholder="run/3, an alias, an id",
            ),
        )
        for side in "AB"
    ]
    yield element(
        "div",
        fields[0],
        element("button", "⇄", type="button", id="swap", class_="quiet", aria_label="Swap A and B"),
        fields[1],
        element(
            "label", element("input", type="checkbox", id="all"), "also what is the same", class_="check"
        ),
        class_="controls js",
    )
    yield element("datalist", id="names")
    yield element("p", "Comparing needs JavaScript. In a terminal: mvc diff A B", class_="dim unscripted")
    yield element("div", id="compared", class_="js", aria_live="polite")


def _curves(report: Report, log: Log, metrics: Sequence[str], runs: Mapping[str, int]) -> Iterator[Element]:
    axis = over(report.versions)
    ordered = sorted(report.versions, key=lambda each: (each.sequence, each.created))
    drawn = [
        element("figure", element("figcaption", clean(name, 80)), svg)
        for name in metrics
        if (svg := curve_svg(name, ordered, axis=axis, runs=runs, known=log.parents, best=report.best))
        is not None
    ]
    if not drawn:
        yield element("p", "No version has a metric.", class_="dim")
        return
    yield element(
        "ul",
        [
            element(
                "li",
                element(
                    "button",
                    element(
                        "span", class_=f"swatch c{place % COLOURS}{' dashed' if place >= COLOURS else ''}"
                    ),
                    clean(run, 64),
                    type="button",
                    aria_pressed="false",
                    data_run=place,
                ),
            )
            for run, place in runs.items()
        ],
        class_="legend",
        aria_label="Runs",
    )
    yield element("div", drawn[:_MOST_CURVES], class_="figures")
    if len(drawn) > _MOST_CURVES:
        further = element("summary", f"{len(drawn) - _MOST_CURVES} further metrics")
        yield element("details", further, element("div", drawn[_MOST_CURVES:], class_="figures"))


def _lineage(report: Report, log: Log) -> Iterator[Element]:
    if len(report.versions) > _MOST_DRAWN:
        yield element("p", f"More than {_MOST_DRAWN:,} versions are not drawn: mvc log --graph", class_="dim")
        return
    if report.versions:
        drawing = lineage_svg(log)
        drawing.set(
            "aria-label", "Versions as dots in lanes of runs; the table and the comparisons tell the same"
        )
        yield element(
            "div",
            drawing,
            class_="scroll tall drawing",
            tabindex="0",
            role="region",
            aria_label="Drawing of the lineage",
        )
        yield element(
            "p",
            "A lane is a run, a dot a version, older ones on the left. ★ the best, ○ pruned, a ring with a "
            "name: an alias.",
            class_="dim",
        )


def _aliases(report: Report, log: Log) -> Iterator[Element]:
    pointing = sorted((name, key) for key, names in report.aliases.items() for name in names)
    if not report.moves and not pointing:
        yield element(
            "p", "There is no alias. ", element("code", "mvc promote best production"), " makes one."
        )
        return
    rows = [[element("span", clean(name, 64), class_="badge"), _place(key, log)] for name, key in pointing]
    yield _table(["Alias", "Version"], rows, "Where aliases point")
    yield element("h3", "Every move, newest first")
    moves = [
        [
            moment(each.time),
            clean(each.name, 64),
            clean(each.how, 16),
            _place(each.previous, log),
            _place(each.id, log),
            clean(each.who, 64),
            clean(each.why, _LONGEST),
        ]
        for each in report.moves[:_MOST_MOVES]
    ]
    yield _table(["When", "Alias", "How", "From", "To", "Who", "Why"], moves, "Every move of an alias")


def _place(identity: str | None, log: Log) -> Content:
    if identity is None:
        return "–"
    known = log.parents.get(identity)
    return element("a", named(known), href=address(known)) if known else f"{short(identity)} (not here)"


def _storage(report: Report) -> Iterator[Element]:
    top = max((each.held_bytes for each in report.storage), default=0) or 1
    rows: list[list[Content]] = [
        [
            clean(each.run, 64),
            f"{each.versions:,}",
            f"{each.kept:,}",
            size(each.logical_bytes),
            size(each.held_bytes),
            size(each.own_bytes),
            _bar(each.own_bytes / top, each.held_bytes / top),
        ]
        for each in sorted(report.storage, key=lambda each: -each.held_bytes)
    ]
    heads = ["Run", "Versions", "With weights", "As files of their own", "Held", "Its own", "Share"]
    yield _table(heads, rows, "Storage by run", right=range(1, 6))
    yield element(
        "p",
        f"The store takes {size(report.disk_bytes)}. Held is what the versions of a run need, each once; "
        "its own is what no other run needs: deleting the run would free that.",
        class_="dim",
    )


def _bar(own: float, held: float) -> Element:
    return element(
        "svg",
        element("rect", width="100%", height="10", class_="track"),
        element("rect", width=f"{100 * held:.2f}%", height="10", class_="held"),
        element("rect", width=f"{100 * own:.2f}%", height="10", class_="own"),
        class_="bar",
        aria_hidden="true",
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[Content]], caption: str, *, right: Iterable[int] = ()
) -> Element:
    sides = dict.fromkeys(right, "right")
    table = element(
        "table",
        element("caption", caption, class_="unseen"),
        element(
            "thead",
            element(
                "tr",
                [element("th", each, scope="col", class_=sides.get(at)) for at, each in enumerate(heads)],
            ),
        ),
        element(
            "tbody",
            [
                element("tr", [element("td", each, class_=sides.get(at)) for at, each in enumerate(row)])
                for row in rows
            ],
        ),
    )
    return element("div", table, class_="scroll tall fit", tabindex="0", role="region", aria_label=caption)
