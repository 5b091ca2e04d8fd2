"""How alike two models are: linear CKA, linear probes, and stitching at the ends of blocks.

Batch norm uses the statistics of training everywhere, which nothing here changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, Tensor
from reszoo.zoo.layer_names import parse_block_layer, parse_layer_group

BATCH = 128
GRID = 4  # a probe reads maps that are averaged to at most 4 x 4
RIDGE = 0.1  # of a probe, on standardized features
STITCH_RATE = 3e-3
STITCH_STEPS = 60


def block_outputs(model: keras.Model) -> dict[str, Tensor]:
    """Return the outputs of the stem and of each residual block, by name and in order.

    Raises:
        ReszooError: For a model that reszoo did not build.
    """
    found = {}
    for layer in model.layers:
        block = parse_block_layer(layer.name)
        if block or parse_layer_group(layer.name) == "stem":
            found[block.block_name if block else "stem"] = layer.output
    if len(found) < 2:
        raise ReszooError(f"{model.name} has no layers named stage1_block1_...")
    return found


def similarity_profile(model: keras.Model, images: Array) -> dict[str, Array]:
    """Return the centered Gram matrix of each block's output on images, of length 1.

    The scalar product of two of them is the linear CKA of the two outputs.

    Args:
        model: A model that `build` made.
        images: float32 [n, h, w, c], as the model takes them.

    Returns:
        Arrays [n * n], by the names of `block_outputs`.

    Reference: arXiv 1905.00414, section 3.
    """
    return {name: unit_gram(values) for name, values in _maps(model, images).items()}


def linear_cka(one: Mapping[str, Array], other: Mapping[str, Array]) -> Array:
    """Return the linear CKA [p, q] of p and q outputs, from two `similarity_profile`."""
    matrix: Array = np.stack(list(one.values())) @ np.stack(list(other.values())).T
    return matrix.astype(np.float64)


def unit_gram(values: Array) -> Array:
    """Return the centered Gram matrix of outputs [n, ...] as a vector [n * n] of length 1."""
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(0)
    gram = flat @ flat.T
    return np.ravel(gram / max(float(np.linalg.norm(gram)), 1e-30))


def probe_accuracies(
    model: keras.Model, train: tuple[Array, Array], test: tuple[Array, Array]
) -> dict[str, float]:
    """Return the test accuracy of a linear classifier on the output of each block.

    The classifier is ridge regression on the classes. Its features are the maps, averaged to at
    most 4 x 4 pixels and standardized.

    Args:
        model: A model that `build` made.
        train: Images [n, h, w, c] and labels [n] that the classifiers are fitted on.
        test: Those that they are tested on.

    Reference: arXiv 1610.01644, section 3.
    """
    features, others = (_maps(model, images, pooled=True) for images, _ in (train, test))
    return {
        name: float((classify_linearly(features[name], train[1], others[name]) == test[1]).mean())
        for name in features
    }


def classify_linearly(train: Array, labels: Array, test: Array) -> Array:
    """Return the class of each row of `test` by ridge regression on standardized features."""
    train, test = (values.reshape(len(values), -1).astype(np.float64) for values in (train, test))
    mean, deviation = train.mean(0), train.std(0)
    scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
    x, y = (train - mean) * scale, np.eye(int(labels.max()) + 1)[labels]
    weights = np.linalg.solve(
        x.T @ x / len(x) + RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean(0)) / len(x)
    )
    classes: Array = ((test - mean) * scale @ weights + y.mean(0)).argmax(1)
    return classes


def stitch_error(
    front: keras.Model,
    back: keras.Model,
    at: tuple[str, str],
    train: tuple[Array, Array, Array],
    test: tuple[Array, Array],
    *,
    steps: int = STITCH_STEPS,
) -> float:
    """Return the test error in percent of a front of one model with the back of another.

    A 1x1 convolution with a bias connects them. It starts as the least-squares map from the one
    output to the other, and learns to classify by Adam. Both models are frozen.

    Args:
        front: The model whose blocks up to `at[0]` are used.
        back: The model whose blocks after `at[1]` are used. Its layers are frozen afterwards.
        at: Names of blocks, with maps of one height and width.
        train: Images as `front` takes them, the same images as `back` takes them, and labels.
        test: Images as `front` takes them, and labels.
        steps: Of 128 images, at least, in whole epochs; 0 keeps the least-squares map.

    Raises:
        ReszooError: If the maps differ in height or width.

    Reference: arXiv 2106.07682, section 2.
    """
    outputs = block_outputs(front)[at[0]], block_outputs(back)[at[1]]
    if outputs[0].shape[1:3] != outputs[1].shape[1:3]:
        raise ReszooError(f"{at[0]} of {front.name} and {at[1]} of {back.name} differ in size")
    head = keras.Model(front.input, outputs[0])
    sent = predict(head, train[0])
    wanted = predict(keras.Model(back.input, outputs[1]), train[1])
    rest = keras.Model(outputs[1], back.output)
    rest.trainable = False
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(wanted.shape[-1], 1, name="stitch")
    entry = keras.Input(sent.shape[1:])
    stitched = keras.Model(entry, rest(convolution(entry), training=False))
    convolution.set_weights(fit_linear_map(sent, wanted))
    stitched.compile(
        keras.optimizers.Adam(STITCH_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    if steps:
        epochs = -(-steps * BATCH // len(sent))
        stitched.fit(sent, train[2], batch_size=BATCH, epochs=epochs, verbose=0)
    logits = predict(stitched, predict(head, test[0]))
    return float(100 * (logits.argmax(1) != test[1]).mean())


def fit_linear_map(sent: Array, wanted: Array) -> list[Array]:
    """Return kernel [1, 1, c, d] and bias [d] of the best linear map of pixels."""
    x, y = (values.reshape(-1, values.shape[-1]).astype(np.float64) for values in (sent, wanted))
    centered = x - x.mean(0)
    covariance = centered.T @ centered
    kernel = np.linalg.lstsq(covariance, centered.T @ (y - y.mean(0)), rcond=1e-7)[0]
    return [kernel[None, None], y.mean(0) - x.mean(0) @ kernel]


def calibrate(model: keras.Model, images: Array) -> None:
    """Give batch norms the statistics of images, as an untrained model lacks them."""
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images[:BATCH], training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _maps(model: keras.Model, images: Array, *, pooled: bool = False) -> dict[str, Array]:
    outputs = block_outputs(model)
    if pooled:
        outputs = {name: _pool(tensor) for name, tensor in outputs.items()}
    found = predict(keras.Model(model.input, list(outputs.values())), images)
    return dict(zip(outputs, found, strict=True))


def _pool(tensor: Tensor) -> Tensor:
    size = max(1, tensor.shape[1] // GRID), max(1, tensor.shape[2] // GRID)
    return keras.layers.AveragePooling2D(size)(tensor)


def predict(model: keras.Model, images: Array) -> Array:
    """Return the outputs of a model in inference, without a progress bar."""
    outputs: Array = model.predict(images, batch_size=BATCH, verbose=0)
    return outputs
