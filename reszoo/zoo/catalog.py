"""The names: rows of the family, aliases, and the rules by which a name with a depth in it becomes a spec."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any, Unpack

from reszoo.errors import ReszooError, did_you_mean
from reszoo.zoo.foreign import suggest_models
from reszoo.zoo.spec import Spec, SpecFields

# Blocks per stage, arXiv 1512.03385 table 1; 200: arXiv 1603.05027, section 4.
IMAGENET_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
MAX_CIFAR_DEPTH = 1202
BOTTLENECK_DEPTHS = (
    50,
    101,
    152,
    164,
    200,
    1001,
)  # whose bare names are not those of basic CIFAR nets

# What the bare name of a bottleneck net means: most published weights stride in the 3x3.
ALIASES = {f"resnet{depth}": f"resnet{depth}_v1_5" for depth in (50, 101, 152, 200)}
ALIASES |= {
    f"resnet{depth}_v{version}": f"resnet{depth}" for depth in (18, 34) for version in ("1", "1_5")
}
ALIASES |= {
    "wrn50_2": "wide_resnet50_2",
    "wrn101_2": "wide_resnet101_2",
    "seresnet50": "se_resnet50",
}

# CIFAR nets that a list shows; every other depth of the same form is built by name all the same.
LISTED_DEPTHS = (8, 14, 20, 26, 32, 38, 44, 56, 110, 1202)


def _imagenet(name: str, depth: int, **fields: Any) -> Spec:
    block, depths = IMAGENET_DEPTHS[depth]
    base: dict[str, Any] = {
        "block": block,
        "depths": depths,
        "widths": (64, 128, 256, 512),
        "stem": "imagenet",
        "stem_width": 64,
        "shortcut": "B",
    }
    return Spec(name=name, **(base | fields))


def _stride_at(depth: int) -> dict[str, Any]:
    """Return v1.5's stride for a net that has bottlenecks."""
    return {"stride_at": "conv2"} if IMAGENET_DEPTHS[depth][0] == "bottleneck" else {}


def _cifar(name: str, blocks: int, **fields: Any) -> Spec:
    base: dict[str, Any] = {
        "block": "basic",
        "depths": (blocks,) * 3,
        "widths": (16, 32, 64),
        "stem": "cifar",
        "stem_width": 16,
        "shortcut": "A",
    }
    return Spec(name=name, **(base | fields))


