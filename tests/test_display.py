"""Promises of looking: lists, versions, differences and stores show themselves, plot and become tables."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from neutral_store import make_store
from test_package import modules_after

from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.progress import progress_bar
from mvc_callbacks.store import VersionStore
from mvc_callbacks.version_lists import VersionList
from mvc_callbacks.versions import Parent, Version


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> VersionStore:
    store, _ = make_store(tmp_path_factory.mktemp("looking") / "store")
    store.promote("baseline/2", "production")
    store.prune("baseline/1")
    return store


# The list


def test_the_versions_of_a_store_are_a_list_and_slices_of_it_too(made: VersionStore) -> None:
    versions = made.versions()
    assert isinstance(versions, list) and len(versions) == 5
    assert isinstance(versions[0], Version)
    assert isinstance(versions[-2:], VersionList) and list(versions[-2:]) == list(made.versions("finetune"))
    assert list(versions) == versions and sorted(versions, key=lambda each: each.sequence) == versions
    for again in (copy.copy(versions), copy.deepcopy(versions), pickle.loads(pickle.dumps(versions))):
        assert again == versions and repr(again).splitlines()[0] == repr(versions).splitlines()[0]


def test_a_list_shows_itself_as_the_table_of_mvc_log(made: VersionStore) -> None:
    lines = repr(made.versions()).splitlines()
    assert lines[0].split()[:4] == ["ID", "VERSION", "EPOCH", "STEP"]
    assert [line.split()[1] for line in lines[1:]] == [
        f"{each.run}/{each.number}" for each in made.versions()
    ]
    assert "*0.2000" in lines[5] and "[production]" in lines[2] and "weights pruned" in lines[1]
    html = made.versions()._repr_html_()
    assert ">production</span>" in html and ">*0.2000</span>" in html


def test_a_long_list_shows_its_last_versions_and_says_how_many_are_before(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    store = VersionStore(tmp_path / "store")
    for place in range(25):
        store.commit({"weight": torch.zeros(1)}, run="long", metrics={"loss": 1.0 / (1 + place)})
    assert "... 5 versions before these" in repr(store.versions())
    assert len(repr(store.versions()).splitlines()) == 22
    html = store.versions()._repr_html_()
    assert "5 versions before these" in html and "long/25" in html and "long/5<" not in html


def test_lists_show_themselves_when_their_store_is_gone_or_was_never_there(
    made: VersionStore, tmp_path: Path
) -> None:
    copied = VersionStore(shutil.copytree(made.path, tmp_path / "copy"))
    versions = copied.versions()
    shutil.rmtree(copied.path)
    assert "finetune/2" in repr(versions) and "finetune/2" in versions._repr_html_()
    assert "finetune" in versions.lineage().svg
    assert repr(VersionList()) == "no version" and "no version" in VersionList()._repr_html_()
    assert "finetune/2" in repr(VersionList(versions))


# One version, a difference, a store


def test_a_version_is_a_line_for_repr_and_a_page_for_those_who_want_more(made: VersionStore) -> None:
    version = made.get("finetune/2")
    assert repr(version) == (
        f"<Version finetune/2 ({version.short_id}) epoch 4, step 500, train_loss=0.1, val_loss=0.2>"
    )
    assert "hyperparameters" in version.text() and "packages (2)" in version.text()
    html = version._repr_html_()
    assert html is not None and version.id in html and "monitored, min" in html
    bare = version.without_loader()
    assert bare.text() == repr(bare) and bare._repr_html_() is None


def test_a_version_that_cannot_be_read_whole_is_shown_as_far_as_it_can(
    made: VersionStore, tmp_path: Path
) -> None:
    store = VersionStore(shutil.copytree(made.path, tmp_path / "copy"))
    version = store.get("finetune/2")
    (store.path / "versions" / version.id[:2] / f"{version.id}.json").unlink()
    assert "the rest cannot be read" in version.text()
    assert "the rest cannot be read" in (version._repr_html_() or "")


def test_a_difference_shows_itself(made: VersionStore) -> None:
    difference = made.diff("baseline/2", "finetune/2", weights=True)
    assert repr(difference) == difference.text() == str(difference)
    html = difference._repr_html_()
    assert "mvc-bar" in html and "a/0.png" in html and "head.weight" in html and "packages.torch" in html


def test_a_store_shows_its_runs_and_aliases_and_is_not_made_by_it(made: VersionStore, tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    from IPython.lib.pretty import pretty

    told = pretty(made)
    assert str(made.path) in told and "5 versions of 2 runs" in told and "production -> baseline/2" in told
    assert "finetune" in made._repr_html_() and "production" in made._repr_html_()
    nothing = VersionStore(tmp_path / "nothing")
    assert "there is no store yet" in pretty(nothing) and "there is no store yet" in nothing._repr_html_()
    assert not nothing.path.exists()


# Tables


def test_a_table_has_a_row_for_each_version_with_types_to_reckon_with(made: VersionStore) -> None:
    pytest.importorskip("pandas")
    table = made.versions().to_pandas()
    assert list(table.index) == [f"{each.run}/{each.number}" for each in made.versions()]
    assert table["metrics.val_loss"].idxmin() == "finetune/2"
    assert str(table["created"].dtype).startswith("datetime64") and str(table["created"].dt.tz) == "UTC"
    assert str(table["epoch"].dtype) == str(table["step"].dtype) == "Int64"
    assert list(table["has_weights"]) == [False, True, True, True, True]
    assert not [name for name in table.columns if name.startswith("hyperparameters.")]
    assert made.versions("finetune").to_pandas().loc["finetune/1", "parent"] == made.get("baseline/2").id


def test_a_table_tells_hyperparameters_when_asked_to(made: VersionStore) -> None:
    pytest.importorskip("pandas")
    table = made.versions().to_pandas(hyperparameters=True)
    assert list(table["hyperparameters.lr"]) == [0.1, 0.1, 0.1, 0.01, 0.01]
    assert set(table["hyperparameters.api_key"]) == {"(masked)"}
    assert set(table["hyperparameters.net.act"]) == {"torch.nn.ReLU"}
    assert len(VersionList().to_pandas(hyperparameters=True)) == 0


# Plots


def test_a_plot_has_axes_for_each_metric_and_a_line_for_each_run(made: VersionStore) -> None:
    pytest.importorskip("matplotlib")
    figure = made.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["val_loss", "train_loss"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines["baseline"].get_xdata()) == [100, 200, 300]
    assert list(lines["finetune"].get_ydata()) == [0.24, 0.2]
    assert [text.get_text() for text in figure.axes[0].texts] == ["production"]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(figure)).axes


def test_a_plot_is_of_what_was_asked_for(made: VersionStore) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = made.plot("train_loss", run="finetune", over="version")
    [axes] = figure.axes
    assert list(axes.get_lines()[0].get_xdata()) == [1, 2]
    assert axes.get_xlabel() == "version of the run"
    assert made.versions()[:2].plot(over="time").axes[-1].get_xlabel() == "saved (UTC)"
    own = Figure().subplots()
    assert made.plot("val_loss", axes=own) is own.figure and own.get_lines()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"metrics": ("nope",)}, "no version here has the metric 'nope'; there are: train_loss, val_loss"),
        ({"over": "moon"}, "over='moon' is none of step, epoch, time, version"),
    ],
)
def test_what_cannot_be_plotted_is_refused_with_what_there_is(
    made: VersionStore, asked: dict[str, object], told: str
) -> None:
    pytest.importorskip("matplotlib")
    metrics = asked.pop("metrics", ())
    with pytest.raises(Misconfigured, match=told):
        made.versions().plot(*metrics, **asked)  # type: ignore[misc, arg-type]
    with pytest.raises(Misconfigured, match="nothing to plot"):
        VersionList().plot()


def test_metrics_that_are_not_finite_or_look_like_formulas_are_plotted_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    torch = pytest.importorskip("torch")
    store = VersionStore(tmp_path / "store")
    for value in (1.0, float("nan"), float("inf"), 0.5):
        store.commit({"weight": torch.zeros(1)}, run="odd", metrics={r"$\frac{": value}, step=None)
    figure = store.plot()
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [1.0, 0.5]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_the_lineage_is_drawn_with_a_lane_for_each_run(made: VersionStore, tmp_path: Path) -> None:
    drawing = made.lineage()
    assert (
        drawing.svg.count("<circle") == 5 and drawing.svg.count("<polygon") == 1
    )  # four dots, a ring, a star
    assert drawing.svg.count("<path") == 4
    assert (
        "finetune/2" in drawing.svg and "the best by val_loss" in drawing.svg and "production" in drawing.svg
    )
    assert "├─╯" in repr(drawing)
    drawing.save(tmp_path / "lineage.svg")
    assert (tmp_path / "lineage.svg").read_text("utf-8") == drawing.svg
    assert made.lineage("baseline").svg.count("<path") == 2


# What it costs


def test_nothing_that_draws_is_imported_before_somebody_looks(made: VersionStore) -> None:
    code = f"""
