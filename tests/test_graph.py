"""Promises of the graph beside a log."""

from __future__ import annotations

from mvc_callbacks.graph import branches, strands


def drawn(ids: str, **parents: str) -> list[str]:
    found = strands(list(ids), {each: list(mine) for each, mine in parents.items()})
    return [
        line
        for each, strand in zip(ids, found, strict=True)
        for line in (*strand.before, f"{strand.own} {each}")
    ]


def test_a_straight_line_is_straight() -> None:
    assert drawn("cba", c="b", b="a") == ["● c", "● b", "● a"]


def test_runs_that_never_meet_take_no_more_room_than_one() -> None:
    assert drawn("dcba", d="c", b="a") == ["● d", "● c", "● b", "● a"]


def test_a_branch_goes_back_to_where_it_began() -> None:
    assert drawn("edcba", e="d", d="b", c="b", b="a") == ["● e", "● d", "│ ● c", "├─╯", "● b", "● a"]


def test_lanes_cross_lanes() -> None:
    assert drawn("dcba", d="a", c="b", b="a") == ["● d", "│ ● c", "│ ● b", "├─╯", "● a"]
    assert drawn("fedcba", f="a", e="b", d="a", c="b") == [
        *("● f", "│ ● e", "│ │ ● d", "│ │ │ ● c", "│ ├─┼─╯", "│ ● │ b"),
        *("├───╯", "● a"),
    ]


def test_two_parents_are_two_lanes() -> None:
    assert drawn("mba", m="ab") == ["● m", "├─╮", "│ ● b", "● a"]


def test_parents_that_are_not_shown_and_cycles_end_a_lane() -> None:
    assert drawn("ba", b="z", a="a") == ["● b", "● a"]


def test_only_what_branches_or_merges_is_worth_a_graph() -> None:
    assert not branches("cba", {"c": "b", "b": "a"})
    assert not branches("cb", {"c": "a", "b": "a"})
    assert branches("cba", {"c": "a", "b": "a"})
    assert branches("mba", {"m": "ab"})
