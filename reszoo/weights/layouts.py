"""The names and axes of tensors in published weights, and how they map to reszoo's.

reszoo calls a variable `layer/variable`, such as stage2_block1_conv2/kernel. A `Layout` states what
a publisher calls a layer and its tensors, so that one table serves both directions.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array
from reszoo.zoo.count import count
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec

# Fields that have their default in every model of a publisher whose layout does not name them.
OWN_FIELDS = (
    "shortcut_scale", "branch_scale", "gate", "rezero", "norm",
    "activation", "initialization", "expansions", "padding", "shortcut_bn", "shortcut_from", "blur",
)  # fmt: skip

TORCH_CONV = {"kernel": "weight", "bias": "bias", "gain": "gain"}
TORCH_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# The norm of filters for ReLU: timm has an estimate from samples (nfnet.py), reszoo the exact
# value, and the gain takes up the quotient.
GAIN = np.float32(1.7139588594436646 / math.sqrt(2 / (1 - 1 / math.pi)))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a publisher names tensors.

    Attributes:
        name: The layout's name.
        layer: From (our layer's name, spec) to theirs.
        allowed: From a spec to the values that fields of a model of this publisher have; None for
            any model.
        separator: Between a layer's name and a tensor's.
        torch: Kernels are [out, in, height, width] and dense kernels [out, in], as in PyTorch.
        renamed: From the start of a name in older files to its start now.
    """

    name: str
    layer: Callable[[str, Spec], str]
    allowed: Callable[[Spec], Mapping[str, tuple[object, ...]]] | None = None
    separator: str = "/"
    torch: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)

    def find_mismatch(self, spec: Spec) -> str:
        """Return why the publisher's models do not compute what `spec` computes; "" if they do."""
        if self.allowed is None:
            return ""
        allowed = self.allowed(spec)
        for name, values in allowed.items():
            if (value := getattr(spec, name)) not in values:
                return f"{name} is {value!r}, where it has {' or '.join(map(repr, values))}"
        for name in OWN_FIELDS:
            if name not in allowed and getattr(spec, name) != Spec.model_fields[name].default:
                return f"it has no {name}"
        return ""

    def update_name(self, name: str) -> str:
        """Return a name in a file as the publisher spells it today."""
        for before, now in self.renamed.items():
            if name.startswith(before):
                return now + name.removeprefix(before)
        return name

    def find_name(self, variable: str, spec: Spec) -> str:
        """Return the publisher's name of our `layer/variable`."""
        layer, _, own = variable.partition("/")
        if self.torch:
            normalizes = "_bn" in layer or "_gn" in layer
            own = (TORCH_BATCH_NORM if normalizes else TORCH_CONV)[own]
        return f"{self.layer(layer, spec)}{self.separator}{own}"

    def to_ours(self, array: Array, variable: str) -> Array:
        """Return their tensor of our `layer/variable` with its axes in our order."""
        if self.torch and variable.endswith("/gain"):
            gain: Array = array.reshape(-1) * GAIN
            return gain
        if not self.torch or array.ndim not in (2, 4):
            return array
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)

    def to_theirs(self, array: Array, variable: str) -> Array:
        """Return our tensor of `layer/variable` with its axes in their order."""
        if self.torch and variable.endswith("/gain"):
            gain: Array = (array / GAIN).reshape(-1, 1, 1, 1)
            return gain
        if not self.torch or array.ndim not in (2, 4):
            return array
        return array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


def _torch_layer(head: str, shortcut: str) -> Callable[[str, Spec], str]:
    """Return how torchvision and its followers name a layer; `shortcut` is that of a projection."""

    def layer(name: str, spec: Spec) -> str:
        if name == "head_dense":
            return head
        if place := parse_block_layer(name):
            # A pool that halves comes first in the sequence, an empty place if it need not halve.
            first = 1 if spec.shrink == "avgpool" else 0
            parts = {
                "se_reduce": "se.fc1",
                "se_expand": "se.fc2",
                "shortcut_conv": f"{shortcut}.{first}",
                "shortcut_bn": f"{shortcut}.{first + 1}",
            }
            part = parts.get(place.part, place.part)
            return f"layer{place.stage}.{place.block - 1}.{part}"
        kind, number = re.fullmatch(r"stem_(conv|bn)(\d)", name).groups()  # type: ignore[union-attr]
        # The deep stem is a sequence of three convolutions, with the last batch norm behind it.
        if spec.stem != "deep" or (kind, number) == ("bn", "3"):
            return f"{kind}1"
        return f"conv1.{3 * (int(number) - 1) + (kind == 'bn')}"

    return layer


def _timm_layer(name: str, spec: Spec) -> str:
    """Return how timm names a layer: resnet.py, or for scaled weights nfnet.py."""
    if spec.norm != "scaled_weight":
        # A group norm has the name of the batch norm that it replaces.
        return _torch_layer("fc", "downsample")(name.replace("_gn", "_bn"), spec)
    if place := parse_block_layer(name):
        part = "downsample.conv" if place.part == "shortcut_conv" else place.part
        return f"stages.{place.stage - 1}.{place.block - 1}.{part}"
    return {"head_dense": "head.fc", "stem_conv1": "stem.conv"}[name]


