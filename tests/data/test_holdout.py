"""What is held out is a fixed, fair function of the dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data.holdout import choose_stratified, complement
from reszoo.data.pipeline import open_dataset
from reszoo.errors import ReszooError


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 240), st.randoms())
def test_stratified_takes_each_class_in_proportion(
    sizes: list[int], count: int, random: Any
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(labels)
    if count > len(labels) - len(sizes):
        with pytest.raises(ReszooError, match="cannot be held out"):
            choose_stratified(labels, count)
        return
    chosen = choose_stratified(labels, count)
    assert len(set(chosen)) == len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    taken = np.bincount(labels[chosen], minlength=len(sizes))
    assert (taken < sizes).all()
    share = np.array(sizes) * count / len(labels)
    if (np.ceil(share) < sizes).all():
        assert (np.abs(taken - share) < 1).all()
    assert sorted([*chosen, *complement(len(labels), chosen)]) == list(range(len(labels)))


def test_the_choice_never_changes() -> None:
    # Published results depend on the validation split: these indices may not change.
    chosen = choose_stratified(np.arange(60) % 3, 9)
    assert chosen.tolist() == [3, 10, 14, 19, 38, 49, 54, 56, 57]


def test_images_of_several_classes_are_divided_by_the_rarest() -> None:
    random = np.random.default_rng(1)
    targets = (random.random((400, 4)) < [0.5, 0.3, 0.05, 0.01]).astype(np.float32)
    targets[0, 3] = 1
    chosen = choose_stratified(targets, 80)
    assert len(set(chosen.tolist())) == 80 and (np.diff(chosen) > 0).all()
    kept, held = targets[complement(400, chosen)], targets[chosen]
    assert kept.any(axis=0).all()
    share = held.sum(axis=0) / targets.sum(axis=0)
    np.testing.assert_allclose(share[:3], 0.2, atol=0.03)  # the last one has 2 images
    assert abs((held.sum(axis=1) == 0).mean() - (targets.sum(axis=1) == 0).mean()) < 0.02


@pytest.mark.smoke
def test_splits_of_digits_are_disjoint_and_balanced() -> None:
    from sklearn.datasets import load_digits

    data = DataConfig(name="digits", validation=137)
    splits: Any = open_dataset(data, NoCrop(), batch_size=9, seed=0).dataset.splits
    images = np.concatenate([split.images.reshape(split.count, -1) for split in splits.values()])
    source = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, images)) == sorted(map(bytes, source)) and len(images) == 1797
    assert source.min() == 0 and source.max() == 255
    test = np.bincount(splits["test"].labels)
    assert test.min() >= 34 and test.max() <= 37


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation": 1437}, r"data.validation: 1437 .* fewer than digits's 1437"),
        ({"validation": 37, "examples": 1401}, r"data.examples: 1401 .* at most digits's 1400"),
    ],
)
def test_more_than_there_are(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ReszooError, match=message):
        open_dataset(DataConfig(name="digits", **fields), NoCrop(), batch_size=8, seed=0)
