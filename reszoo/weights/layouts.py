"""Whose names a net's tensors have: the layouts in which weights are published, and how ours map to each. No framework.

Our variables are called `layer/variable`, such as stage2_block1_conv2/kernel. Each layout says what it calls a layer and
which tensors a layer has, so that one table serves both directions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from reszoo.errors import ReszooError
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec

# Fields that no layout but our own can say anything of; each has its default in every published net.
OWN = ("shortcut_scale", "branch_scale", "gate", "rezero")


@dataclass(frozen=True)
class Layout:
    """How one publisher names tensors.

    joint: what stands between a layer's name and a tensor's. layer: from (our layer's name, spec) to theirs.
    torch: kernels are [out, in, height, width] and a dense kernel [out, in], as PyTorch has them.
    misfit: from a spec to why its nets compute something else than this publisher's, or "".
    older: from what names began with in older files to what they begin with now.
    """

    name: str
    joint: str
    layer: Callable[[str, Spec], str]
    torch: bool
    misfit: Callable[[Spec], str]
    older: tuple[tuple[str, str], ...] = ()

    def current(self, key: str) -> str:
        """Return a name in a file as the publisher spells it today."""
        for before, now in self.older:
            if key.startswith(before):
                return now + key.removeprefix(before)
        return key

    def key(self, variable: str, net: Spec) -> str:
        """Return their name of our `layer/variable`."""
        layer, _, own = variable.partition("/")
        theirs = TORCH_NAMES["norm" if "_bn" in layer else "conv"][own] if self.torch else own
        return f"{self.layer(layer, net)}{self.joint}{theirs}"

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Return their tensor with its axes in our order."""
        if not self.torch or array.ndim not in (2, 4):
            return array
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours`."""
        if not self.torch or array.ndim not in (2, 4):
            return array
        return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


TORCH_NAMES = {
    "conv": {"kernel": "weight", "bias": "bias"},
    "norm": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
}


def _torch_layer(head: str, shortcut: str) -> Callable[[str, Spec], str]:
    """Return how torchvision, and who follows it, names a layer; `shortcut` is its name of the projection."""

    def layer(name: str, net: Spec) -> str:
        if name == "head_dense":
            return head
        if place := parse_block_layer(name):
            block = f"layer{place.stage}.{place.block - 1}"
            parts = {"se_reduce": "se.fc1", "se_expand": "se.fc2"}
            # A pool that halves comes first in the sequence, an empty place where it need not halve.
            first = 1 if net.shrink == "avgpool" else 0
            parts |= {
                "shortcut_conv": f"{shortcut}.{first}",
                "shortcut_bn": f"{shortcut}.{first + 1}",
            }
            return f"{block}.{parts.get(place.part, place.part)}"
        kind, number = re.fullmatch(r"stem_(conv|bn)(\d)", name).groups()  # type: ignore[union-attr]
        if net.stem != "deep":
            return f"{kind}1"
        # Three convolutions in one sequence with what stands between them; the last normalisation outside it.
        if (kind, number) == ("bn", "3"):
            return "bn1"
        return f"conv1.{3 * (int(number) - 1) + (kind == 'bn')}"

    return layer


def _keras_layer(name: str, net: Spec) -> str:
    """Return how keras.applications names a layer (resnet.py)."""
    fixed = {
        "head_dense": "predictions",
        "head_bn": "post_bn",
        "stem_conv1": "conv1_conv",
        "stem_bn1": "conv1_bn",
    }
    if name in fixed:
        return fixed[name]
    place = parse_block_layer(name)
    assert place, name
    parts = {"shortcut_conv": "0_conv", "shortcut_bn": "0_bn"}
    for number in (1, 2, 3):
        parts[f"conv{number}"] = f"{number}_conv"
        # In a pre-activation block the first normalisation stands before the first convolution.
        parts[f"bn{number}"] = (
            f"{number}_bn" if net.order == "post" else ("preact_bn", "1_bn", "2_bn")[number - 1]
        )
    return f"conv{place.stage + 1}_block{place.block}_{parts[place.part]}"


def _wanted(**fields: tuple[object, ...]) -> Callable[[Spec], str]:
    """Return a check that each field of a spec has one of some values."""

    def misfit(net: Spec) -> str:
        for name, allowed in fields.items():
            if getattr(net, name) not in allowed:
                return f"{name} is {getattr(net, name)!r}, where it has {' or '.join(map(repr, allowed))}"
        for name in OWN:
            if getattr(net, name) != Spec.model_fields[name].default:
                return f"it has no {name}"
        return ""

    return misfit


def _torch_misfit(**fields: tuple[object, ...]) -> Callable[[Spec], str]:
    check = _wanted(
        **fields, order=("post",), shrink_at=("first",), bias=("none",), bn_epsilon=(1e-5,)
    )

    def misfit(net: Spec) -> str:
        if net.block == "bottleneck" and net.stride_at != "conv2":
            return "stride_at is 'conv1', where it has 'conv2' (v1.5)"
        return check(net)

    return misfit


def _keras_misfit(net: Spec) -> str:
    second = net.order == "pre"
    return _wanted(
        block=("bottleneck",),
        stem=("bare",) if second else ("imagenet",),
        shortcut=("B",),
        shrink=("stride",),
        shrink_at=("last",) if second else ("first",),
        stride_at=("conv2",) if second else ("conv1",),
        order=("pre",) if second else ("post",),
        bias=("unnormed",) if second else ("all",),
        bn_epsilon=(1.001e-5,),
        se_ratio=(0.0,),
        groups=(1,),
    )(net)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("reszoo", "/", lambda name, net: name, False, lambda net: ""),
        Layout(
            "torchvision",
            ".",
            _torch_layer("fc", "downsample"),
            True,
            _torch_misfit(stem=("imagenet",), shortcut=("B",), shrink=("stride",), se_ratio=(0.0,)),
        ),
        Layout(
            "timm",
            ".",
            _torch_layer("fc", "downsample"),
            True,
            _torch_misfit(stem=("imagenet", "deep"), shortcut=("B",), shrink=("stride", "avgpool")),
        ),
        Layout(
            "akamaster",
            ".",
            _torch_layer("linear", "shortcut"),
            True,
            _torch_misfit(
                stem=("cifar",),
                block=("basic",),
                shortcut=("A", "B"),
                pad_at=("both",),
                shrink=("stride",),
                se_ratio=(0.0,),
            ),
        ),
        # The published files are of keras-applications 1.0.7, which called the classifier "probs", and before "fc1000".
        Layout(
            "keras",
            "/",
            _keras_layer,
            False,
            _keras_misfit,
            (("probs/", "predictions/"), ("fc1000/", "predictions/")),
        ),
    )
}


def get_layout(name: str) -> Layout:
    """Return a layout by name; raises ReszooError for another."""
    if name not in LAYOUTS:
        raise ReszooError(f"no layout '{name}'; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def detect(keys: Iterable[str]) -> str:
    """Return the layout whose names `keys` are. Raises ReszooError when they are nobody's that is known here."""
    known = set(keys)
    signs = {
        "reszoo": "stem_conv1/kernel",
        "keras": "conv1_conv/kernel",
        "akamaster": "linear.weight",
        "timm": "conv1.0.weight",
        "torchvision": "layer1.0.conv1.weight",
    }
    for name, sign in signs.items():
        if sign in known:
            if name != "torchvision":
                return name
            if "fc.weight" not in known and not any(key.startswith("layer4.") for key in known):
                return "akamaster"  # without its classifier
            return "timm" if any(".se.fc1." in key for key in known) else name
    shown = ", ".join(sorted(known)[:3]) or "none at all"
    raise ReszooError(
        f"its tensors have names of no layout known here ({shown}); known are {', '.join(LAYOUTS)}{_origin(known)}"
    )


# Words in names that say which library wrote a file whose layout is not supported.
ORIGINS = {
    "embedder.embedder.": "Hugging Face transformers",
    "bottleneck_v1/": "TensorFlow's slim",
    "bottleneck_v2/": "TensorFlow's slim",
    "block1.unit01.": "Big Transfer (BiT)",
    "attnpool.": "CLIP, whose stem and pooling are another model's",
    "layer_with_weights-": "a TensorFlow checkpoint of Keras 2",
}


def _origin(names: Iterable[str]) -> str:
    for sign, library in ORIGINS.items():
        if any(sign in name for name in names):
            return f"; these names are of {library}"
    return ""
