"""The images of a comparison: whose they are, always the same, and without the folders of this machine."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from reszoo.exporting.samples import Sample, photographs, remove_folders
from reszoo.images.preprocessing import Preprocessing


def test_an_export_names_no_folders() -> None:
    value = {
        "a": "folder:/home/me/flowers/",
        "b": ["/data/x.th", "cifar10", "folder:flowers"],
        "c": {"d": ("/", 3, None)},
    }
    assert remove_folders(value) == {
        "a": "folder:flowers",
        "b": ["x.th", "cifar10", "folder:flowers"],
        "c": {"d": ["", 3, None]},
    }


def test_the_photographs_are_real_and_always_the_same() -> None:
    from sklearn.datasets import load_sample_images

    whole, sample = load_sample_images().images, photographs(8)
    assert len(sample.images) == 8 and sample.labels is None
    for own, again in zip(sample.images, photographs(8).images, strict=True):
        np.testing.assert_array_equal(own, again)
    first = sample.images[0]
    windows = np.lib.stride_tricks.sliding_window_view(whole[0][..., 0], first.shape[:2])
    assert (windows[:, :, ::7, ::7] == first[::7, ::7, 0]).all((2, 3)).any()


def test_a_sample_holds_files_and_arrays_alike() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    gray = Preprocessing((8, 8), 1, 0, np.zeros(1, "float32"), np.ones(1, "float32"))
    own = Sample([image, tf.io.encode_png(image).numpy()], None, "").inputs(gray)
    assert own.shape == (2, 8, 8, 1) and own.dtype == np.uint8
    np.testing.assert_array_equal(own[0], own[1])
