"""The model names: families with fixed depths, aliases, and rules for names of any depth."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import Any, Unpack

from reszoo.errors import ReszooError, did_you_mean
from reszoo.types import JsonMapping
from reszoo.zoo.fields import SpecFields
from reszoo.zoo.foreign import suggest_models
from reszoo.zoo.spec import Spec

# Blocks per stage, arXiv 1512.03385 table 1; 200: arXiv 1603.05027, section 4.
IMAGENET_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
IMAGENET = {"widths": (64, 128, 256, 512), "stem": "imagenet", "stem_width": 64, "shortcut": "B"}
CIFAR = {
    "block": "basic",
    "widths": (16, 32, 64),
    "stem": "cifar",
    "stem_width": 16,
    "shortcut": "A",
}
MAX_CIFAR_DEPTH = 1202
# Depths whose names without "cifar_" do not mean CIFAR models of basic blocks.
BOTTLENECK_DEPTHS = (50, 101, 152, 164, 200, 1001)
# CIFAR models that a list shows; every other depth of the same form is built by name all the same.
LISTED_DEPTHS = (8, 14, 20, 26, 32, 38, 44, 56, 110, 1202)

# What the bare name of a bottleneck model means: most published weights stride in the 3x3.
ALIASES = {f"resnet{depth}": f"resnet{depth}_v1_5" for depth in (50, 101, 152, 200)}
ALIASES |= {f"resnet{d}_v{version}": f"resnet{d}" for d in (18, 34) for version in ("1", "1_5")}
ALIASES |= {
    "wrn50_2": "wide_resnet50_2",
    "wrn101_2": "wide_resnet101_2",
    "seresnet50": "se_resnet50",
    "resnet8_mlperf": "resnet8_kerasio",  # MLPerf Tiny's reference is the example's for n = 1
}


@dataclass(frozen=True)
class Family:
    """Models that differ in depth alone.

    Attributes:
        form: Their name, with {} for the depth.
        depths: The depths, or in words which depths.
        meaning: What they are.
        source: Where they are from.
        fields: The fields of their specification, except the depths.
    """

    form: str
    depths: tuple[int, ...] | str
    meaning: str
    source: str
    fields: JsonMapping

    @property
    def models(self) -> list[Spec]:
        """The models that have a name of their own; none where any depth can be built."""
        return [self._model(depth) for depth in self.depths if isinstance(depth, int)]

    def _model(self, depth: int) -> Spec:
        fields = dict(self.fields)
        if fields["stem"] != "cifar":
            fields["block"], fields["depths"] = IMAGENET_DEPTHS[depth]
        else:
            fields["depths"] = ((depth - 2) // 9,) * 3
        return Spec(name=self.form.format(depth), **fields)


def _imagenet(
    form: str, depths: tuple[int, ...], meaning: str, source: str, **fields: Any
) -> Family:
    return Family(form, depths, meaning, source, IMAGENET | fields)


def _cifar(
    form: str, depths: tuple[int, ...] | str, meaning: str, source: str, **fields: Any
) -> Family:
    return Family(form, depths, meaning, source, CIFAR | fields)


PAPER, ORDERS, RESNEXT = "arXiv 1512.03385", "arXiv 1603.05027", "arXiv 1611.05431"
RESNET_D, KERAS = "arXiv 1812.01187, section 4.2", "keras.applications"
DEEP = (50, 101, 152, 200)
V1_5 = {"stride_at": "conv2"}
AS_KERAS = {"bn_epsilon": 1.001e-5}
KERAS_IO = "keras-team/keras, examples/cifar10_resnet.py"
AS_KERAS_IO = {"shortcut": "B", "bias": "all", "bn_epsilon": 1e-3}
AS_D = {"stem": "deep", "shrink": "avgpool"}
BOTTLENECK = {"block": "bottleneck", "shortcut": "B"}
RESNEXT_29 = {"widths": (64, 128, 256), "stem_width": 64, "group_width": 64, **BOTTLENECK, **V1_5}

# Models of any depth of a form, which `_by_rule` builds. With _sd the last block survives with 0.5.
RULES = (
    _cifar("plain{}", "6n+2", "CIFAR, basic blocks without shortcuts", f"{PAPER}, section 4.2"),
    _cifar("resnet{}", "6n+2", "CIFAR, basic blocks, option A", f"{PAPER}, section 4.2"),
    _cifar("resnet{}_v2", "6n+2", "the same with full pre-activation", ORDERS, order="pre"),
    _cifar("resnet{}_sd", "6n+2", "with stochastic depth", "arXiv 1603.09382", drop_path=0.5),
    _cifar("wrn{}_k", "6n+4", "CIFAR, k times as wide, pre-activation, option B",
           "arXiv 1605.07146, table 1", shortcut="B", order="pre"),
    _cifar("resnet{}_kerasio", "6n+2", "v1 of keras.io's CIFAR-10 example; resnet8_mlperf: "
           "MLPerf Tiny", KERAS_IO, shortcut_bn=False, padding="same", **AS_KERAS_IO),
    _cifar("resnet{}_v2_kerasio", "9n+2", "v2 of keras.io's CIFAR-10 example, bottlenecks",
           KERAS_IO, block="bottleneck", widths=(16, 64, 128), expansions=(4, 2, 2),
           order="pre", shortcut_from="input", **AS_KERAS_IO),
)  # fmt: skip
# Option B where the shape changes, as in the authors' resnet-1k-layers.
FAMILIES = (
    _cifar("plain{}", (164, 1001), "CIFAR, bottlenecks without shortcuts", ORDERS,
           **BOTTLENECK | {"shortcut": "none"}),
    _cifar("resnet{}", (164, 1001), "CIFAR, bottlenecks, option B", f"{ORDERS}, table 3",
           **BOTTLENECK),
    _cifar("resnet{}_v2", (164, 1001), "the same with full pre-activation", f"{ORDERS}, table 3",
           **BOTTLENECK, order="pre"),
    _cifar("resnext{}_8x64d", (29,), "CIFAR, 3x3 in 8 groups", f"{RESNEXT}, table 7",
           **RESNEXT_29, groups=8),
    _cifar("resnext{}_16x64d", (29,), "CIFAR, 3x3 in 16 groups", f"{RESNEXT}, table 7",
           **RESNEXT_29, groups=16),
    _imagenet("plain{}", (18, 34), "ImageNet, basic blocks without shortcuts", f"{PAPER}, table 1",
              shortcut="none"),
    _imagenet("resnet{}", (18, 34), "ImageNet, basic blocks, option B", f"{PAPER}, table 1"),
    _imagenet("resnet{}_v1", DEEP, "ImageNet, bottlenecks, stride in the first 1x1, option B",
              f"{PAPER}, table 1"),
    _imagenet("resnet{}_v1_5", DEEP, "the same, stride in the 3x3; also without _v1_5",
              "fb.resnet.torch, torchvision", **V1_5),
    _imagenet("resnet{}_v2", (18, 34), "full pre-activation", ORDERS, order="pre"),
    _imagenet("resnet{}_v2", DEEP, "full pre-activation, stride in the 3x3", ORDERS,
              order="pre", **V1_5),
    _imagenet("resnet{}_d", (18, 34), "stem of three 3x3, pooling before projections", RESNET_D,
              **AS_D),
    _imagenet("resnet{}_d", DEEP, "the same, stride in the 3x3", RESNET_D, **AS_D, **V1_5),
    _imagenet("wide_resnet{}_2", (50, 101), "3x3 twice as wide; also wrn{}_2", "arXiv 1605.07146",
              group_width=128, **V1_5),
    _imagenet("resnext{}_32x4d", (50, 101), "3x3 in 32 groups of 4 channels", RESNEXT,
              groups=32, group_width=4, **V1_5),
    _imagenet("resnext{}_32x8d", (101,), "3x3 in 32 groups of 8 channels", RESNEXT,
              groups=32, group_width=8, **V1_5),
    _imagenet("resnext{}_64x4d", (101,), "3x3 in 64 groups of 4 channels", RESNEXT,
              groups=64, group_width=4, **V1_5),
    _imagenet("se_resnet{}", (50, 101, 152), "squeeze-and-excitation; also seresnet50",
              "arXiv 1709.01507", se_ratio=1 / 16, **V1_5),
    _imagenet("resnet{}_gn", (50,), "group norm in place of batch norm", "arXiv 1803.08494, timm",
              norm="group", **V1_5),
    _imagenet("nf_resnet{}", (50,), "scaled weights in place of normalization",
              "arXiv 2101.08692, timm", norm="scaled_weight", stem="bare", order="pre",
              shrink="avgpool", branch_scale=0.2, bias="all", **V1_5),
    _imagenet("resnet{}_keras", (50, 101, 152), "v1 of keras.applications: with biases", KERAS,
              bias="all", **AS_KERAS),
    _imagenet("resnet{}_v2_keras", (50, 101, 152), "v2 of keras.applications: strides at the end "
              "of a stage", KERAS, stem="bare", order="pre", shrink_at="last", bias="unnormed",
              **V1_5, **AS_KERAS),
)  # fmt: skip

ROWS = {model.name: model for family in FAMILIES for model in family.models}
"""Every model whose depth is one of a list, by name."""

_BY_DEPTH = re.compile(
    r"(?:cifar_)?(?P<kind>resnet|plain)(?P<depth>[1-9]\d{0,3})(?P<end>_v2|_sd|)", re.A
)
_KERAS_IO = re.compile(r"resnet(?P<depth>[1-9]\d{0,3})(?P<end>(_v2)?_kerasio)", re.A)
_WIDE = re.compile(r"wrn(?P<depth>[1-9]\d{0,2})_(?P<factor>[1-9]\d?)", re.A)


def _by_rule(name: str) -> Spec | None:
    """Return the CIFAR model that a name with a depth in it describes, None for another name."""
    if found := _BY_DEPTH.fullmatch(name):
        return _by_depth(name, found["kind"] == "plain", int(found["depth"]), found["end"])
    if found := _KERAS_IO.fullmatch(name):
        depth, step = int(found["depth"]), 9 if found[3] else 6
        if depth % step != 2 or not step < depth <= MAX_CIFAR_DEPTH:
            raise ReszooError(
                f"no model '{name}': its depth is {step}n+2 up to {MAX_CIFAR_DEPTH}, such as "
                f"resnet{2 * step + 2}{found['end']}"
            )
        fields = next(each.fields for each in RULES if each.form == f"resnet{{}}{found['end']}")
        return Spec(name=name, **{**fields, "depths": ((depth - 2) // step,) * 3})
    if found := _WIDE.fullmatch(name):
        depth, factor = int(found["depth"]), int(found["factor"])
        if depth % 6 != 4 or depth < 10:
            raise ReszooError(
                f"no model '{name}': a wide CIFAR model is wrnD_K with depth D = 6n+4 (10, 16, 22, "
                "28, 40 ...), such as wrn28_10"
            )
        widths = tuple(width * factor for width in (16, 32, 64))
        blocks = (depth - 4) // 6
        return Spec(name=name, **{**RULES[4].fields, "depths": (blocks,) * 3, "widths": widths})
    return None


def _by_depth(name: str, plain: bool, depth: int, end: str) -> Spec:
    if depth % 6 != 2 or not 8 <= depth <= MAX_CIFAR_DEPTH:
        below = min(max(depth - (depth - 2) % 6, 8), MAX_CIFAR_DEPTH)
        nearest = f"{below}" if below in (8, MAX_CIFAR_DEPTH) else f"{below} or {below + 6}"
        raise ReszooError(
            f"no model '{name}': a CIFAR model has depth 6n+2 from 8 to {MAX_CIFAR_DEPTH}; the "
            f"nearest is {nearest}"
        )
    if depth in BOTTLENECK_DEPTHS and not name.startswith("cifar_"):
        raise ReszooError(
            f"no model '{name}': names of this depth mean bottleneck models; the CIFAR model of "
            f"basic blocks is 'cifar_{name}'"
        )
    if plain and end == "_sd":
        raise ReszooError(
            f"no model '{name}': stochastic depth needs a shortcut. Example: resnet{depth}_sd"
        )
    (family,) = (each for each in RULES if each.form == f"resnet{{}}{end}")
    fields = {**family.fields, "shortcut": "none"} if plain else family.fields
    return Spec(name=name, depths=((depth - 2) // 6,) * 3, **fields)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that match a shell-style wildcard, in the order a reader looks for them.

    Every CIFAR depth 6n+2 from 8 to 1202 and every wide wrnD_K can be built by name; the list shows
    the usual ones.
    """
    names = [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in LISTED_DEPTHS]
    names += [f"cifar_{kind}{depth}" for kind in ("plain", "resnet") for depth in (50, 152, 200)]
    names += [f"resnet{depth}_v2" for depth in LISTED_DEPTHS]
    names += [f"resnet{depth}_sd" for depth in (56, 110, 1202)]
    names += [f"resnet{depth}_kerasio" for depth in (8, 20, 32, 44, 56, 110)]
    names += [f"resnet{depth}_v2_kerasio" for depth in (20, 29, 56, 110)]
    names += ["wrn16_4", "wrn16_8", "wrn28_10", "wrn40_4", *ROWS, *ALIASES]
    return [name for name in dict.fromkeys(names) if fnmatch.fnmatchcase(name, pattern.lower())]


