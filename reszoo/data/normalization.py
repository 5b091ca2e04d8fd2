"""Mean and standard deviation for normalization, measured on the training split alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reszoo.config.data import DataConfig
from reszoo.data.dataset import ArraySplit, Split
from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf
from reszoo.types import Array

# Of ImageNet's training images, RGB in 0..1: fb.resnet.torch, datasets/imagenet.lua (`meanstd`).
# Used for streamed datasets, because measuring would read all of them before the first step.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def unnormalized(image_size: tuple[int, int], channels: int, data: DataConfig) -> Preprocessing:
    """Return preprocessing that resizes images as `data` says and scales them to 0..1."""
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return Preprocessing(image_size, channels, data.resize, zeros, ones, data.interpolation)


def fit_normalization(
    preprocessing: Preprocessing,
    train: Split,
    normalize: str,
    transforms: Preprocessing | None = None,
) -> Preprocessing:
    """Return `preprocessing` with the mean and standard deviation that `normalize` asks for.

    Args:
        preprocessing: How images are resized.
        train: The training split, measured if it is in memory.
        normalize: The recipe's `data.normalize`.
        transforms: Of the published weights, for "weights".

    Raises:
        ReszooError: If the numbers cannot be measured, or weights are missing.
    """
    if normalize == "unit":
        return preprocessing
    if normalize == "weights":
        if transforms is None:
            raise ReszooError(
                "data.normalize: weights is invalid; expected published weights to start from. "
                "Example: --set model.weights=imagenet"
            )
        fit = transforms.fit(preprocessing.input_shape)
        return replace(preprocessing, mean=fit.mean, std=fit.std, channel_order=fit.channel_order)
    # Numbers measured here are in RGB.
    order = slice(None, None, -1 if preprocessing.channel_order == "BGR" else 1)
    if normalize == "pixel_mean":
        if not isinstance(train, ArraySplit) or train.images.shape[1:] != preprocessing.input_shape:
            raise ReszooError(
                "data.normalize: pixel_mean is invalid; expected a dataset in memory at the "
                "model's input size. Example: --set data.normalize=channel"
            )
        mean = train.images.sum(axis=0, dtype=np.int64) / (255 * train.count)
        return replace(preprocessing, mean=mean[..., order])
    if isinstance(train, ArraySplit):
        mean, std = channel_statistics(train.images)
    else:
        mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        if preprocessing.channels == 1:
            mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    return replace(preprocessing, mean=mean[order], std=std[order])


def at_size(preprocessing: Preprocessing, size: tuple[int, int], *, cropped: bool) -> Preprocessing:
    """Return the preprocessing of training images of another size; a mean image is resized too.

    Args:
        preprocessing: In evaluation.
        size: Height and width.
        cropped: Whether the images have the size of the evaluation already.
    """
    if size == preprocessing.image_size:
        return preprocessing
    mean = preprocessing.mean
    if mean.ndim == 3:
        mean = tf.image.resize(mean, size, antialias=True).numpy()
    scaled = round(preprocessing.resize * min(size) / min(preprocessing.image_size))
    resize = 0 if cropped or not preprocessing.resize else max(*size, scaled)
    return replace(preprocessing, image_size=size, resize=resize, mean=mean)


def channel_statistics(images: Array) -> tuple[Array, Array]:
    """Return mean and population standard deviation of each channel, of pixels in 0..1.

    Exact, by counting how often each of the 256 values occurs. 1 is given as the deviation of a
    constant channel.

    Args:
        images: uint8 [n, h, w, c].

    Returns:
        Two float64 [c].
    """
    values = np.arange(256) / 255
    mean, std = np.empty(images.shape[-1]), np.empty(images.shape[-1])
    for channel in range(images.shape[-1]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean[channel] = share @ values
        std[channel] = np.sqrt(share @ (values - mean[channel]) ** 2)
    std[std == 0] = 1
    return mean, std
