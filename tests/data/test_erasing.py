"""Random erasing against slicing, and its rectangles against the paper's distribution."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from reszoo.data.erasing import draw_boxes, draw_noise, erase
from reszoo.data.random_keys import make_key


def test_rectangles_have_the_area_aspect_and_places_of_the_paper() -> None:
    boxes = draw_boxes(0.25, (0.02, 0.3), 20_000, (60, 40), make_key(0)).numpy()
    erased = boxes[boxes[:, 2] > 0]
    assert abs(len(erased) / 20_000 - 0.25) < 0.0125
    assert (boxes[boxes[:, 2] == 0] == 0).all()
    y, x, height, width = erased.T
    assert (y >= 0).all() and (y + height <= 60).all() and (x + width <= 40).all()
    area, aspect = height * width / 2400, height / width
    assert 0.015 < area.min() < 0.03 and 0.28 < area.max() < 0.32
    assert 0.25 < aspect.min() < 0.4 and 2.5 < aspect.max() < 4
    assert abs(np.mean(area) - 0.16) < 0.01
    share = y / (60 - height)  # uniform from one border to the other
    assert abs(share.mean() - 0.5) < 0.02 and share.min() == 0 and share.max() == 1


def test_erased_pixels_are_zero_or_noise_and_the_others_stay() -> None:
    images = np.random.default_rng(0).standard_normal((3, 6, 5, 2)).astype(np.float32)
    boxes = [[1, 2, 3, 2], [0, 0, 0, 0], [5, 0, 1, 5]]
    noise = draw_noise((3, 6, 5, 2), make_key(1)).numpy()
    assert abs(draw_noise((20, 30, 30, 3), make_key(1)).numpy().std() - 1) < 0.01
    for source, filled in ((None, np.zeros_like(images)), (noise, noise)):
        expected = images.copy()
        for at, (y, x, height, width) in enumerate(boxes):
            window = slice(y, y + height), slice(x, x + width)
            expected[at][window] = filled[at][window]
        np.testing.assert_array_equal(erase(images, tf.constant(boxes), source), expected)
