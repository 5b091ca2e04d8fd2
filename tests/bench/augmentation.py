"""Microseconds of a core per image for each random change, and pixels that differ from Pillow's.

Both sides take turns in one process; the time is that of all its threads, so waiting does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 9
SIZES = {32: 128, 224: 32}  # images per batch
AMOUNTS = {"posterize": 4.0, "solarize": 128.0, "solarize_add": 64.0, "rotate": 25.0, "hue": 30.0}
AMOUNTS |= {"shear_x": 0.2, "shear_y": 0.2, "translate_x": 5.0, "translate_y": 5.0}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of the table."""
    return {"rounds": ROUNDS, "rows": [row for size in SIZES for row in measure_size(size)]}


def measure_size(size: int) -> list[dict[str, Any]]:
    """Measure every operation, policy and mix on square images of a size."""
    import numpy as np
    import tensorflow as tf

    from reszoo.config.augmentation import RandomChanges
    from reszoo.data.erasing import draw_boxes, draw_noise, erase
    from reszoo.data.mixing import draw_mix, mix_images
    from reszoo.data.operations import AFFINE, OPERATIONS, apply_operations
    from reszoo.data.policies import apply_policy, draw_jitter, draw_policy
    from reszoo.data.random_keys import make_key

    count, shape = SIZES[size], (size, size)
    rng = np.random.default_rng(0)
    walk = rng.standard_normal((2, count, size, size, 3)) * 6
    pixels = np.clip(walk[0].cumsum(axis=1) + walk[1].cumsum(axis=2) + 128, 0, 255)
    pixels = pixels.astype(np.uint8)
    images = tf.constant(pixels)
    rows = []

    def add(name: str, change: Callable[[Any], Any], pillow: Any = None, how: str = "") -> None:
        compiled = tf.function(change, autograph=False)
        sides = {"core_microseconds": lambda: compiled(images).numpy()}
        if pillow:
            sides["pillow_core_microseconds"] = lambda: pillow(pixels)
        results = {side: run() for side, run in sides.items()}
        spent: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, run in sides.items():
                start = time.process_time()
                run()
                spent[side].append((time.process_time() - start) / count * 1e6)
        row: dict[str, Any] = {"change": name, "interpolation": how, "size": size}
        row |= {side: round(statistics.median(values), 1) for side, values in spent.items()}
        if pillow:
            ours, theirs = (result.astype(int) for result in results.values())
            apart = np.abs(ours - theirs)
            row["largest_difference"] = int(apart.max())
            row["differing_percent"] = round(100 * float((apart > 0).mean()), 4)
        rows.append(row)
        print(row, flush=True)

    for name in OPERATIONS[1:]:
        amount = AMOUNTS.get(name, 1.3)
        kinds = tf.fill([count], OPERATIONS.index(name))
        amounts = tf.fill([count], tf.constant(amount, tf.float64))
        for how in ("bilinear", "bicubic") if name in AFFINE else ("",):
            add(
                name,
                lambda x, k=kinds, a=amounts, how=how: apply_operations(
                    x, k, a, (0, 0, 0), how or "bilinear"
                ),
                lambda x, name=name, amount=amount, how=how: by_pillow(x, name, amount, how),
                how,
            )
    for policy in ("trivial", "rand", "auto_cifar", "auto_imagenet"):
        augment = RandomChanges(policy=policy)

        def change(x: Any, augment: RandomChanges = augment) -> Any:
            drawn = draw_policy(augment, count, shape, make_key(0))
            return apply_policy(x, drawn, (0, 0, 0), "bilinear")

        add(policy, change)

    def jitter(x: Any) -> Any:
        drawn = draw_jitter((0.4, 0.4, 0.4, 0.1), count, make_key(0))
        return apply_policy(x, drawn, (0, 0, 0), "bilinear")

    add("color_jitter", jitter)
    images = tf.cast(images, tf.float32) / 255 - 0.5
    for mode in ("constant", "pixel"):

        def erased(x: Any, mode: str = mode) -> Any:
            boxes = draw_boxes(0.25, (0.02, 0.33), count, shape, make_key(0))
            noise = draw_noise((count, *shape, 3), make_key(0)) if mode == "pixel" else None
            return erase(x, boxes, noise)

        add(f"erase, {mode}", erased)
    for name, augment in {
        "mixup": RandomChanges(mixup=0.2),
        "cutmix": RandomChanges(cutmix=1.0),
    }.items():
        add(name, lambda x, augment=augment: mix_images(x, draw_mix(augment, shape, make_key(0))))
    return rows


def by_pillow(images: Any, name: str, amount: float, how: str) -> Any:
    """Apply an operation to each image by Pillow."""
    import numpy as np
    from PIL import Image, ImageEnhance, ImageOps

    resample: Any = Image.Resampling[(how or "bilinear").upper()]
    brighter = [min(i + int(amount), 255) if i < 128 else i for i in range(256)] * 3

    def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: image.transform(
            image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=(0, 0, 0)
        )

    def turn(image: Image.Image) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        hue = Image.fromarray(np.asarray(hue) + np.uint8(amount))
        return Image.merge("HSV", (hue, saturation, value)).convert("RGB")

    change: Callable[[Image.Image], Image.Image] = {
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "posterize": lambda image: ImageOps.posterize(image, int(amount)),
        "solarize": lambda image: ImageOps.solarize(image, int(amount)),
        "solarize_add": lambda image: image.point(brighter),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(amount),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(amount),
        "color": lambda image: ImageEnhance.Color(image).enhance(amount),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(amount),
        "hue": turn,
        "shear_x": affine(1, amount, 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, amount, 1, 0),
        "translate_x": affine(1, 0, amount, 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, amount),
        "rotate": lambda image: image.rotate(amount, resample, fillcolor=(0, 0, 0)),
    }[name]
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