def _rows() -> dict[str, Spec]:
    """Return every net whose name is no rule with a depth in it."""
    rows = []
    for depth, (block, _) in IMAGENET_DEPTHS.items():
        if block == "basic":
            rows += [
                _imagenet(f"plain{depth}", depth, shortcut="none"),
                _imagenet(f"resnet{depth}", depth),
            ]
        else:
            rows += [
                _imagenet(f"resnet{depth}_v1", depth),
                _imagenet(f"resnet{depth}_v1_5", depth, stride_at="conv2"),
            ]
        rows.append(_imagenet(f"resnet{depth}_v2", depth, order="pre", **_stride_at(depth)))
    rows += [
        _imagenet(f"resnet{depth}_d", depth, stem="deep", shrink="avgpool", **_stride_at(depth))
        for depth in (18, 34, 50, 101, 152, 200)
    ]
    rows += [
        _imagenet(f"wide_resnet{depth}_2", depth, group_width=128, stride_at="conv2")
        for depth in (50, 101)
    ]
    for depth, groups, width in ((50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4)):
        rows.append(
            _imagenet(
                f"resnext{depth}_{groups}x{width}d",
                depth,
                groups=groups,
                group_width=width,
                stride_at="conv2",
            )
        )
    rows += [
        _imagenet(f"se_resnet{depth}", depth, se_ratio=1 / 16, stride_at="conv2")
        for depth in (50, 101, 152)
    ]
    # keras.applications' own two kinds, to which its weights belong: keras/src/applications/resnet.py and resnet_v2.py.
    for depth in (50, 101, 152):
        rows.append(_imagenet(f"resnet{depth}_keras", depth, bias="all", bn_epsilon=1.001e-5))
        rows.append(
            _imagenet(
                f"resnet{depth}_v2_keras",
                depth,
                stem="bare",
                order="pre",
                stride_at="conv2",
                shrink_at="last",
                bias="unnormed",
                bn_epsilon=1.001e-5,
            )
        )
    # arXiv 1603.05027, tables 2 to 4; projections where the shape changes, as in the authors' resnet-1k-layers.
    for depth in (164, 1001):
        for name, fields in (
            (f"plain{depth}", {"shortcut": "none"}),
            (f"resnet{depth}", {}),
            (f"resnet{depth}_v2", {"order": "pre"}),
        ):
            rows.append(
                _cifar(name, (depth - 2) // 9, **{"block": "bottleneck", "shortcut": "B", **fields})
            )
    for groups in (8, 16):  # arXiv 1611.05431, table 7
        rows.append(
            _cifar(
                f"resnext29_{groups}x64d",
                3,
                block="bottleneck",
                widths=(64, 128, 256),
                stem_width=64,
                shortcut="B",
                groups=groups,
                group_width=64,
                stride_at="conv2",
            )
        )
    return {row.name: row for row in rows}


ROWS = _rows()


def _cifar_blocks(name: str, depth: int) -> int:
    if depth % 6 != 2 or not 8 <= depth <= MAX_CIFAR_DEPTH:
        below = min(max(depth - (depth - 2) % 6, 8), MAX_CIFAR_DEPTH)
        nearest = f"{below}" if below in (8, MAX_CIFAR_DEPTH) else f"{below} or {below + 6}"
        raise ReszooError(
            f"no net '{name}': a CIFAR net has depth 6n+2 from 8 to {MAX_CIFAR_DEPTH}; the nearest is {nearest}"
        )
    return (depth - 2) // 6


def _by_depth(match: re.Match[str]) -> Spec:
    name = match.group(0)
    blocks = _cifar_blocks(name, int(match["depth"]))
    if int(match["depth"]) in BOTTLENECK_DEPTHS and not name.startswith("cifar_"):
        raise ReszooError(
            f"no net '{name}': at this depth a bare name is a bottleneck net's; for the CIFAR net of basic blocks type 'cifar_{name}'"
        )
    fields: dict[str, Any] = {"shortcut": "none"} if match["kind"] == "plain" else {}
    if match["suffix"] == "_v2":
        fields["order"] = "pre"
    if match["suffix"] == "_sd":
        if match["kind"] == "plain":
            raise ReszooError(
                f"no net '{name}': stochastic depth drops branches beside a shortcut, which a plain net has not"
            )
        fields["drop_path"] = 0.5  # arXiv 1603.09382, section 4: the last block survives with 0.5
    return _cifar(name, blocks, **fields)


def _wide(match: re.Match[str]) -> Spec:
    depth, factor = int(match["depth"]), int(match["factor"])
    if depth % 6 != 4 or depth < 10 or factor < 1:
        raise ReszooError(
            f"no net '{match.group(0)}': a wide CIFAR net is wrnD_K with depth D = 6n+4 (10, 16, 22, 28, 40 ...), such as wrn28_10"
        )
    widths = tuple(width * factor for width in (16, 32, 64))
    return _cifar(
        match.group(0), (depth - 4) // 6, widths=widths, shortcut="B", order="pre"
    )  # arXiv 1605.07146, table 1


RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Spec]], ...] = (
    (
        re.compile(
            r"(?:cifar_)?(?P<kind>resnet|plain)(?P<depth>[1-9][0-9]{0,3})(?P<suffix>_v2|_sd|)"
        ),
        _by_depth,
    ),
    (re.compile(r"wrn(?P<depth>[1-9][0-9]{0,2})_(?P<factor>[1-9][0-9]?)"), _wide),
)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that match a shell-style wildcard, in the order a reader looks for them.

    Every CIFAR depth 6n+2 from 8 to 1202 and every wide wrnD_K can be built by name; the list shows the usual ones.
    """
    names = [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in LISTED_DEPTHS]
    names += [f"cifar_{kind}{depth}" for kind in ("plain", "resnet") for depth in (50, 152, 200)]
    names += [f"resnet{depth}_v2" for depth in LISTED_DEPTHS] + [
        f"resnet{depth}_sd" for depth in (56, 110, 1202)
    ]
    names += ["wrn16_4", "wrn16_8", "wrn28_10", "wrn40_4"]
    names += [*ROWS, *ALIASES]
    return [name for name in dict.fromkeys(names) if fnmatch.fnmatchcase(name, pattern.lower())]


def alias_of(name: str) -> str | None:
    """Return the row that `name` stands for, or None when it is a row's own name."""
    return ALIASES.get(name)


def _is_model(name: str) -> bool:
    if ALIASES.get(name, name) in ROWS:
        return True
    try:
        return any(make(match) for pattern, make in RULES if (match := pattern.fullmatch(name)))
    except ReszooError:
        return False


def spec(name: str | Spec, /, **fields: Unpack[SpecFields]) -> Spec:
    """Return the spec of a net by name (a Spec passes through), with some fields changed.

    Raises ReszooError: for an unknown name, with the nearest ones; for a depth that is not 6n+2; for an unknown field, an
    impossible value or a pair of fields that contradict each other.
    """
    if isinstance(name, Spec):
        return name.replace(**fields)
    if not isinstance(name, str):
        raise ReszooError(
            f"a net is a name such as 'resnet56' or a Spec, not {type(name).__name__}"
        )
    row = ALIASES.get(name, name)
    if row in ROWS:
        return ROWS[row].replace(**fields)
    for pattern, make in RULES:
        if match := pattern.fullmatch(row):
            return make(match).replace(**fields)
    if meant := suggest_models(name, _is_model, list_models()):
        model, tag = meant
        example = f'reszoo.build("{model}", weights="{tag}")' if tag else f'reszoo.build("{model}")'
        raise ReszooError(f"no net '{name}'; did you mean '{model}'? Example: {example}")
    lower = name.lower()
    begun = [
        repr(known) for known in list_models() if known == lower or known.startswith(f"{lower}_")
    ][:3]
    hint = f"; did you mean {' or '.join(begun)}?" if begun else did_you_mean(name, list_models())
    hint = hint or "; `reszoo list` shows every name"
    raise ReszooError(f"no net '{name}'{hint}")
