"""What policies draw, against the sources' ranges and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from reszoo.config.augmentation import RandomChanges
from reszoo.data.operations import OPERATIONS
from reszoo.data.policies import (
    RAND,
    TRIVIAL,
    Drawn,
    apply_policy,
    compute_rand_arguments,
    draw_jitter,
    draw_policy,
)
from reszoo.data.random_keys import make_key

COUNT = 20_000
SIZE = (40, 20)


def draw(policy: str, seed: int = 0, **fields: float) -> tuple[np.ndarray, np.ndarray]:
    augment = RandomChanges(policy=policy, **fields)  # type: ignore[arg-type]
    drawn = draw_policy(augment, COUNT, SIZE, make_key(seed))
    return np.array(OPERATIONS)[drawn.kinds], drawn.arguments.numpy()


def expect_share(hits: np.ndarray, share: float) -> None:
    """Check a frequency to four standard deviations."""
    assert abs(hits.mean() - share) < 4 * (share * (1 - share) / hits.size) ** 0.5


def test_trivial_augment_draws_each_operation_and_level_equally_often() -> None:
    names, amounts = draw("trivial")
    assert names.shape == (COUNT, 1) and set(names.flat) == set(TRIVIAL) and len(TRIVIAL) == 14
    for name in TRIVIAL:
        expect_share(names == name, 1 / 14)
    levels = np.arange(31) / 30
    expected = {
        "shear_x": np.r_[0.99 * levels, -0.99 * levels],
        "translate_y": np.r_[np.trunc(32 * levels), -np.trunc(32 * levels)],
        "rotate": np.r_[135 * levels, -135 * levels],
        "brightness": np.r_[1 + 0.99 * levels, 1 - 0.99 * levels],
        "posterize": np.arange(2, 9),
        "solarize": 255 - 255 * levels,
    }
    for name, values in expected.items():
        seen = np.unique(amounts[names == name].round(9))
        np.testing.assert_allclose(seen, np.unique(values.round(9)), atol=1e-8)
    expect_share(amounts[names == "rotate"] > 0, 15 / 31)


@pytest.mark.parametrize(
    ("policy", "pair", "probabilities"),
    # One line of each table of arXiv 1805.09501: both operations occur in no other pair together.
    [
        ("auto_cifar", ("rotate", "translate_x"), (0.7, 0.3)),
        ("auto_cifar", ("shear_y", "posterize"), (0.2, 0.3)),
        ("auto_imagenet", ("sharpness", "invert"), (0.4, 0.6)),
        ("auto_imagenet", ("rotate", "solarize"), (0.2, 0.6)),
    ],
)
def test_auto_augment_applies_pairs_with_their_probabilities(
    policy: str, pair: tuple[str, str], probabilities: tuple[float, float]
) -> None:
    names, _ = draw(policy)
    first, second = probabilities
    expect_share((names == pair).all(axis=1), first * second / 25)


def test_auto_augment_has_the_magnitudes_of_its_table() -> None:
    names, amounts = draw("auto_cifar")
    seen = {
        name: set(np.round(amounts[:, at][names[:, at] == name], 6))
        for at in (0, 1)
        for name in ("rotate", "translate_x", "solarize")
        if (names[:, at] == name).any()
    }
    assert {abs(value) for value in seen["rotate"]} == {round(30 * 2 / 9, 6)}
    # 150/331 of a width of 20 is 9.06: at magnitude 9 nine whole pixels, at 8 eight.
    assert {abs(value) for value in seen["translate_x"]} == {8.0, 9.0}
    assert seen["solarize"] == {round(255 - 255 * step / 9, 6) for step in (8, 3)}


def test_rand_augment_varies_its_strength_by_normal_noise() -> None:
    names, amounts = draw("rand", rand_layers=3, rand_magnitude=4.0, rand_noise=0.5)
    assert names.shape == (COUNT, 3) and len(RAND) == 15
    expect_share(names == "identity", 0.5)
    for name in RAND:
        expect_share(names == name, 0.5 / 15)
    angles = amounts[names == "rotate"]
    expect_share(angles > 0, 0.5)
    assert stats.kstest(np.abs(angles) / 3, stats.norm(4, 0.5).cdf).pvalue > 0.001
    # Layers are independent.
    expect_share((names[:, 0] == "invert") & (names[:, 1] == "invert"), (0.5 / 15) ** 2)
    fixed = draw("rand", rand_magnitude=10.0, rand_noise=0.0, rand_probability=1.0)
    assert set(fixed[1][fixed[0] == "shear_x"].round(9)) == {0.3, -0.3}
    assert set(fixed[1][fixed[0] == "translate_x"].round(9)) == {9.0, -9.0}
    assert set(fixed[1][fixed[0] == "color"].round(9)) == {1.9, 0.1}


def test_rand_augment_strengthens_every_operation() -> None:
    strength = tf.constant([0.0, 0.5, 1.0], tf.float64)
    amounts = compute_rand_arguments(strength, tf.ones_like(strength), SIZE).numpy()
    table = dict(zip(RAND, amounts.T.tolist(), strict=True))
    assert table["posterize"] == [4, 2, 0] and table["solarize"] == [256, 128, 0]
    assert table["solarize_add"] == [0, 55, 110] and table["rotate"] == [0, 15, 30]
    assert table["translate_y"] == [0, 9, 18] and table["equalize"] == [0, 0, 0]


def test_jitter_draws_factors_in_random_order() -> None:
    drawn = draw_jitter((0.4, 0.0, 1.5, 0.1), COUNT, make_key(0))
    names, amounts = np.array(OPERATIONS)[drawn.kinds], drawn.arguments.numpy()
    assert (np.sort(names, axis=1) == ["brightness", "color", "hue"]).all()
    for order in (("hue", "color", "brightness"), ("brightness", "color", "hue")):
        expect_share((names == order).all(axis=1), 1 / 6)
    for name, low, width in (("brightness", 0.6, 0.8), ("color", 0.0, 2.5)):
        found = amounts[names == name]
        assert stats.kstest(found, stats.uniform(low, width).cdf).pvalue > 0.001
    turns = amounts[names == "hue"]
    assert set(turns) == set(range(-25, 26))  # whole steps of 1/255, at most 0.1 of them


def test_draws_are_a_function_of_the_key() -> None:
    first, again, other = (draw("rand", seed)[1] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_layers_are_applied_one_after_the_other() -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)), tf.uint8)
    both = [OPERATIONS.index("solarize"), OPERATIONS.index("posterize")]
    drawn = Drawn(tf.constant([both]), tf.constant([[100.0, 3.0]], tf.float64))
    got = apply_policy(images, drawn, (0, 0, 0), "bilinear").numpy()
    solarized = np.where(images < 100, images, 255 - images)
    np.testing.assert_array_equal(got, solarized & 0b11100000)
