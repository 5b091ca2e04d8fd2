"""From a name or a spec to a Keras functional model, and from a model to the maps its stages give."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras

from reszoo.errors import ReszooError
from reszoo.nets.blocks import block
from reszoo.nets.layers import norm, relu
from reszoo.nets.stems import stem
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.count import check_classes, check_input
from reszoo.zoo.spec import Spec


def build(
    name_or_spec: str | Spec,
    *,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    top: bool = True,
    **fields: Any,
) -> keras.Model:
    """Build a net by name or spec, with some spec fields changed, as a plain Keras functional model.

    Takes float images [n, height, width, channels], normalised as the recipe says; gives float32 logits [n, classes], or with
    top=False the pooled features [n, channels]. input_shape and classes default to the data the family was published on:
    (32, 32, 3) and 10, or (224, 224, 3) and 1000; a height or width of None takes any size. weights: a `.weights.h5` file
    of the same net, or None for fresh ones.

    Layers are named `stem_conv1`, `stage2_block1_conv2`, `..._bn2`, `..._shortcut_conv`, `..._add`, `head_dense`.
    Raises ReszooError for an unknown name (with the nearest), fields that contradict each other, an input the net cannot bear.
    """
    spec = get_spec(name_or_spec, **fields)
    shape = spec.default_input_shape if input_shape is None else input_shape
    check_input(spec, shape)
    if not top and classes is not None:
        raise ReszooError(
            f"{spec.name}: top=False leaves the classifier out, so classes={classes} has no place; drop one of the two"
        )
    classes = spec.default_classes if classes is None else classes
    check_classes(spec, classes)

    images = keras.Input(shape, name="images")
    x = stem(images, spec)
    done = 0
    for stage, blocks in enumerate(spec.depths):
        for index in range(blocks):
            x = block(x, spec, stage, index, first=done == 0, survival=spec.survival(done))
            done += 1
    if spec.order == "pre":
        x = norm(x, "head_bn")
    if spec.order in ("pre", "relu_pre"):
        x = relu(x, "head_relu")
    # In full precision under a mixed policy: sums over many pixels, and logits, lose too much in 16 bits.
    full = keras.config.dtype_policy().variable_dtype
    x = keras.layers.GlobalAveragePooling2D(name="head_pool", dtype=full)(x)
    if top:
        x = keras.layers.Dense(classes, kernel_initializer="he_normal", name="head_dense", dtype=full)(x)
    model = keras.Model(images, x, name=spec.name)
    if weights is not None:
        _load(model, weights)
    return model


def _load(model: keras.Model, weights: str | os.PathLike[str]) -> None:
    path = Path(weights)
    if not path.name.endswith(".weights.h5"):
        raise ReszooError(f"weights is '{weights}', but must be a .weights.h5 file that model.save_weights wrote")
    if not path.is_file():
        raise ReszooError(f"no weights file {path}")
    try:
        held = _shapes_in(path)
        wanted = {
            layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights
        }
        # Keras goes by the order of layers, in which different nets can agree. A classifier more than wanted does no harm.
        for name in sorted((wanted.keys() | held.keys()) - ({"head_dense"} - wanted.keys())):
            if name not in held or name not in wanted:
                raise ValueError(f"'{name}' is a layer of {'the net' if name in wanted else 'the file'} only")
            if held[name] != wanted[name]:
                raise ValueError(f"'{name}' has weights of shape {held[name]} there and {wanted[name]} here")
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ReszooError(f"{path} does not hold the weights of {model.name}: {reason}") from error


def _shapes_in(path: Path) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes of each layer's weights, by the layer's name, as Keras wrote them to a `.weights.h5` file."""
    with h5py.File(path) as file:
        entries = [layer["vars"] for layer in file["layers"].values() if "vars" in layer]
        return {str(e.attrs["name"]): [e[key].shape for key in sorted(e, key=int)] for e in entries if len(e)}


def features(model: keras.Model) -> keras.Model:
    """Return a model that gives the map of every stage: {"stage1": [n, h1, w1, c1], "stage2": ...}, for detection and the like.

    It shares the layers and weights of `model`, any net that `build` made. A stage's map is what leaves its last block; in
    a pre-activation net the last stage's is normalised and rectified as its classifier sees it.
    Raises ReszooError for a model without such layers.
    """
    ends: dict[str, Any] = {}
    for layer in model.layers:
        if match := re.match(r"(stage\d+)_block\d+_", layer.name):
            ends[match[1]] = layer.output
        elif layer.name in ("head_bn", "head_relu") and ends:
            ends[list(ends)[-1]] = layer.output
    if not ends:
        raise ReszooError(
            f"{model.name} has no layers named stage1_block1_...; features() takes a net that reszoo built"
        )
    return keras.Model(model.input, ends, name=f"{model.name}_features")
