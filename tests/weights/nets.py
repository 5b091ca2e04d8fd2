"""The tiny nets of tests/weights/goldens as specs of ours, and one of keras.applications' two kinds."""

from __future__ import annotations

from typing import Any

from reszoo import Spec, spec

_IMAGENET: dict[str, Any] = {
    "block": "bottleneck",
    "depths": (1, 2, 1, 1),
    "stem": "imagenet",
    "stem_width": 64,
    "shortcut": "B",
    "stride_at": "conv2",
}
NETS = {
    "torchvision": Spec(name="tiny", **_IMAGENET, widths=(4, 8, 16, 32), groups=2, group_width=32),
    "timm": Spec(
        name="tiny",
        **{**_IMAGENET, "stem": "deep", "stem_width": 8},
        widths=(8, 8, 16, 16),
        shrink="avgpool",
        se_ratio=0.25,
    ),
    "timm-group": Spec(
        name="tiny",
        **{**_IMAGENET, "depths": (1, 1, 1, 1)},
        widths=(8, 8, 8, 8),
        groups=8,
        group_width=32,
        norm="group",
    ),
    "timm-scaled": spec(
        "nf_resnet50", name="tiny", depths=(2, 2, 2), widths=(8, 8, 16), stem_width=8
    ),
    "akamaster": Spec(
        name="tiny",
        block="basic",
        depths=(1, 1, 1),
        widths=(4, 8, 12),
        stem="cifar",
        stem_width=4,
        shortcut="A",
    ),
}
KERAS = {
    False: Spec(
        name="tiny",
        **{**_IMAGENET, "depths": (2, 2), "stride_at": "conv1"},
        widths=(4, 8),
        bias="all",
        bn_epsilon=1.001e-5,
    ),
    True: Spec(
        name="tiny",
        **{**_IMAGENET, "depths": (2, 3), "stem": "bare"},
        widths=(4, 8),
        order="pre",
        shrink_at="last",
        bias="unnormed",
        bn_epsilon=1.001e-5,
    ),
}
