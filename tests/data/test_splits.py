"""What is held out is a fixed, fair function of the set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data.pipeline import open_dataset
from reszoo.data.splits import rest, stratified
from reszoo.errors import ReszooError


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 240), st.randoms())
def test_stratified_takes_each_class_in_proportion(
    sizes: list[int], count: int, random: object
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(labels)  # type: ignore[attr-defined]
    if count > len(labels) - len(sizes):
        with pytest.raises(ReszooError, match="cannot be held out"):
            stratified(labels, count)
        return
    chosen = stratified(labels, count)
    assert len(set(chosen)) == len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(labels[chosen], minlength=len(sizes))
    assert (taken < sizes).all()
    share = np.array(sizes) * count / len(labels)
    if (np.ceil(share) < sizes).all():
        assert (np.abs(taken - share) < 1).all()
    remaining = rest(len(labels), chosen)
    assert sorted([*chosen, *remaining]) == list(range(len(labels)))


def test_the_choice_never_changes() -> None:
    # The held-out part of every published figure rests on it: these indices may not change between versions.
    assert stratified(np.arange(60) % 3, 9).tolist() == [3, 10, 14, 19, 38, 49, 54, 56, 57]


def test_digits_parts_are_apart_and_balanced() -> None:
    parts = open_dataset(
        DataConfig(name="digits", validation=137), NoCrop(), batch_size=9, seed=0
    )._images.parts
    images = [part.images.reshape(part.count, -1) for part in parts.values()]  # type: ignore[attr-defined]
    assert sum(map(len, images)) == 1797
    from sklearn.datasets import load_digits

    source = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, np.concatenate(images))) == sorted(map(bytes, source))
    assert source.min() == 0 and source.max() == 255
    test = np.bincount(parts["test"].labels)  # type: ignore[attr-defined]
    assert test.min() >= 34 and test.max() <= 37
