"""The layers before the first stage."""

from __future__ import annotations

from keras import KerasTensor, layers

from reszoo.models.initializers import initial_weights
from reszoo.models.layers import (
    Blur,
    ScalarBias,
    activate,
    conv,
    normalize,
    weight_epsilon,
)
from reszoo.models.settings import DATA_FORMAT
from reszoo.zoo.spec import Spec


def stem(x: KerasTensor, spec: Spec) -> KerasTensor:
    """Apply the stem: [n, h, w, c] to [n, h / s, w / s, stem_width]; s is 1 for "cifar", else 4.

    Reference: "cifar": arXiv 1512.03385, section 4.2. "imagenet": its table 1. "deep": arXiv
    1812.01187, section 4.2 (ResNet-C). "rs": arXiv 2103.07579. "bare": keras.applications,
    resnet.py, with preact=True.
    """
    width = spec.stem_width
    convs = {
        "cifar": [(width, 3, 1)],
        "deep": [(width // 2, 3, 2), (width // 2, 3, 1), (width, 3, 1)],
        "rs": [(width // 2, 3, 2), (width // 2, 3, 1), (width, 3, 1), (width, 3, 2)],
    }.get(spec.stem, [(width, 7, 2)])
    for index, (filters, kernel, stride) in enumerate(convs, 1):
        bias = 0.0 if spec.has_bias(normed=spec.stem != "bare") else None
        x = conv(
            x, filters, kernel, f"stem_conv{index}",
            stride=stride, bias=bias, padding=spec.padding, start=initial_weights(spec),
            scaled_weight=weight_epsilon(spec),
        )  # fmt: skip
        if spec.stem != "bare":
            x = normalize(x, f"stem_bn{index}", spec)
            if spec.initialization == "fixup":
                x = ScalarBias(name=f"stem_bias{index}")(x)
            x = activate(x, f"stem_relu{index}", spec)
    if spec.stem not in ("cifar", "rs"):
        # After a ReLU the zeros of the padding never win; after "bare" they can, as published.
        same = spec.padding == "same"
        if not same:
            x = layers.ZeroPadding2D(1, data_format=DATA_FORMAT, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(
            3,
            1 if spec.blur else 2,
            "same" if same else "valid",
            data_format=DATA_FORMAT,
            name="stem_pool",
        )(x)
        if spec.blur:
            x = Blur(2, name="stem_pool_blur")(x)
    return x