from mvc_callbacks import VersionStore
store = VersionStore({str(made.path)!r})
versions = store.versions(); version = store.get("best"); difference = store.diff("baseline/2", "best")
repr(versions), repr(version), repr(difference), version.text()
"""
    code += "store._repr_html_(); versions._repr_html_(); version._repr_html_(); store.lineage()"
    assert not modules_after(code) & {"matplotlib", "pandas", "IPython", "numpy"}


def test_without_a_notebook_nobody_is_told_of_progress() -> None:
    with progress_bar("waiting", None) as told:
        assert told is None
    seen: list[tuple[int, int]] = []
    with progress_bar("waiting", lambda done, whole: seen.append((done, whole))) as told:
        assert told is not None
        told(1, 2)
    assert seen == [(1, 2)]


def test_a_notebook_shows_a_bar_for_what_takes_longer_and_takes_it_away(
    made: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    root = str(Path(__file__).parent.parent)
    begin = f"""
import sys; sys.path.insert(0, {root!r})
from mvc_callbacks import VersionStore, progress
store = VersionStore({str(made.path)!r})"""
    bars = """
import IPython.display
seen = []
class Html(IPython.display.HTML):
    def __init__(self, data): seen.append(data); super().__init__(data)
IPython.display.HTML = Html
progress.PATIENCE = 0
report = store.verify(full=True)
print(len([each for each in seen if "<progress" in each]) > 1, seen[-1] == "")"""
    cells = [
        begin,
        "report = store.verify(full=True)",
        bars,
        "store",
        "store.versions()",
        "store.get('best')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[1] == []  # it took no second
    assert "True True" in json.dumps(outputs[2])
    for [output] in outputs[3:]:
        assert {"text/html", "text/plain"} <= set(output["data"])
        assert 'class="mvc"' in output["data"]["text/html"]


def test_the_lineage_of_very_many_versions_is_drawn_by_its_knots(made: VersionStore) -> None:
    some = made.versions()
    many = [
        replace(
            some[1],
            id=f"{place:064x}",
            run="long" if place < 300 else "branch",
            number=place + 1,
            sequence=place,
            parents=(Parent(f"{place - 1 if place != 300 else 100:064x}", "run"),) if place else (),
        )
        for place in range(600)
    ]
    svg = VersionList(many).lineage().svg
    assert svg.count("<circle") + svg.count("<polygon") == 5  # the ends of two runs, and a fork
    assert svg.count("<path") == 3
    assert float(svg.partition('viewBox="0 0 ')[2].partition(" ")[0]) < 1000


@pytest.mark.parametrize("runs", [2, 12, 30])
def test_plots_tell_runs_apart_as_far_as_anybody_could(made: VersionStore, runs: int) -> None:
    pytest.importorskip("matplotlib")
    one = made.get("baseline/2")
    many = [
        replace(one, id=f"{run:02}{step:062x}", run=f"run-{run}", step=step)
        for run in range(runs)
        for step in range(2)
    ]
    figure = VersionList(many).plot("val_loss")
    [axes] = figure.axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 2]
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == (runs if runs <= 20 else 1)
    assert (axes.get_legend() is None) == (runs > 20)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
