"""Trained models of an experiment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reszoo.errors import ReszooError
from reszoo.lab.trained import open_trained


def test_models_share_images_and_keep_their_own_preprocessing(done: Path) -> None:
    runs = [str(done / "runs" / f"{name}-seed0") for name in ("plain8", "resnet14")]
    plain, residual = open_trained(runs)
    assert (plain.name, plain.kind, plain.depth) == ("plain8 (seed 0)", "plain", 8)
    assert (residual.kind, residual.depth) == ("residual", 14)
    images, labels = residual.sample("test", 10)
    assert images.shape == (10, 8, 8, 1) and set(labels) <= set(range(10))
    scaled = dataclasses.replace(residual.preprocessing, std=2 * residual.preprocessing.std)
    found, same = dataclasses.replace(plain, preprocessing=scaled).sample("test", 10)
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(2 * found, images, rtol=1e-5)


def test_models_without_common_images_are_rejected(done: Path) -> None:
    run = str(done / "runs" / "resnet8-seed0")
    with pytest.raises(ReszooError, match="data: none is given.*Example: --data cifar10"):
        open_trained(["resnet20@cifar10_reszoo"])
    with pytest.raises(ReszooError, match="resnet20.*does not classify the images of digits"):
        open_trained([run, "resnet20@cifar10_reszoo"])