def alias_of(name: str) -> str | None:
    """Return the row that `name` stands for, or None when it is a row's own name."""
    return ALIASES.get(name)


def _is_model(name: str) -> bool:
    try:
        return ALIASES.get(name, name) in ROWS or _by_rule(name) is not None
    except ReszooError:
        return False


def spec(name: str | Spec, /, **fields: Unpack[SpecFields]) -> Spec:
    """Return the specification of a model by name or Spec, with some fields changed.

    Raises:
        ReszooError: For an unknown name, with the nearest ones; for a depth that is not 6n+2; for
            an unknown field, an impossible value, or fields that contradict each other.
    """
    if isinstance(name, Spec):
        return name.replace(**fields)
    if not isinstance(name, str):
        raise ReszooError(
            f"a model is a name such as 'resnet56' or a Spec, not {type(name).__name__}"
        )
    row = ALIASES.get(name, name)
    if found := ROWS.get(row) or _by_rule(row):
        return found.replace(**fields)
    if meant := suggest_models(name, _is_model, list_models()):
        model, tag = meant
        example = f'reszoo.build("{model}", weights="{tag}")' if tag else f'reszoo.build("{model}")'
        raise ReszooError(f"no model '{name}'; did you mean '{model}'? Example: {example}")
    lower = name.lower()
    begun = [each for each in list_models() if each == lower or each.startswith(f"{lower}_")][:3]
    hint = (
        f"; did you mean {' or '.join(map(repr, begun))}?"
        if begun
        else did_you_mean(name, list_models())
    )
    raise ReszooError(f"no model '{name}'{hint or '; `reszoo list` shows every name'}")
