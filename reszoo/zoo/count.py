"""Depth, parameters and MACs of a model by arithmetic, without building it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Unpack

from reszoo.errors import ReszooError
from reszoo.reporting.notebook import html_table
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.fields import SpecFields
from reszoo.zoo.own_parts import find_part
from reszoo.zoo.spec import Spec

Shape = tuple[int, int, int]


class Part(NamedTuple):
    """One layer, or squeeze-and-excitation as a whole.

    Attributes:
        place: The name of the layer.
        shape: The shape of its output, [height, width, channels].
        parameters: Weights that are trained.
        state: Weights that are not trained: moving mean and variance.
        macs: MACs for one image; 1 MAC is 1 multiplication and 1 addition.
        main: Whether it is on the path along which depth is counted; of a user's own block, how
            many of its layers are.
    """

    place: str
    shape: Shape
    parameters: int
    state: int = 0
    macs: int = 0
    main: int = False


@dataclass(frozen=True)
class Count:
    """The size of a model and its cost for one image.

    Attributes:
        depth: Convolutions and dense layers on the main path, without shortcuts, gates and
            squeeze-and-excitation.
        parameters: Weights that are trained.
        state: Moving statistics of batch norm.
        macs: MACs of convolutions and dense layers for one image.
        parts: The layers.
    """

    depth: int
    parameters: int
    state: int
    macs: int
    parts: tuple[Part, ...] = field(repr=False)

    def by_group(self) -> list[tuple[str, Shape, int, int]]:
        """Return (layer group, shape of its output, parameters, MACs) for stem, stages and head."""
        rows: dict[str, tuple[Shape, int, int]] = {}
        for part in self.parts:
            group = part.place.split("_")[0]
            _, parameters, cost = rows.get(group, (part.shape, 0, 0))
            rows[group] = (part.shape, parameters + part.parameters, cost + part.macs)
        return [(group, *row) for group, row in rows.items()]

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        rows = [
            (group, "x".join(map(str, shape)), f"{parameters:,}", f"{cost:,}")
            for group, shape, parameters, cost in self.by_group()
        ]
        rows.append(("all", "", f"{self.parameters:,}", f"{self.macs:,}"))
        headers = ("layers", "output", "parameters", "MACs")
        return html_table(headers, rows, title=f"depth {self.depth}")


def check_input(spec: Spec, input_shape: tuple[int | None, int | None, int]) -> None:
    """Raise ReszooError unless a model takes an input shape (height, width, channels).

    Args:
        spec: The model.
        input_shape: The shape. A height or width of None means any size.
    """
    given = f"{spec.name}: input_shape: {input_shape!r} is invalid"
    sides = input_shape if isinstance(input_shape, tuple | list) else ()
    if len(sides) != 3 or sides[2] is None or not all(map(_is_side, sides)):
        usual = spec.default_input_shape
        raise ReszooError(
            f"{given}; expected (height, width, channels). Example: input_shape={usual}"
        )
    if sides[0] in (1, 3) and sides[2] > 16:
        last = (*sides[1:], sides[0])
        raise ReszooError(f"{given}; channels come last. Example: input_shape={last}")
    least = spec.total_stride
    if any(side is not None and side < least for side in sides[:2]):
        raise ReszooError(
            f"{given}; expected at least {least}x{least}, because the model shrinks its input "
            f"{least} times"
        )


def _is_side(side: object) -> bool:
    return side is None or (isinstance(side, int) and not isinstance(side, bool) and side >= 1)


def check_classes(spec: Spec, classes: int) -> None:
    """Raise ReszooError unless `classes` is an integer >= 1."""
    if classes is None or not _is_side(classes):
        raise ReszooError(f"{spec.name}: classes: {classes!r} is invalid; expected an integer >= 1")


def count(
    model: str | Spec,
    input_shape: Shape | None = None,
    classes: int | None = None,
    **fields: Unpack[SpecFields],
) -> Count:
    """Count a model by name or specification, with some fields changed.

    Args:
        model: The model.
        input_shape: Height, width and channels of the image. By default those of the data of the
            family: 32x32x3 or 224x224x3.
        classes: Number of classes, by default 10 or 1000.
        **fields: Fields of the specification.

    Raises:
        ReszooError: As `spec` does, and for an input that the model does not take.
    """
    spec = get_spec(model, **fields)
    shape = spec.default_input_shape if input_shape is None else input_shape
    check_input(spec, shape)
    if None in shape:
        raise ReszooError(
            f"{spec.name}: input_shape: {shape} is invalid; expected a size, on which MACs depend. "
            f"Example: input_shape={spec.default_input_shape}"
        )
    classes = spec.default_classes if classes is None else classes
    check_classes(spec, classes)
    parts = tuple(_Counter(spec, *shape).parts(classes))
    return Count(
        depth=sum(part.main for part in parts),
        parameters=sum(part.parameters for part in parts),
        state=sum(part.state for part in parts),
        macs=sum(part.macs for part in parts),
        parts=parts,
    )


class _Counter:
    """Walks through a model with the shape of the current map."""

    def __init__(self, spec: Spec, height: int, width: int, channels: int) -> None:
        self.spec = spec
        self.height, self.width, self.channels = height, width, channels

    @property
    def shape(self) -> Shape:
        return self.height, self.width, self.channels

    def halve(self) -> None:
        self.height, self.width = math.ceil(self.height / 2), math.ceil(self.width / 2)

    def conv(
        self, place: str, out: int, kernel: int, stride: int = 1, groups: int = 1,
        bias: bool = False, main: bool = True,
    ) -> Part:  # fmt: skip
        if stride == 2:
            self.halve()
        weights = kernel * kernel * (self.channels // groups) * out
        self.channels = out
        cost = weights * self.height * self.width
        gains = out if self.spec.norm == "scaled_weight" and "gate" not in place else 0
        return Part(place, self.shape, weights + out * bias + gains, 0, cost, main)

    def norm(self, place: str) -> Iterator[Part]:
        if self.spec.norm == "batch":
            yield Part(place, self.shape, 2 * self.channels, 2 * self.channels)
        elif self.spec.norm == "group":
            yield Part(place.replace("bn", "gn"), self.shape, 2 * self.channels)

    def scalars(self, place: str, number: int) -> Iterator[Part]:
        if self.spec.initialization == "fixup":
            yield Part(f"{place}_scalars", self.shape, number)

    def parts(self, classes: int) -> Iterator[Part]:
        """Yield all layers with weights."""
        yield from self.stem()
        for stage, blocks in enumerate(self.spec.depths):
            for index in range(blocks):
                yield from self.block(stage, index)
        if self.spec.order == "pre":
            yield from self.norm("head_bn")
        yield from self.scalars("head", 1)
        weights = self.channels * classes
        yield Part("head_dense", (1, 1, classes), weights + classes, 0, weights, True)

    def stem(self) -> Iterator[Part]:
        spec, width = self.spec, self.spec.stem_width
        convs = {
            "cifar": [(width, 3, 1)],
            "deep": [(width // 2, 3, 2), (width // 2, 3, 1), (width, 3, 1)],
            "rs": [(width // 2, 3, 2), (width // 2, 3, 1), (width, 3, 1), (width, 3, 2)],
        }.get(spec.stem, [(width, 7, 2)])
        bias = spec.has_bias(normed=spec.stem != "bare")
        for index, (out, kernel, stride) in enumerate(convs, 1):
            yield self.conv(f"stem_conv{index}", out, kernel, stride, bias=bias)
            if spec.stem != "bare":
                yield from self.norm(f"stem_bn{index}")
                yield from self.scalars("stem", 1)
        if spec.stem not in ("cifar", "rs"):
            self.halve()  # the pooling

    def block(self, stage: int, index: int) -> Iterator[Part]:
        spec, entry = self.spec, self.channels
        place = f"stage{stage + 1}_block{index + 1}"
        stride = spec.stride(stage, index)
        out, inner = spec.out_channels(stage), spec.inner_channels(stage)
        convs = [(out, 3, stride, 1), (out, 3, 1, 1)]
        if spec.block == "bottleneck":
            first, second = (stride, 1) if spec.stride_at == "conv1" else (1, stride)
            convs = [(inner, 1, first, 1), (inner, 3, second, spec.groups), (out, 1, 1, 1)]
        own, shape = find_part("block", spec.block), self.shape
        if own:
            convs = []
            if stride == 2:
                self.halve()
            self.channels = out
            numbers = own.numbers(shape, out, stride)
            yield Part(f"{place}_own", self.shape, *numbers, main=own.depth)
        normed_last = spec.order not in ("pre", "bn_after_add")
        for number, (filters, kernel, step, groups) in enumerate(convs, 1):
            # The batch norm of the stem is the one before the first block.
            is_first = stage == index == 0 and number == 1 and spec.stem != "bare"
            if spec.order == "pre" and not is_first:
                yield from self.norm(f"{place}_bn{number}")
            normed = number < len(convs) or normed_last
            bias = spec.has_bias(normed=normed)
            yield self.conv(f"{place}_conv{number}", filters, kernel, step, groups, bias)
            if normed and spec.order != "pre":
                yield from self.norm(f"{place}_bn{number}")
        yield from self.scalars(place, 2 * len(convs) + 1)
        if spec.se_ratio:
            squeezed = max(1, round(out * spec.se_ratio))
            weights = 2 * out * squeezed
            yield Part(f"{place}_se", self.shape, weights + squeezed + out, 0, weights)
        if spec.rezero:
            yield Part(f"{place}_rezero", self.shape, 1)
        if own := find_part("shortcut", spec.shortcut):
            yield Part(f"{place}_shortcut", self.shape, *own.numbers(shape, out, stride))
        changes = entry != out or (stride == 2 and spec.shrink_at == "first")
        if spec.shortcut == "C" or (spec.shortcut == "B" and changes):
            self.channels = entry
            normed = normed_last and spec.shortcut_bn
            bias = spec.has_bias(normed=normed)
            yield self.conv(f"{place}_shortcut_conv", out, 1, bias=bias, main=False)
            if normed:
                yield from self.norm(f"{place}_shortcut_bn")
        if spec.gate != "none":
            yield self.conv(f"{place}_gate_conv", out, 1, bias=True, main=False)
        if spec.order == "bn_after_add":
            yield from self.norm(f"{place}_bn{len(convs)}")
