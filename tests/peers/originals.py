"""The other side of test_augmentation.py: torchvision's and timm's own code on drawn parameters.

Runs in an environment with torch, torchvision and timm, without TensorFlow or reszoo:

    PYTHON originals.py JOB.npz RESULT.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm.data.auto_augment as timm_operations
import timm.data.mixup as timm_mixup
import timm.data.random_erasing as timm_erasing
import torch
import torchvision.transforms.functional as functional
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler
from timm.loss import BinaryCrossEntropy
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

MODES = functional.InterpolationMode


def by_torchvision(job: Any) -> np.ndarray:
    """Apply operations as torchvision's AutoAugment, RandAugment and TrivialAugment do."""
    changed = []
    for image, name, magnitude in zip(job["images"], job["names"], job["magnitudes"], strict=True):
        result = _apply_op(
            Image.fromarray(image),
            str(name),
            float(magnitude),
            interpolation=MODES[str(job["interpolation"]).upper()],
            fill=job["fill"].tolist(),
        )
        changed.append(np.asarray(result))
    return np.stack(changed)


def by_timm(job: Any) -> np.ndarray:
    """Apply operations as timm's RandAugment does."""
    how = {
        "fillcolor": tuple(job["fill"].tolist()),
        "resample": Image.Resampling[str(job["interpolation"]).upper()],
    }
    changed = []
    pairs = zip(job["images"], job["timm_names"], job["timm_arguments"], strict=True)
    for image, name, argument in pairs:
        amount = () if name in ("AutoContrast", "Equalize", "Invert") else (float(argument),)
        if name in ("Posterize", "SolarizeAdd"):
            amount = (int(argument),)
        operation = timm_operations.NAME_TO_OP[str(name)]
        changed.append(np.asarray(operation(Image.fromarray(image), *amount, **how)))
    return np.stack(changed)


def jitter(job: Any) -> np.ndarray:
    """Change colors as torchvision's ColorJitter does, in the orders given."""
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    changed = []
    for image, order, factors in zip(job["images"], job["orders"], job["factors"], strict=True):
        picture = Image.fromarray(image)
        for at in order:
            picture = changes[at](picture, float(factors[at]))
        changed.append(np.asarray(picture))
    return np.stack(changed)


def spaces(job: Any) -> str:
    """Return the ranges and policies of torchvision, and timm's arguments by level, as JSON."""
    size = job["images"].shape[1:3]
    auto = AutoAugment(AutoAugmentPolicy.CIFAR10)
    found: dict[str, Any] = {
        "trivial": TrivialAugmentWide()._augmentation_space(31),
        "auto": auto._augmentation_space(10, size),
    }
    found = {
        kind: {
            name: [np.atleast_1d(values).tolist(), signed]
            for name, (values, signed) in space.items()
        }
        for kind, space in found.items()
    }
    found["auto_cifar"] = auto.policies
    found["auto_imagenet"] = AutoAugment(AutoAugmentPolicy.IMAGENET).policies
    found["rand"] = {}
    for sign in (1, -1):
        timm_operations._randomly_negate = lambda value, sign=sign: sign * value
        for name in timm_operations._RAND_INCREASING_TRANSFORMS:
            level = timm_operations.LEVEL_TO_ARG[name]
            arguments = [level(each, {})[0] if level else 0 for each in job["levels"]]
            found["rand"].setdefault(name, []).append(np.array(arguments, float).tolist())
    return json.dumps(found)