def _keras_layer(name: str, spec: Spec) -> str:
    """Return how keras.applications names a layer (resnet.py)."""
    fixed = {"head_dense": "predictions", "head_bn": "post_bn"}
    fixed |= {"stem_conv1": "conv1_conv", "stem_bn1": "conv1_bn"}
    if name in fixed:
        return fixed[name]
    place = parse_block_layer(name)
    assert place, name
    parts = {"shortcut_conv": "0_conv", "shortcut_bn": "0_bn"}
    parts |= {f"conv{number}": f"{number}_conv" for number in (1, 2, 3)}
    # In a pre-activation block the first batch norm stands before the first convolution.
    names = ("1_bn", "2_bn", "3_bn") if spec.order == "post" else ("preact_bn", "1_bn", "2_bn")
    parts |= {f"bn{number}": own for number, own in enumerate(names, 1)}
    return f"conv{place.stage + 1}_block{place.block}_{parts[place.part]}"


def _torch_fields(
    **fields: tuple[object, ...],
) -> Callable[[Spec], Mapping[str, tuple[object, ...]]]:
    def allowed(spec: Spec) -> Mapping[str, tuple[object, ...]]:
        stride = {"stride_at": ("conv2",)} if spec.block == "bottleneck" else {}  # v1.5
        return stride | common | fields

    common = {"order": ("post",), "shrink_at": ("first",), "bias": ("none",), "bn_epsilon": (1e-5,)}
    return allowed


def _timm_fields(spec: Spec) -> Mapping[str, tuple[object, ...]]:
    fields: dict[str, tuple[object, ...]] = {"shortcut": ("B",)}
    if spec.norm == "scaled_weight":  # nf_resnet50 and 101 of nfnet.py
        fields |= {"norm": (spec.norm,), "branch_scale": (0.2,), "order": ("pre",)}
        fields |= {"block": ("bottleneck",), "stem": ("bare",), "bias": ("all",)}
        fields |= {"shrink": ("avgpool",), "se_ratio": (0.0,), "groups": (1,), "group_width": (64,)}
    else:
        fields |= {"norm": ("batch", "group"), "norm_groups": (32,)}
        fields |= {"stem": ("imagenet", "deep"), "shrink": ("stride", "avgpool")}
    return _torch_fields(**fields)(spec)


def _keras_fields(spec: Spec) -> Mapping[str, tuple[object, ...]]:
    second = spec.order == "pre"
    return {
        "block": ("bottleneck",),
        "stem": ("bare",) if second else ("imagenet",),
        "shortcut": ("B",),
        "shrink": ("stride",),
        "shrink_at": ("last",) if second else ("first",),
        "stride_at": ("conv2",) if second else ("conv1",),
        "order": ("pre",) if second else ("post",),
        "bias": ("unnormed",) if second else ("all",),
        "bn_epsilon": (1.001e-5,),
        "se_ratio": (0.0,),
        "groups": (1,),
    }


def _kerasio_layer(name: str, spec: Spec) -> str:
    """Return the number of a layer among those of its kind, as `keras_graph` numbers them."""
    if name == "head_dense":
        return "dense_1"
    kind = "conv" if "conv" in name else "bn"
    return f"{kind}_{_list_layers(spec, kind).index(name) + 1}"


@functools.cache
def _list_layers(spec: Spec, kind: str) -> list[str]:
    return [part.place for part in count(spec).parts if kind in part.place]


def _kerasio_fields(spec: Spec) -> Mapping[str, tuple[object, ...]]:
    second = spec.order == "pre"
    return {
        "block": ("bottleneck",) if second else ("basic",),
        "stem": ("cifar",),
        "shortcut": ("B",),
        "padding": ("both",) if second else ("same",),  # of strided 1x1 convolutions there is none
        "shrink": ("stride",),
        "shrink_at": ("first",),
        "stride_at": ("conv1",),
        "shortcut_bn": (second,),
        "shortcut_from": ("input",) if second else ("activation",),
        "expansions": (spec.expansions,),
        "order": ("pre",) if second else ("post",),
        "bias": ("all",),
        "bn_epsilon": (1e-3,),
        "se_ratio": (0.0,),
        "groups": (1,),
        "group_width": (64,),
    }


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(name="reszoo", layer=lambda name, spec: name),
        Layout(
            name="torchvision",
            layer=_torch_layer("fc", "downsample"),
            allowed=_torch_fields(
                stem=("imagenet",), shortcut=("B",), shrink=("stride",), se_ratio=(0.0,)
            ),
            separator=".",
            torch=True,
        ),
        Layout(
            name="timm",
            layer=_timm_layer,
            allowed=_timm_fields,
            separator=".",
            torch=True,
        ),
        Layout(
            name="akamaster",
            layer=_torch_layer("linear", "shortcut"),
            allowed=_torch_fields(
                stem=("cifar",),
                block=("basic",),
                shortcut=("A", "B"),
                pad_at=("both",),
                shrink=("stride",),
                se_ratio=(0.0,),
            ),
            separator=".",
            torch=True,
        ),
        # keras-applications 1.0.7 wrote the published files. It called the classifier "probs", and
        # before that "fc1000".
        Layout(
            name="keras",
            layer=_keras_layer,
            allowed=_keras_fields,
            renamed={"probs/": "predictions/", "fc1000/": "predictions/"},
        ),
        Layout(name="kerasio", layer=_kerasio_layer, allowed=_kerasio_fields),
    )
}


def get_layout(name: str) -> Layout:
    """Return a layout by name. Raises ReszooError for unknown names."""
    if name not in LAYOUTS:
        raise ReszooError(f"layout: {name!r} is invalid; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
