"""Evaluate several views of each image: the probabilities of all views are averaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from reszoo.data.batches import Batch, Batches, keep_order
from reszoo.data.dataset import Split
from reszoo.data.stream_batches import unpacked
from reszoo.errors import ReszooError
from reszoo.images.decoding import decode_file
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.views import Views
from reszoo.lazy import tf
from reszoo.types import Tensor


def load_views(
    split: Split, preprocessing: Preprocessing, views: Views, *, batch_size: int
) -> Batches:
    """Return the views of each example once, in stored order, and its label.

    Args:
        split: The examples.
        preprocessing: As `Views.adapt` returns it.
        views: Which views.
        batch_size: Views per batch; a batch holds at least one image.

    Returns:
        Batches of float32 [b, views, height, width, channels] and int32 [b]. With scales, single
        examples: one float32 [1 or 2, h, w, channels] per scale, and an int32 scalar.
    """

    def load(*element: Any) -> tuple[Any, Tensor]:
        image, label = unpacked(split.load)(*element)
        if image.dtype == tf.string:
            image = decode_file(image, preprocessing.channels)
        take = views.rescale if views.scales else views.cut
        return take(image, preprocessing), label

    examples = split.elements().map(load, num_parallel_calls=tf.data.AUTOTUNE)
    if not views.scales:
        examples = examples.batch(max(1, batch_size // views.count))
    batches: Batches = keep_order(examples.prefetch(tf.data.AUTOTUNE))
    return batches


class MeanOfViews:
    """A model of several views of each image, for `Evaluator`.

    Args:
        model: Maps float32 images [n, h, w, c] to logits [n, classes].
        multi_label: Whether each logit has its own sigmoid.
    """

    def __init__(self, model: keras.Model, *, multi_label: bool = False) -> None:
        self.model, self.output_shape = model, model.output_shape
        self.multi_label = multi_label

    def __call__(self, images: Tensor, *, training: bool) -> Tensor:
        """Return logits of the mean probabilities.

        Args:
            images: Float32 [n, views, h, w, c].
            training: Passed to the model.

        Returns:
            Float32 [n, classes].
        """
        _, views, *shape = images.shape
        logits = self.model(tf.reshape(images, [-1, *shape]), training=training)
        logits = tf.reshape(logits, [-1, views, logits.shape[-1]])
        return mean_probabilities(logits, multi_label=self.multi_label)


class Probabilities:
    """A model whose inputs are its outputs, for `Evaluator`.

    Args:
        classes: The number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.output_shape = (None, classes)

    def __call__(self, inputs: Tensor, *, training: bool) -> Tensor:
        """Return the inputs, float32 [n, classes]."""
        return inputs


def evaluate_scales(
    model: keras.Model, examples: Iterable[Batch], *, pixels: int, multi_label: bool = False
) -> Iterator[Batch]:
    """Apply a model as a convolution to each scale of each image, on one device.

    The last maps of any size are averaged before the classifier, which is linear: this equals the
    mean of the classifier's logits over all places.

    Args:
        model: Maps float32 images [n, h, w, c] to logits [n, classes].
        examples: As `load_views` returns them for scales. Neighbors of one size are batched.
        pixels: Pixels per batch, at most; a batch holds at least one image.
        multi_label: Whether each logit has its own sigmoid.

    Yields:
        Logits of the mean probabilities, float32 [n, classes], and the labels.

    Raises:
        ReszooError: If the model takes images of one size only.
    """
    inputs = keras.Input((None, None, model.input_shape[-1]), dtype="float32", name="images")
    try:
        flexible = keras.models.clone_model(model, input_tensors=inputs)
    except ValueError as error:
        raise ReszooError(
            f"scales: {model.name} takes images of one size only; expected a model that averages "
            "its last maps"
        ) from error
    flexible.set_weights(model.get_weights())

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec((None, *inputs.shape[1:]), tf.float32)]
    )
    def predict(images: Tensor) -> Tensor:
        return tf.cast(flexible(images, training=False), tf.float32)

    for shapes, group in itertools.groupby(examples, lambda one: [tuple(v.shape) for v in one[0]]):
        count, largest = shapes[0][0], max(math.prod(shape[:3]) for shape in shapes)
        while chunk := list(itertools.islice(group, max(1, pixels // largest))):
            scales = zip(*(views for views, _ in chunk), strict=True)
            logits = [predict(tf.concat(views, axis=0)) for views in scales]
            rows = [tf.reshape(each, [-1, count, each.shape[-1]]) for each in logits]
            mean = mean_probabilities(tf.concat(rows, axis=1), multi_label=multi_label)
            yield mean, tf.stack([one for _, one in chunk])


def mean_probabilities(logits: Tensor, *, multi_label: bool = False) -> Tensor:
    """Return logits of the mean probabilities over views.

    Args:
        logits: Float [n, views, classes].
        multi_label: Whether each logit has its own sigmoid.

    Returns:
        Float32 [n, classes]. Without `multi_label`, the logarithms of the probabilities.
    """
    logits = tf.cast(logits, tf.float32)
    if multi_label:  # the logarithm of the mean of p, less that of the mean of 1 - p
        yes, no = (tf.reduce_logsumexp(tf.math.log_sigmoid(s * logits), axis=1) for s in (1, -1))
        return yes - no
    log = tf.nn.log_softmax(logits)
    return tf.reduce_logsumexp(log, axis=1) - math.log(logits.shape[1])
