"""Augmentation, mixing and losses against torchvision's and timm's own code, on equal draws."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.augmentation import RandomChanges
from reszoo.config.data import DataConfig
from reszoo.config.training import TrainConfig
from reszoo.data import policies
from reszoo.data.augmentation import take_window
from reszoo.data.batch_order import BatchOrder
from reszoo.data.erasing import ATTEMPTS, draw_boxes, erase
from reszoo.data.mixing import draw_mix, mix_images, mix_labels
from reszoo.data.normalization import unnormalized
from reszoo.data.operations import AFFINE, OPERATIONS, apply_operations
from reszoo.data.policies import Drawn, apply_policy
from reszoo.data.random_keys import fold_in, make_key
from reszoo.training.losses import make_losses

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = pytest.mark.peers

SIZE, CLASSES, COUNT = (32, 40), 7, 12
FILL = (124, 116, 104)
NAMES = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "color": "Color",
    "sharpness": "Sharpness",
}
RANGES = {
    "posterize": (1, 8),
    "solarize": (0, 255),
    "solarize_add": (0, 110),
    "rotate": (-135, 135),
}
RANGES |= {name: (-12, 12) for name in ("translate_x", "translate_y")}
Job = dict[str, Any]


@pytest.fixture(scope="module", params=["bilinear", "bicubic"])
def job(request: pytest.FixtureRequest) -> Job:
    """Images and numbers drawn for them; of either interpolation."""
    rng = np.random.default_rng(0)
    names = [name for name in NAMES for _ in range(COUNT)]
    amounts = [rng.uniform(*RANGES.get(name, (-0.9, 0.9))) for name in names]
    whole = ("posterize", "translate_x", "translate_y")
    amounts = [np.trunc(x) if name in whole else x for name, x in zip(names, amounts, strict=True)]
    images = rng.normal(0, 6, (2, len(names), *SIZE, 3))
    images = np.clip(images[0].cumsum(axis=1) + images[1].cumsum(axis=2) + 128, 0, 255)
    images[::3] = rng.integers(0, 256, images[::3].shape)
    key = make_key(3)
    keys = [make_key(4, number) for number in range(20)]
    shares = []
    for each in keys:
        used = tf.random.stateless_uniform([4], fold_in(each, 0), dtype=tf.float64)
        alpha = tf.constant(1.0 if used[1] < 0.4 else 0.8, tf.float64)
        gammas = tf.random.stateless_gamma([2], fold_in(each, 1), alpha, dtype=tf.float64)
        shares.append((gammas[0] / tf.reduce_sum(gammas), used))
    soft = rng.dirichlet([0.3] * CLASSES, 8).astype(np.float32)
    return {
        "interpolation": request.param,
        "fill": np.array(FILL),
        "images": images.astype(np.uint8),
        "ours": names,
        "amounts": amounts,
        "names": [NAMES[name] for name in names],
        # torchvision moves by the opposite of the matrix, and adds 1 to factors.
        "magnitudes": [
            -x if name.startswith("translate") else x
            for name, x in zip(names, amounts, strict=True)
        ],
        "timm_names": [NAMES[name] for name in names],
        "timm_arguments": [
            1.0 + x if name in policies.ENHANCE else x
            for name, x in zip(names, amounts, strict=True)
        ],
        "orders": rng.permuted(np.tile(np.arange(4), (len(names), 1)), axis=1),
        "factors": rng.uniform([0.3, 0.3, 0.3, -0.5], [1.7, 1.7, 1.7, 0.5], (len(names), 4)),
        "levels": np.linspace(0, 10, 41),
        "erase_chances": tf.random.stateless_uniform([200], fold_in(key, 1), dtype=tf.float64),
        "erase_draws": tf.random.stateless_uniform(
            [200, ATTEMPTS, 4], fold_in(key, 0), dtype=tf.float64
        ),
        "batch": rng.normal(size=(6, *SIZE, 3)).astype(np.float32),
        "labels": rng.integers(0, CLASSES, 6),
        "mix_shares": [float(share) for share, _ in shares],
        "mix_draws": [used for _, used in shares],
        "logits": rng.normal(0, 3, (6, CLASSES)).astype(np.float32),
        "soft": soft[:6],
        "photo": np.repeat(np.repeat(images[1], 4, axis=0), 3, axis=1).astype(np.uint8),
        "windows": [(0, 0, 128, 120), (3, 7, 50, 61), (100, 90, 20, 25), (5, 0, 90, 33)],
        "count": 1000,
    }


@pytest.fixture(scope="module")
def theirs(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    if not PYTHON:
        pytest.skip("RESZOO_PEER names no Python with torch, torchvision and timm")
    folder = tmp_path_factory.mktemp("originals")
    np.savez(folder / "job.npz", **{name: np.asarray(value) for name, value in job.items()})
    program = Path(__file__).with_name("originals.py")
    command = [PYTHON, str(program), str(folder / "job.npz"), str(folder / "result.npz")]
    subprocess.run(command, check=True, timeout=300)
    return dict(np.load(folder / "result.npz"))


def apart(ours: Any, theirs: np.ndarray) -> tuple[int, float]:
    """Return the greatest difference and the share of other values."""
    difference = np.abs(np.asarray(ours).astype(int) - theirs)
    return int(difference.max()), float((difference > 0).mean())


@pytest.mark.parametrize("original", ["torchvision", "timm"])
def test_operations_give_the_originals_pixels(original: str, job: Job, theirs: Job) -> None:
    names, amounts = np.array(job["ours"]), np.array(job["amounts"])
    amounts = np.where(np.isin(names, policies.ENHANCE), 1.0 + amounts, amounts)
    kinds = tf.constant([OPERATIONS.index(name) for name in names])
    ours = apply_operations(
        tf.constant(job["images"]), kinds, tf.constant(amounts), FILL, job["interpolation"]
    ).numpy()
    for name in NAMES:
        chosen = names == name
        assert apart(ours[chosen], theirs[original][chosen]) == (0, 0.0), name


def test_jitter_gives_torchvisions_pixels(job: Job, theirs: Job) -> None:
    kinds = np.array([OPERATIONS.index(name) for name in policies.JITTER])[job["orders"]]
    factors = job["factors"].copy()
    factors[:, 3] = np.trunc(factors[:, 3] * 255)
    arguments = np.take_along_axis(factors, job["orders"], axis=1)
    drawn = Drawn(tf.constant(kinds), tf.constant(arguments))
    ours = apply_policy(tf.constant(job["images"]), drawn, FILL, "bilinear")
    assert apart(ours, theirs["jitter"]) == (0, 0.0)


def test_ranges_and_policies_are_the_originals(theirs: Job) -> None:
    spaces = json.loads(str(theirs["spaces"]))
    whole = {"trivial": policies.TRIVIAL_LIMITS, "auto": policies.make_auto_limits(SIZE)}
    for kind, limits in whole.items():
        for name, their_name in NAMES.items():
            if their_name not in spaces[kind]:
                continue
            values, signed = spaces[kind][their_name]
            strengths = np.linspace(0, 1, len(values)) if len(values) > 1 else np.zeros(1)
            ours = policies.compute_arguments(name, strengths, limits)[:, 0]
            ours = ours - 1 if name in policies.ENHANCE else ours
            expected = np.trunc(values) if name.startswith("translate") else values
            if kind == "trivial" and name.startswith("translate"):
                # torchvision's float32 has 15.999999 here, and moves by 15 pixels.
                assert (ours[15], expected[15]) == (16, 15)
                ours[15] = 15
            np.testing.assert_allclose(ours, expected, atol=2e-5, err_msg=f"{kind} {name}")
            assert signed == (name in (*AFFINE, *policies.ENHANCE))
    for kind, steps in (
        ("auto_cifar", policies.AUTO_CIFAR),
        ("auto_imagenet", policies.AUTO_IMAGENET),
    ):
        ours = [
            [[NAMES[step[0]], float(step[1]), int(step[2]) if len(step) > 2 else None]
             for step in map(str.split, line.split(","))]
            for line in steps.strip().split("\n")
        ]  # fmt: skip
        assert ours == spaces[kind]


def test_rand_augment_has_timms_arguments(job: Job, theirs: Job) -> None:
    spaces = json.loads(str(theirs["spaces"]))["rand"]
    strength = tf.constant(job["levels"] / 10)
    for at, sign in enumerate((1.0, -1.0)):
        ours = policies.compute_rand_arguments(
            strength, tf.fill([41], tf.constant(sign, tf.float64)), SIZE
        )
        for name, values in zip(policies.RAND, ours.numpy().T, strict=True):
            their_name = {"solarize_add": "SolarizeAdd"}.get(name) or NAMES[name]
            their_name += "Rel" if name.startswith("translate") else ""
            increasing = f"{their_name}Increasing"
            expected = np.array(spaces[increasing if increasing in spaces else their_name][at])
            if name.startswith("translate"):
                expected *= SIZE[1] if name == "translate_x" else SIZE[0]
            np.testing.assert_allclose(values, expected, atol=1e-12, err_msg=name)


def test_erased_rectangles_are_timms(theirs: Job) -> None:
    boxes = draw_boxes(0.5, (0.02, 0.33), 200, SIZE, make_key(3))
    ours = erase(tf.ones([200, *SIZE, 1]), boxes)[..., 0]
    np.testing.assert_array_equal(ours, theirs["erased"])
    assert 60 < (theirs["erased"].min(axis=(1, 2)) == 0).sum() < 140


def test_mixed_batches_and_targets_are_timms(job: Job, theirs: Job) -> None:
    augment = RandomChanges(mixup=0.8, cutmix=1.0, mix_probability=0.7, cutmix_probability=0.4)
    kinds = set()
    for number in range(20):
        mix = draw_mix(augment, SIZE, make_key(4, number))
        kinds.add((bool(mix.share < 1), bool(tf.reduce_any(mix.box > 0))))
        images = mix_images(tf.constant(job["batch"]), mix)
        np.testing.assert_allclose(images, theirs["mixed"][number], atol=1e-6)
        targets = mix_labels(tf.constant(job["labels"]), mix, CLASSES).numpy()
        smooth = targets * 0.9 + 0.1 / CLASSES
        np.testing.assert_allclose(smooth, theirs["targets"][number], atol=1e-6)
    assert kinds == {(False, False), (True, False), (True, True)}


def test_binary_losses_are_timms(job: Job, theirs: Job) -> None:
    labels = np.eye(CLASSES, dtype=np.float32)[job["labels"]]
    ours = []
    for loss in ("binary", "binary_sum"):
        for targets, smoothing, threshold in (
            (labels, 0.1, 0.0),
            (job["soft"], 0.0, 0.0),  # timm leaves soft targets to Mixup's smoothing
            (job["soft"], 0.0, 0.2),
        ):
            train = TrainConfig(
                batch_size=8,
                steps=1,
                loss=loss,  # type: ignore[arg-type]
                label_smoothing=smoothing,
                target_threshold=threshold,
            )
            ours.append(float(np.mean(make_losses(train, "float32")(targets, job["logits"]))))
    np.testing.assert_allclose(ours, theirs["losses"], rtol=1e-5)


def test_bicubic_crops_are_torchvisions(job: Job, theirs: Job) -> None:
    data = DataConfig(name="digits", interpolation="bicubic")
    small = unnormalized((32, 32), 3, data)
    photo = tf.constant(job["photo"])
    ours = [take_window(photo, tf.constant(window), small) for window in job["windows"]]
    for window, mine, expected in zip(job["windows"], ours, theirs["crops"], strict=True):
        # Pillow 13 resizes columns first where the height shrinks far more than the width.
        tall = window[2] > 2 * window[3]
        most, share = apart(mine, expected)
        assert most <= tall and share <= 0.15 * tall


def test_repeated_augmentation_has_timms_order(
    theirs: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    permutation = tf.constant(theirs["permutation"])
    shuffle = "reszoo.data.batch_order.shuffle_indices"
    monkeypatch.setattr(shuffle, lambda places, count, key: tf.gather(permutation, places))
    order = BatchOrder(1000, 50, 0, repeats=3)
    steps = tf.range(20, dtype=tf.int64)
    ours = np.concatenate([order.indices(step, tf.range(50)) for step in steps])
    # timm's epoch ends at the last whole 256 images; ours has as many images as the dataset.
    np.testing.assert_array_equal(ours[: len(theirs["order"])], theirs["order"])
    assert len(theirs["order"]) == 768
