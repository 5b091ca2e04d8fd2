"""Explain predictions: Grad-CAM maps as overlays of the images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import keras
import matplotlib
import numpy as np
from PIL import Image

from reszoo.errors import ReszooError, did_you_mean
from reszoo.evaluation.gradcam import GradCam
from reszoo.evaluation.inputs import Images
from reszoo.evaluation.multilabel import to_probabilities
from reszoo.evaluation.reading import read_batches, require_all
from reszoo.evaluation.source import Named, Source, open_source
from reszoo.files import write_bytes
from reszoo.images.preprocessing import Preprocessing
from reszoo.keywords import explain_keywords
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.types import Array

BATCH = 8
SIDE = 224  # shorter side that small images are enlarged to, in pixels
OPACITY = 0.7  # of the color where the map is largest


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """The Grad-CAM map of one image and one class.

    Attributes:
        path: The image file; for an array or bytes the index of the image, such as "[2]".
        label: The class that is explained.
        probability: Of this class, 0..1.
        map: float64 [h, w] >= 0, in the resolution of the layer: how much each place speaks for the
            class. All zeros if no place does.
        image: uint8 [height, width, 3], the image as the model sees it.
    """

    path: str
    label: str
    probability: float
    map: Array = field(repr=False)
    image: Array = field(repr=False)

    def overlay(self) -> Image.Image:
        """Return the image in gray with its map: transparent at 0, yellow at the largest value."""
        shown = enlarge(self.image).convert("L").convert("RGB")
        heat = self.map / (self.map.max() or 1)
        smooth = Image.fromarray(heat.astype(np.float32)).resize(
            shown.size, Image.Resampling.BILINEAR
        )
        heat = np.asarray(smooth)[..., np.newaxis].clip(0, 1)
        colors = 255 * matplotlib.colormaps["plasma"](heat[..., 0])[..., :3]
        mixed = np.asarray(shown) * (1 - OPACITY * heat) + colors * OPACITY * heat
        return Image.fromarray(np.rint(mixed).astype(np.uint8))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay as a PNG file, whole or not at all."""
        write_bytes(path, self._repr_png_())

    def _repr_png_(self) -> bytes:
        """Return the overlay for notebooks."""
        file = io.BytesIO()
        self.overlay().save(file, "PNG")
        return file.getvalue()


@explain_keywords
def explain(
    model: Named,
    images: Images,
    *,
    class_name: str | None = None,
    layer: str | None = None,
    weights: str | None = None,
) -> list[Explanation]:
    """Return which places of images speak for a class, as Grad-CAM maps.

    Args:
        model: A run or its folder, a model name with published weights, or a model built with them.
        images: As for `predict`.
        class_name: The class to explain; by default the predicted class of each image.
        layer: A layer, or a stage such as "stage2"; by default the last layer with maps.
        weights: Which published weights, for a model name; by default the model's first.

    Returns:
        One explanation per image, in the given order.

    Raises:
        ReszooError: The model is unknown, not trained to its end or without maps, it does not have
            the class or layer, or images cannot be read.

    Reference: arXiv 1610.02391, section 3.
    """
    source = open_source(model, weights)
    return require_all(list(explain_each(source, images, class_name=class_name, layer=layer)))


def explain_each(
    source: Source, images: Images, *, class_name: str | None = None, layer: str | None = None
) -> Iterator[Explanation | ReszooError]:
    """Yield for each image its explanation, or the error if it cannot be read; see `explain`."""
    names = source.class_names
    if class_name is not None and class_name not in names:
        raise ReszooError(
            f"class_name: {class_name!r} is invalid; expected a class of the model, such as "
            f"{names[0]!r}{did_you_mean(class_name, names)}"
        )
    chosen = None if class_name is None else names.index(class_name)
    with fixed_settings():
        explainer = Explainer(
            source.load(),
            source.preprocessing,
            names,
            layer or "",
            multi_label=source.multi_label,
        )
    for batch in read_batches(images, source.preprocessing, BATCH):
        readable = [(name, read) for name, read in batch if not isinstance(read, ReszooError)]
        with fixed_settings():
            found = iter(explainer(readable, [chosen] * len(readable)))
        for _, read in batch:
            yield read if isinstance(read, ReszooError) else next(found)


class Explainer:
    """Explains images with one model.

    Args:
        model: Maps float images to logits.
        preprocessing: Of the model.
        class_names: Of its logits.
        layer: As for `GradCam`.
        multi_label: Whether each logit has its own sigmoid.
    """

    def __init__(
        self,
        model: keras.Model,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        layer: str = "",
        *,
        multi_label: bool = False,
    ) -> None:
        self.model, self.preprocessing, self.class_names = model, preprocessing, class_names
        self.multi_label = multi_label
        self.gradcam = GradCam(model, layer)

    def __call__(
        self, images: Sequence[tuple[str, Array]], classes: Sequence[int | None]
    ) -> list[Explanation]:
        """Explain a batch of images.

        Args:
            images: For each image its name, and uint8 [height, width, channels].
            classes: For each image the class to explain; None for the predicted class.
        """
        if not images:
            return []
        inputs = self.preprocessing.apply(np.stack([pixels for _, pixels in images]))
        logits = tf.cast(self.model(inputs, training=False), tf.float32)
        probabilities = to_probabilities(logits, multi_label=self.multi_label).numpy()
        best = np.argmax(logits, axis=1)
        labels = [
            int(own) if label is None else label for label, own in zip(classes, best, strict=True)
        ]
        maps = self.gradcam(inputs, labels)
        return [
            Explanation(
                path=name,
                label=self.class_names[label],
                probability=float(row[label]),
                map=places,
                image=np.repeat(pixels, 3 // pixels.shape[-1], axis=-1),
            )
            for (name, pixels), label, row, places in zip(
                images, labels, probabilities, maps, strict=True
            )
        ]


def enlarge(image: Array) -> Image.Image:
    """Return an image, uint8 [h, w, 1 or 3], in RGB; of a small one each pixel as a square."""
    height, width, channels = image.shape
    factor = max(1, -(-SIDE // min(height, width)))
    size = (factor * width, factor * height)
    rgb = np.repeat(image, 3 // channels, axis=-1)
    return Image.fromarray(rgb).resize(size, Image.Resampling.NEAREST)