class Draws:
    """Stands in for `random` and `numpy.random`, and returns numbers that were drawn elsewhere."""

    def __init__(self, chance: float, attempts: np.ndarray) -> None:
        self.chance = chance
        # An attempt draws area and aspect; only the one that fits draws its place too.
        self.ranges = iter(attempts[:, :2].ravel())
        self.places = attempts[:, 2:]
        self.drawn = 0

    def random(self) -> float:
        return self.chance

    def uniform(self, low: float, high: float) -> float:
        self.drawn += 1
        return low + (high - low) * next(self.ranges)

    def randint(self, low: int, high: int) -> int:
        places = self.places[self.drawn // 2 - 1]
        self.places = np.roll(self.places, -1, axis=1)
        return low + int(places[0] * (high - low + 1))


def erase(job: Any) -> np.ndarray:
    """Erase rectangles as timm's RandomErasing does."""
    erased = []
    for chance, rows in zip(job["erase_chances"], job["erase_draws"], strict=True):
        timm_erasing.random = Draws(chance, rows)
        change = timm_erasing.RandomErasing(0.5, 0.02, 0.33, mode="const", device="cpu")
        erased.append(change(torch.ones(1, *job["images"].shape[1:3]))[0].numpy())
    return np.stack(erased)


class MixDraws:
    """Stands in for `numpy.random` in timm's Mixup."""

    def __init__(self, share: float, draws: np.ndarray) -> None:
        self.share, self.draws = share, list(draws)

    def rand(self) -> float:
        return self.draws.pop(0)

    def beta(self, *_: float) -> float:
        return self.share

    def randint(self, low: int, high: int, size: None = None) -> int:
        return low + int(self.draws.pop(0) * (high - low))


def mix(job: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mix batches as timm's Mixup does: images [k, n, h, w, c] and targets [k, n, classes]."""
    images, targets, numpy = [], [], timm_mixup.np
    batch = torch.from_numpy(job["batch"]).permute(0, 3, 1, 2).contiguous()
    for share, draws in zip(job["mix_shares"], job["mix_draws"], strict=True):
        stand_in = type("numpy", (), {"random": MixDraws(share, draws)})
        for name in ("sqrt", "clip"):
            setattr(stand_in, name, staticmethod(getattr(numpy, name)))
        timm_mixup.np = stand_in
        change = timm_mixup.Mixup(0.8, 1.0, prob=0.7, switch_prob=0.4, num_classes=7)
        mixed, target = change(batch.clone(), torch.from_numpy(job["labels"]).long())
        images.append(mixed.permute(0, 2, 3, 1).numpy())
        targets.append(target.numpy())
    timm_mixup.np = numpy
    return np.stack(images), np.stack(targets)


def losses(job: Any) -> np.ndarray:
    """Return timm's binary cross-entropy: mean and sum, of labels, soft and binarized targets."""
    logits, labels = torch.from_numpy(job["logits"]), torch.from_numpy(job["labels"]).long()
    soft = torch.from_numpy(job["soft"])
    found = []
    for summed in (False, True):
        found.append(BinaryCrossEntropy(0.1, sum_classes=summed)(logits, labels))
        for threshold in (None, 0.2):
            loss = BinaryCrossEntropy(0.1, target_threshold=threshold, sum_classes=summed)
            found.append(loss(logits, soft))
    return np.array([float(each) for each in found])


def crops(job: Any) -> np.ndarray:
    """Crop and resize the photo by torchvision, bicubic."""
    photo = Image.fromarray(job["photo"])
    return np.stack(
        [
            np.asarray(functional.resized_crop(photo, *map(int, window), [32, 32], MODES.BICUBIC))
            for window in job["windows"]
        ]
    )


def repeat(job: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return timm's order with repeated augmentation, and the permutation behind it."""
    count = int(job["count"])
    order = RepeatAugSampler(range(count), 1, 0, num_repeats=3)
    generator = torch.Generator()
    generator.manual_seed(0)
    return np.array(list(order)), torch.randperm(count, generator=generator).numpy()


def main() -> None:
    job = np.load(Path(sys.argv[1]))
    images, targets = mix(job)
    order, permutation = repeat(job)
    np.savez(
        sys.argv[2],
        torchvision=by_torchvision(job),
        timm=by_timm(job),
        jitter=jitter(job),
        spaces=np.array(spaces(job)),
        erased=erase(job),
        mixed=images,
        targets=targets,
        losses=losses(job),
        crops=crops(job),
        order=order,
        permutation=permutation,
    )


if __name__ == "__main__":
    main()
