"""The numbers that normalisation needs, of the training part alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reszoo.config.data import DataConfig
from reszoo.data.parts import Arrays, Part
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.weights.transforms import Transforms, fit_transforms

# Of ImageNet's training images, RGB in 0..1: fb.resnet.torch, datasets/imagenet.lua (`meanstd`). They stand in where a set is
# streamed, since measuring would read all of it before the first step.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def plain(image_size: tuple[int, int], channels: int, data: DataConfig) -> Preprocessing:
    """Return preprocessing that sizes images as `data` says and scales them to 0..1 but takes nothing away."""
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return Preprocessing(image_size, channels, data.resize, zeros, ones, data.interpolation)


def fitted(
    preprocessing: Preprocessing, train: Part, normalize: str, transforms: Transforms | None = None
) -> Preprocessing:
    """Return `preprocessing` with the mean and deviation that `normalize` asks for, measured on `train` where it is in memory.

    transforms: what `normalize` = "weights" stands for.
    """
    channels = preprocessing.channels
    order = slice(
        None, None, -1 if preprocessing.channel_order == "BGR" else 1
    )  # what is measured here is in RGB
    if normalize == "unit":
        return preprocessing
    if normalize == "weights":
        if transforms is None:
            raise ReszooError(
                "data.normalize = 'weights' needs published weights to start from; give model.weights"
            )
        wanted = Preprocessing.from_transforms(
            fit_transforms(transforms, preprocessing.input_shape)
        )
        return replace(
            preprocessing, mean=wanted.mean, std=wanted.std, channel_order=wanted.channel_order
        )
    if normalize == "pixel_mean":
        if not isinstance(train, Arrays) or train.images.shape[1:] != preprocessing.input_shape:
            raise ReszooError(
                "data.normalize = 'pixel_mean' needs a set held in memory at the net's input size; "
                "with large or randomly resized images use data.normalize='channel'"
            )
        mean = train.images.sum(axis=0, dtype=np.int64) / (255 * train.count)
        return replace(preprocessing, mean=mean[..., order].astype(np.float32))
    if isinstance(train, Arrays):
        mean, std = channel_statistics(train.images)
    else:
        mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        if channels == 1:
            mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    return replace(
        preprocessing, mean=mean[order].astype(np.float32), std=std[order].astype(np.float32)
    )


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each channel over all pixels of uint8 [n, h, w, c], of values in 0..1: float64 [c].

    Exact, by counting how often each of the 256 values occurs. A constant channel's deviation is given as 1.
    """
    values = np.arange(256) / 255
    mean, std = np.empty(images.shape[-1]), np.empty(images.shape[-1])
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean[channel] = share @ values
        std[channel] = np.sqrt(share @ (values - mean[channel]) ** 2)
    std[std == 0] = 1
    return mean, std
