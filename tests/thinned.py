"""Parameters of which the default run takes a part; the slow run takes the rest."""

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def beyond(number: int, values: Iterable[Any]) -> list[Any]:
    """Values for `parametrize`; those beyond the first `number` are slow."""
    return [
        pytest.param(value, id=str(value), marks=[pytest.mark.slow] if place >= number else [])
        for place, value in enumerate(values)
    ]


def thinned(every: int, *axes: Collection[Any]) -> list[Any]:
    """All combinations of values for `parametrize`; those whose places do not add up to a multiple are slow.

    Two values of different axes still meet in the default run where a third axis has at least `every` values.
    """
    return [
        pytest.param(
            *(value for _, value in combination),
            id="-".join(str(value) for _, value in combination),
            marks=[pytest.mark.slow] if sum(place for place, _ in combination) % every else [],
        )
        for combination in product(*(list(enumerate(axis)) for axis in axes))
    ]
