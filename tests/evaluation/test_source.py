"""Trained models found by a model name, a Keras model or a source; nothing is downloaded."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.evaluation.source import open_source
from reszoo.weights.published import published


def test_a_model_name_has_the_classes_and_transforms_of_its_weights() -> None:
    for row in published():
        source = open_source(row.model, row.tag)
        assert source.name == f"{row.model} {row.tag}" and source.run is None
        assert (
            (source.class_names, source.class_ids) == (row.class_names, row.class_ids) != ((), ())
        )
        assert len(set(source.class_names)) == len(source.class_names) > 9
        np.testing.assert_allclose(source.preprocessing.mean, row.transforms.mean)
        assert source.preprocessing.image_size == row.transforms.image_size
        assert source.details["weights"]["tag"] == row.tag


def test_a_source_is_returned_unchanged_and_frozen() -> None:
    source = open_source(published()[0].model)
    assert open_source(source) is source
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"  # type: ignore[misc]


def test_a_model_of_unknown_preprocessing_is_rejected() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="own")
    with pytest.raises(ReszooError, match="^own: the preprocessing of its images is unknown"):
        open_source(model)
