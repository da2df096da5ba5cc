"""Promises of the checks of arguments that all callbacks share."""

from __future__ import annotations

from typing import Any

import pytest

from mvc_callbacks.arguments import names_of
from mvc_callbacks.errors import Misconfigured


@pytest.mark.parametrize(
    ("given", "names"), [("api_url", ("api_url",)), (["a", "b.*"], ("a", "b.*")), ((), ())]
)
def test_one_name_is_not_a_list_of_its_letters(given: Any, names: tuple[str, ...]) -> None:
    assert names_of("exclude_hyperparameters", given) == names


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"exclude_hyperparameters=.*a list of names"):
        names_of("exclude_hyperparameters", [1])  # type: ignore[list-item]
