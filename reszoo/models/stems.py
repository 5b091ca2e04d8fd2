"""What stands before the first stage; each stem but "bare" ends in a normalisation and a ReLU (and a pool)."""

from __future__ import annotations

from typing import Any

import keras

from reszoo.models.layers import conv, norm, relu
from reszoo.models.settings import DATA_FORMAT
from reszoo.zoo.spec import Spec


def stem(x: Any, spec: Spec) -> Any:
    """Apply the spec's stem: [n, h, w, c] to [n, h / s, w / s, stem_width], s being 1 for "cifar" and 4 for the others.

    "cifar": arXiv 1512.03385, section 4.2. "imagenet": its table 1. "deep": ResNet-C's of arXiv 1812.01187, section 4.2.
    "bare": keras.applications, resnet.py, with preact=True.
    """
    width = spec.stem_width
    if spec.stem == "cifar":
        convs = [(width, 3, 1)]
    elif spec.stem in ("imagenet", "bare"):
        convs = [(width, 7, 2)]
    else:
        convs = [(width // 2, 3, 2), (width // 2, 3, 1), (width, 3, 1)]
    for index, (filters, kernel, stride) in enumerate(convs, 1):
        bias = 0.0 if spec.has_bias(normed=spec.stem != "bare") else None
        x = conv(x, filters, kernel, f"stem_conv{index}", stride=stride, bias=bias)
        if spec.stem != "bare":
            x = relu(norm(x, f"stem_bn{index}", spec.bn_epsilon), f"stem_relu{index}")
    if spec.stem != "cifar":
        # After a ReLU zeros cannot win; after "bare" they can, as published.
        x = keras.layers.ZeroPadding2D(1, data_format=DATA_FORMAT, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, data_format=DATA_FORMAT, name="stem_pool")(x)
    return x
