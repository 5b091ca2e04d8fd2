"""Tensors of any layout into a model, and a model's weights into another layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, Variable
from reszoo.weights.candidates import COUNTERS
from reszoo.weights.detection import detect_layout
from reszoo.weights.layouts import Layout, get_layout
from reszoo.zoo.spec import Spec

if TYPE_CHECKING:
    import keras

HEAD = "head_dense"
ENTRY = "stem_conv1/kernel"

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What happened to every tensor. Our names are `layer/variable`.

    Attributes:
        layout: The layout of the file.
        matched: From our name to the file's.
        missing: Our names that the file lacks.
        left_over: The file's names that the model has no place for.
        wrong_shape: (our name, the file's name, shape in the file, shape in the model).
        new: Our names that keep their initial values, because the classes differ.
        adapted: Our names that were changed to other input channels.
    """

    layout: str
    matched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    wrong_shape: list[tuple[str, str, Shape, Shape]] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model and of the file has its place."""
        return not (self.missing or self.left_over or self.wrong_shape)

    @property
    def lacks_head(self) -> bool:
        """Whether the file lacks a classifier and nothing else."""
        heads = [name.startswith(f"{HEAD}/") for name in self.missing]
        return bool(heads) and all(heads) and not self.wrong_shape

    @property
    def reason(self) -> str:
        """The first thing that does not fit; "" if everything does."""
        count = len(self.missing) + len(self.left_over) + len(self.wrong_shape)
        more = f" ({count} tensors do not fit in all)" if count > 1 else ""
        if self.wrong_shape:
            ours, theirs, there, here = self.wrong_shape[0]
            return (
                f"'{ours}' has shape {list(here)} here and {list(there)} there ('{theirs}'){more}"
            )
        if self.missing:
            return f"'{self.missing[0]}' is only in the model{more}"
        return f"'{self.left_over[0]}' is in the file only{more}" if self.left_over else ""


def variables(model: keras.Model) -> Iterator[tuple[str, Variable]]:
    """Yield (`layer/variable`, variable) for each weight of a model that `build` made."""
    for layer in model.layers:
        for variable in layer.weights:
            if variable.name != "seed_generator_state":
                yield f"{layer.name}/{variable.name}", variable


def assign(
    model: keras.Model,
    spec: Spec,
    arrays: Mapping[str, Array],
    *,
    layout: str | None = None,
    other_classes: bool = False,
) -> Conversion:
    """Assign a file's tensors to the weights of a model: all of them, or none if one does not fit.

    A first convolution of another number of input channels is adapted (`adapt_channels`). A file's
    classifier is skipped if the model has none, or a new one.

    Args:
        model: The model.
        spec: Its spec.
        arrays: The tensors by name.
        layout: Their layout; found by the names by default.
        other_classes: Keep the model's classifier if the file's has another number of classes, or
            the file lacks one.

    Raises:
        ReszooError: If the layout's models compute something else than `spec`, or tensors do not
            hold finite floating-point numbers.
    """
    scheme = get_layout(layout or detect_layout(arrays))
    check_layout(spec, scheme)
    arrays = {scheme.update_name(key): array for key, array in arrays.items()}
    found = Conversion(layout=scheme.name)
    chosen: list[tuple[Variable, Array]] = []
    used = set()
    own = dict(variables(model))
    head = f"{scheme.layer(HEAD, spec)}{scheme.separator}"
    renewed = other_classes and _has_other_classes(own, arrays, scheme, spec)
    for name, variable in own.items():
        key = scheme.find_name(name, spec)
        used.add(key)
        if renewed and name.startswith(f"{HEAD}/"):
            found.new.append(name)
            continue
        if key not in arrays:
            found.missing.append(name)
            continue
        array, shape = scheme.to_ours(_to_float32(arrays[key], key), name), tuple(variable.shape)
        if name == ENTRY and array.shape != shape and _differ_in_channels(array.shape, shape):
            array = adapt_channels(array, shape[2])
            found.adapted.append(name)
        if array.shape != shape:
            found.wrong_shape.append((name, key, array.shape, shape))
        else:
            found.matched[name] = key
            chosen.append((variable, array))
    # A projection head of self-supervised training ("fc.0.weight") is skipped like a classifier.
    skip_head = renewed or f"{HEAD}/kernel" not in own
    for key in arrays:
        if (
            key not in used
            and not key.endswith(COUNTERS)
            and not (skip_head and key.startswith(head))
        ):
            found.left_over.append(key)
    if found.complete:
        for variable, array in chosen:
            variable.assign(array)
    return found


def export_arrays(model: keras.Model, spec: Spec, layout: str) -> dict[str, Array]:
    """Return the weights of a model by the names and in the axes of another layout.

    Raises:
        ReszooError: If the layout's models compute something else than `spec`.
    """
    scheme = get_layout(layout)
    check_layout(spec, scheme)
    arrays = {}
    for name, variable in variables(model):
        key = scheme.find_name(name, spec)
        array = np.asarray(variable.numpy(), np.float32)
        arrays[key] = np.array(scheme.to_theirs(array, name), order="C")
        if scheme.torch and name.endswith("/moving_variance"):
            arrays[f"{key.rpartition('.')[0]}.num_batches_tracked"] = np.asarray(0, np.int64)
    return arrays


def check_layout(spec: Spec, layout: Layout) -> None:
    """Raise ReszooError if a publisher's models compute something else than `spec`."""
    if reason := layout.find_mismatch(spec):
        raise ReszooError(f"{spec.name} cannot have {layout.name}'s weights: {reason}")


def adapt_channels(kernel: Array, channels: int) -> Array:
    """Return a first kernel [h, w, c, out] for another number of input channels.

    One channel: the sum over channels, which sees a gray image as the model saw it in color. More:
    repeated and scaled by c / channels, which keeps the size of the output.

    Reference: timm/models/_manipulate.py, adapt_input_conv.
    """
    own = kernel.shape[2]
    if channels == 1:
        summed: Array = kernel.sum(axis=2, keepdims=True)
        return summed
    repeated = np.concatenate([kernel] * math.ceil(channels / own), axis=2)[:, :, :channels]
    adapted: Array = repeated * (own / channels)
    return adapted


def _has_other_classes(
    own: Mapping[str, Variable], arrays: Mapping[str, Array], scheme: Layout, spec: Spec
) -> bool:
    """Return whether a file's classifier has another number of classes, or is absent."""
    kernel = own.get(f"{HEAD}/kernel")
    if kernel is None:
        return False
    theirs = arrays.get(scheme.find_name(f"{HEAD}/kernel", spec))
    if theirs is None:
        return scheme.find_name(f"{HEAD}/bias", spec) not in arrays
    features, classes = tuple(kernel.shape)
    shape = scheme.to_ours(np.asarray(theirs), f"{HEAD}/kernel").shape
    return len(shape) == 2 and shape[0] == features and shape[1] != classes


def _to_float32(array: Array, key: str) -> Array:
    if array.dtype.kind not in "fV":  # V: bfloat16 and the like
        raise ReszooError(
            f"'{key}' holds {array.dtype} numbers, not floating-point ones: quantized weights are "
            "not supported"
        )
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise ReszooError(f"'{key}' holds values that are no numbers (NaN or infinity)")
    return array


def _differ_in_channels(one: Shape, other: Shape) -> bool:
    return len(one) == len(other) == 4 and (*one[:2], one[3]) == (*other[:2], other[3])
