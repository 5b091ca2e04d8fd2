"""Mixup and CutMix against slicing, and their draws against the distributions of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from reszoo.config.augmentation import RandomChanges
from reszoo.data.mixing import Mix, draw_mix, make_box, mix_images, mix_labels
from reszoo.data.random_keys import make_key

SIZE = (20, 30)


def draw_mixes(count: int, **fields: float) -> tuple[np.ndarray, np.ndarray]:
    augment = RandomChanges(**fields)  # type: ignore[arg-type]
    mixes = tf.data.Dataset.range(count).map(lambda at: draw_mix(augment, SIZE, make_key(0, at)))
    mix = mixes.batch(count).get_single_element()
    return mix.share.numpy(), mix.box.numpy()


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_shares_have_the_beta_distribution(alpha: float) -> None:
    shares, boxes = draw_mixes(2000, mixup=alpha, mix_probability=0.75)
    assert not boxes.any()
    mixed = shares[shares < 1]
    # With alpha = 0.2 some shares are 1 up to float64's precision.
    assert abs(len(mixed) / 2000 - 0.75) < 0.04
    assert stats.kstest(mixed, stats.beta(alpha, alpha).cdf).pvalue > 0.001


def test_cutmix_replaces_the_share_that_labels_lose() -> None:
    shares, boxes = draw_mixes(2000, cutmix=1.0)
    np.testing.assert_allclose(1 - shares, boxes[:, 2] * boxes[:, 3] / 600)
    y, x, height, width = boxes.T
    assert (y >= 0).all() and (x >= 0).all()
    assert (y + height <= 20).all() and (x + width <= 30).all()
    inner = (y > 0) & (x > 0) & (y + height < 20) & (x + width < 30)
    np.testing.assert_allclose(height[inner] / 20, width[inner] / 30, atol=0.06)


def test_both_switch_with_their_probability() -> None:
    _, boxes = draw_mixes(2000, mixup=0.8, cutmix=1.0, cutmix_probability=0.3)
    assert abs((boxes[:, 2] > 0).mean() - 0.3) < 0.042


def test_a_box_is_cut_at_the_border() -> None:
    share = tf.constant(0.75, tf.float64)  # sides of half the image's
    box = make_box(share, tf.constant([0.0, 0.5], tf.float64), SIZE)
    assert box.numpy().tolist() == [0, 8, 5, 15]


def test_images_and_labels_are_mixed_with_the_mirrored_place() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, 6, 8, 3)).astype(np.float32)
    labels = tf.constant([0, 1, 2, 2, 1])
    targets = np.eye(4, dtype=np.float32)[labels]
    mix = Mix(tf.constant(0.7, tf.float64), tf.zeros(4, tf.int32))
    np.testing.assert_allclose(
        mix_images(tf.constant(images), mix), 0.7 * images + 0.3 * images[::-1], atol=1e-6
    )
    np.testing.assert_allclose(
        mix_labels(labels, mix, 4), 0.7 * targets + 0.3 * targets[::-1], atol=1e-6
    )
    several = tf.constant([[1, 1], [0, 1], [0, 0], [1, 0], [1, 1]], tf.float32)
    expected = 0.7 * several.numpy() + 0.3 * several.numpy()[::-1]
    np.testing.assert_allclose(mix_labels(several, mix, 2), expected, atol=1e-6)
    cut = Mix(tf.constant(1 - 12 / 48, tf.float64), tf.constant([1, 5, 4, 3]))
    expected = images.copy()
    expected[:, 1:5, 5:8] = images[::-1, 1:5, 5:8]
    np.testing.assert_array_equal(mix_images(tf.constant(images), cut), expected)
    np.testing.assert_allclose(mix_labels(labels, cut, 4)[0], [0.75, 0.25, 0, 0])
    unmixed = Mix(tf.constant(1.0, tf.float64), tf.zeros(4, tf.int32))
    np.testing.assert_array_equal(mix_images(tf.constant(images), unmixed), images)
