"""Who else holds an object, by its references alone."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from mori.format.refcounts import is_held


@pytest.mark.parametrize("is_flat", [False, True])
def test_what_is_known_counts_nowhere_and_all_else_does(is_flat: bool) -> None:
    known, other = [1], [2]
    ids = {id(known)}
    assert is_held([known], is_flat=is_flat)
    assert not is_held([known], is_flat=is_flat, known=ids)
    assert not is_held([known, [3]], is_flat=is_flat, known=ids)
    assert is_held([known, other], is_flat=is_flat, known=ids)


def test_what_is_below_what_is_known_is_not_looked_at() -> None:
    below = [1]
    known = [below]
    assert not is_held([known, [known], {"k": known}], is_flat=False, known={id(known)})
    assert is_held([known, [below]], is_flat=False, known={id(known)})


def test_an_object_that_is_twice_among_others_is_held_by_none_of_them() -> None:
    def objects() -> list[Any]:
        one: list[Any] = [[1]]
        return [one, one, [one, one[0]]]

    assert not is_held(objects(), is_flat=False)
    held = objects()
    kept = held[0][0]
    assert is_held(held, is_flat=False)
    del kept
    assert not is_held(held, is_flat=False)


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_what_objects_refer_to_together_is_held_by_none_of_them(levels: int) -> None:
    together: list[Any] = [[1]]
    objects: list[Any] = [[together], [[together]], np.array([together, None, together], object)]
    kept = together
    del together
    for _ in range(levels):
        objects = [objects]
    assert is_held(objects, is_flat=False)
    del kept
    assert not is_held(objects, is_flat=False)


def test_who_has_a_view_of_an_array_holds_the_array() -> None:
    objects = pickle.loads(pickle.dumps([np.arange(5.0), {"x": np.ones((2, 3))}], 5))
    assert not is_held(objects, is_flat=False)
    view = objects[1]["x"][0]
    assert is_held(objects, is_flat=False)
    del view
    assert not is_held(objects, is_flat=False)
