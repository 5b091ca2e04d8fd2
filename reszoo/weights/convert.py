"""Tensors of any layout into a net, and a net's weights out into another layout, with an account of every tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.weights.candidates import COUNTS
from reszoo.weights.layouts import Layout, detect, get_layout
from reszoo.zoo.spec import Spec

HEAD = "head_dense"
ENTRY = "stem_conv1/kernel"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of every tensor.

    layout: whose names the file has. matched: from our `layer/variable` to the file's name. missing: ours that the file
    lacks. left_over: the file's that the net has no place for. wrong_shape: (ours, theirs, shape in the file, shape here).
    new: ours left as they started on purpose, because the classes differ. adapted: ours changed to other input channels.
    """

    layout: str
    matched: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    wrong_shape: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list
    )
    new: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the net and of the file found its place."""
        return not (self.missing or self.left_over or self.wrong_shape)

    @property
    def lacks_head(self) -> bool:
        """Whether the file fits in everything but a classifier, which it does not hold."""
        head = f"{HEAD}/"
        return (
            bool(self.missing)
            and not self.wrong_shape
            and all(name.startswith(head) for name in self.missing)
        )

    @property
    def reason(self) -> str:
        """The first thing wrong in words, or ""."""
        counts = (len(self.missing), len(self.left_over), len(self.wrong_shape))
        more = f" ({sum(counts)} tensors do not fit in all)" if sum(counts) > 1 else ""
        if self.wrong_shape:
            ours, theirs, there, here = self.wrong_shape[0]
            return (
                f"'{ours}' has shape {list(here)} here and {list(there)} there ('{theirs}'){more}"
            )
        if self.missing:
            return f"'{self.missing[0]}' is in the net only{more}"
        if self.left_over:
            return f"'{self.left_over[0]}' is in the file only{more}"
        return ""


def variables(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield (`layer/variable`, variable) for each weight of a net that `build` made."""
    for layer in model.layers:
        for variable in layer.weights:
            if variable.name != "seed_generator_state":
                yield f"{layer.name}/{variable.name}", variable


def assign(
    model: Any,
    net: Spec,
    arrays: Mapping[str, np.ndarray],
    *,
    layout: str | None = None,
    other_classes: bool = False,
) -> Conversion:
    """Put a file's tensors into the weights of `model`, which is `net`; all of them, or none where something does not fit.

    layout: whose names the tensors have, found out when left out. other_classes: keep the classifier as it is where
    the file's is for another number of classes, or there is none in it. A first convolution of another number of
    input channels is adapted: summed to one, repeated and scaled to more (as timm does). A file's classifier that the
    model has none for, or a new one for, is passed over.
    Raises ReszooError where the layout's nets compute something else than `net`, and for tensors that hold no numbers.
    """
    scheme = get_layout(layout or detect(arrays))
    refuse_misfit(net, scheme)
    arrays = {scheme.current(key): array for key, array in arrays.items()}
    found = Conversion(layout=scheme.name)
    chosen: list[tuple[Any, np.ndarray]] = []
    used = set()
    own = dict(variables(model))
    head = f"{scheme.layer(HEAD, net)}{scheme.joint}"
    renewed = other_classes and _is_of_other_classes(own, arrays, scheme, net)
    for name, variable in own.items():
        key = scheme.key(name, net)
        if renewed and name.startswith(f"{HEAD}/"):
            found.new.append(name)
            used.add(key)
            continue
        if key not in arrays:
            found.missing.append(name)
            continue
        used.add(key)
        array, shape = scheme.to_ours(_numbers(arrays[key], key)), tuple(variable.shape)
        if name == ENTRY and array.shape != shape and _same_but_channels(array.shape, shape):
            array = adapt_channels(array, shape[2])
            found.adapted.append(name)
        if array.shape != shape:
            found.wrong_shape.append((name, key, array.shape, shape))
        else:
            found.matched[name] = key
            chosen.append((variable, array))
    for key in arrays:
        # A projection head of self-supervised training ("fc.0.weight") is passed over like a classifier.
        no_place = (renewed or f"{HEAD}/kernel" not in own) and key.startswith(head)
        if key not in used and not key.endswith(COUNTS) and not no_place:
            found.left_over.append(key)
    if found.complete:
        for variable, array in chosen:
            variable.assign(array)
    return found


def export_arrays(model: Any, net: Spec, layout: str) -> dict[str, np.ndarray]:
    """Return the weights of `model`, which is `net`, by the names and in the axes of another framework's layout.

    Raises ReszooError where the layout's nets compute something else than `net`.
    """
    scheme = get_layout(layout)
    refuse_misfit(net, scheme)
    arrays = {}
    for name, variable in variables(model):
        key = scheme.key(name, net)
        arrays[key] = np.array(
            scheme.to_theirs(np.asarray(variable.numpy(), np.float32)), order="C"
        )
        if scheme.torch and name.endswith("/moving_variance"):
            arrays[f"{key.rpartition('.')[0]}.num_batches_tracked"] = np.asarray(0, np.int64)
    return arrays


def refuse_misfit(net: Spec, layout: Layout) -> None:
    """Raise ReszooError where a publisher's nets compute something else than `net`, though shapes may agree."""
    if reason := layout.misfit(net):
        raise ReszooError(f"{net.name} cannot have {layout.name}'s weights: {reason}")


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return a first kernel [h, w, c, out] for another number of input channels.

    One: the sum over channels, which sees a grey image as the net saw it in colour. More: repeated and scaled by
    c / channels, which keeps the size of what leaves (timm/models/_manipulate.py, adapt_input_conv).
    """
    own = kernel.shape[2]
    if channels == 1:
        summed: np.ndarray[Any, np.dtype[Any]] = kernel.sum(axis=2, keepdims=True)
        return summed
    repeated = np.concatenate([kernel] * math.ceil(channels / own), axis=2)[:, :, :channels]
    adapted: np.ndarray[Any, np.dtype[Any]] = repeated * (own / channels)
    return adapted


def _is_of_other_classes(
    own: Mapping[str, Any], arrays: Mapping[str, np.ndarray], scheme: Layout, net: Spec
) -> bool:
    """Return whether a file's classifier is for another number of classes than the model's, or there is none in it."""
    kernel = own.get(f"{HEAD}/kernel")
    if kernel is None:
        return False
    theirs = arrays.get(scheme.key(f"{HEAD}/kernel", net))
    if theirs is None:
        return scheme.key(f"{HEAD}/bias", net) not in arrays
    features, classes = tuple(kernel.shape)
    shape = scheme.to_ours(np.asarray(theirs)).shape
    return len(shape) == 2 and shape[0] == features and shape[1] != classes


def _numbers(array: np.ndarray, key: str) -> np.ndarray:
    """Return a file's tensor in float32. Raises ReszooError where it holds no floating-point numbers, or no numbers at all."""
    if array.dtype.kind not in "fV":  # V: bfloat16 and its kin
        raise ReszooError(
            f"'{key}' holds {array.dtype} numbers, not floating-point ones: quantised or other weights are not read"
        )
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise ReszooError(f"'{key}' holds values that are no numbers (NaN or infinity)")
    return array


def _same_but_channels(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) == 4 and (*one[:2], one[3]) == (*other[:2], other[3])
