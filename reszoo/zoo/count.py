"""Depth, parameters and multiply-adds of a spec by arithmetic: the oracle the built nets are tested against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Unpack

from reszoo.errors import ReszooError
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.spec import Spec, SpecFields


@dataclass(frozen=True)
class Part:
    """One weighted part of a net: where it stands, what leaves it, what it costs.

    state: weights that are not trained (moving mean and variance). main: on the path that a net's depth is counted along.
    """

    place: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int
    state: int
    multiply_adds: int
    main: bool


@dataclass(frozen=True)
class Count:
    """What a net is made of and costs for one image.

    depth: weighted layers on the main path (shortcut projections, gates and squeeze-excite apart).
    parameters: trained weights. state: moving statistics. multiply_adds: of convolutions and dense layers, one image.
    """

    depth: int
    parameters: int
    state: int
    multiply_adds: int
    parts: tuple[Part, ...]

    def by_place(self) -> list[tuple[str, tuple[int, int, int], int, int]]:
        """Return (place, shape that leaves it, parameters, multiply-adds) for the stem, each stage and the head."""
        rows: dict[str, tuple[tuple[int, int, int], int, int]] = {}
        for part in self.parts:
            place = part.place.split("_")[0]
            _, parameters, cost = rows.get(place, ((0, 0, 0), 0, 0))
            rows[place] = (part.shape, parameters + part.parameters, cost + part.multiply_adds)
        return [(place, *row) for place, row in rows.items()]


def check_input(spec: Spec, input_shape: tuple[int | None, int | None, int]) -> None:
    """Raise ReszooError unless `input_shape` is (height, width, channels) that the net can bear; None is any size."""
    if (
        not isinstance(input_shape, tuple | list)
        or len(input_shape) != 3
        or not all(map(_is_side, input_shape))
    ):
        raise ReszooError(
            f"{spec.name}: input_shape is {input_shape}, but must be (height, width, channels), such as {spec.default_input_shape}"
        )
    if input_shape[2] is None:
        raise ReszooError(
            f"{spec.name}: input_shape {input_shape} leaves the channels open; give a number, such as 3"
        )
    if input_shape[0] in (1, 3) and (input_shape[2] or 0) > 16:
        last = (*input_shape[1:], input_shape[0])
        raise ReszooError(
            f"{spec.name}: input_shape: {input_shape} is invalid; channels come last. Example: input_shape={last}"
        )
    for side in input_shape[:2]:
        if side is not None and side < spec.total_stride:
            raise ReszooError(
                f"{spec.name}: input {input_shape[0]}x{input_shape[1]} is too small, the net shrinks its input {spec.total_stride} times; "
                f"give at least {spec.total_stride}x{spec.total_stride}"
            )


def _is_side(side: Any) -> bool:
    return side is None or (isinstance(side, int) and not isinstance(side, bool) and side >= 1)


def check_classes(spec: Spec, classes: int) -> None:
    """Raise ReszooError unless `classes` is a whole number from 1 on."""
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ReszooError(
            f"{spec.name}: classes is {classes!r}, but must be a whole number from 1 on"
        )


def count(
    net: str | Spec,
    input_shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    **fields: Unpack[SpecFields],
) -> Count:
    """Count a net by name or spec, with some fields changed, for one image of `input_shape` (height, width, channels).

    The defaults are the data the family was published on: 32x32x3 and 10 classes, or 224x224x3 and 1000. Nothing is built
    and nothing heavy is imported. Raises ReszooError as `spec` does, and for an input the net cannot bear.
    """
    spec = get_spec(net, **fields)
    shape = spec.default_input_shape if input_shape is None else input_shape
    check_input(spec, shape)
    if None in shape:
        raise ReszooError(
            f"{spec.name}: multiply-adds need a size; give input_shape such as {spec.default_input_shape}"
        )
    classes = spec.default_classes if classes is None else classes
    check_classes(spec, classes)
    parts = tuple(_parts(spec, shape, classes))
    return Count(
        depth=sum(part.main for part in parts),
        parameters=sum(part.parameters for part in parts),
        state=sum(part.state for part in parts),
        multiply_adds=sum(part.multiply_adds for part in parts),
        parts=parts,
    )


def _half(side: int) -> int:
    return math.ceil(side / 2)


def _parts(spec: Spec, shape: tuple[int, int, int], classes: int) -> Iterator[Part]:
    height, width, channels = shape

    def conv(
        place: str,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        main: bool = True,
        size: Any = None,
    ) -> Part:
        nonlocal height, width, channels
        if stride == 2:
            height, width = _half(height), _half(width)
        weights = kernel * kernel * (channels // groups) * out
        rows, columns = size or (height, width)
        channels = out
        return Part(
            place,
            "conv",
            (height, width, out),
            weights + out * bias,
            0,
            weights * rows * columns,
            main,
        )

    def norm(place: str) -> Part:
        return Part(place, "norm", (height, width, channels), 2 * channels, 2 * channels, 0, False)

    if spec.stem == "deep":
        for index, (out, stride) in enumerate(
            ((spec.stem_width // 2, 2), (spec.stem_width // 2, 1), (spec.stem_width, 1)), 1
        ):
            yield conv(f"stem_conv{index}", out, 3, stride, bias=spec.has_bias(normed=True))
            yield norm(f"stem_bn{index}")
    else:
        kernel, stride = (3, 1) if spec.stem == "cifar" else (7, 2)
        yield conv(
            "stem_conv1",
            spec.stem_width,
            kernel,
            stride,
            bias=spec.has_bias(normed=spec.stem != "bare"),
        )
        if spec.stem != "bare":
            yield norm("stem_bn1")
    if spec.stem != "cifar":
        height, width = _half(height), _half(width)

    norm_before = spec.order == "pre"
    for stage, blocks in enumerate(spec.depths):
        for block in range(blocks):
            place = f"stage{stage + 1}_block{block + 1}"
            stride = spec.stride(stage, block)
            out, inner = spec.out_channels(stage), spec.inner_channels(stage)
            entry = (height, width, channels)
            convs: list[tuple[int, int, int, int]]
            if spec.block == "basic":
                convs = [(out, 3, stride, 1), (out, 3, 1, 1)]
            else:
                first, second = (stride, 1) if spec.stride_at == "conv1" else (1, stride)
                convs = [(inner, 1, first, 1), (inner, 3, second, spec.groups), (out, 1, 1, 1)]
            for index, (filters, kernel, step, groups) in enumerate(convs, 1):
                last = index == len(convs)
                # The stem's normalisation and ReLU are the first block's pre-activation.
                if norm_before and not (stage == block == 0 and index == 1 and spec.stem != "bare"):
                    yield norm(f"{place}_bn{index}")
                normed = not (last and spec.order in ("pre", "bn_after_add"))
                yield conv(
                    f"{place}_conv{index}",
                    filters,
                    kernel,
                    step,
                    groups,
                    bias=spec.has_bias(normed=normed),
                )
                if normed and not norm_before:
                    yield norm(f"{place}_bn{index}")
            if spec.se_ratio:
                squeezed = max(1, round(out * spec.se_ratio))
                weights = 2 * out * squeezed
                yield Part(
                    f"{place}_se",
                    "se",
                    (height, width, out),
                    weights + squeezed + out,
                    0,
                    weights,
                    False,
                )
            if spec.rezero:
                yield Part(f"{place}_rezero", "scale", (height, width, out), 1, 0, 0, False)
            shrinks = stride == 2 and spec.shrink_at == "first"
            if spec.shortcut == "C" or (spec.shortcut == "B" and (shrinks or entry[2] != out)):
                exit_size = (height, width)
                channels = entry[2]
                normed = spec.order not in ("pre", "bn_after_add")
                yield conv(
                    f"{place}_shortcut_conv",
                    out,
                    1,
                    bias=spec.has_bias(normed=normed),
                    main=False,
                    size=exit_size,
                )
                if normed:
                    yield norm(f"{place}_shortcut_bn")
            if spec.gate != "none":
                yield conv(f"{place}_gate_conv", out, 1, bias=True, main=False)
            if spec.order == "bn_after_add":
                yield norm(f"{place}_bn{len(convs)}")
    if norm_before:
        yield norm("head_bn")
    yield Part(
        "head_dense",
        "dense",
        (1, 1, classes),
        channels * classes + classes,
        0,
        channels * classes,
        True,
    )
