"""Exact scores on Keras' JAX backend: `Evaluator` for batches that lie on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from reszoo.evaluation.scores import Scores, refuse_other_outputs, score_rows, scored


class ResidentEvaluator:
    """Scores one model, compiled once, with its weights of the moment.

    Raises ReszooError when the model does not give `classes` logits.
    """

    def __init__(self, model: Any, *, classes: int) -> None:
        import jax

        refuse_other_outputs(model, classes)
        self.classes, self._model = classes, model

        def score(trainable: list[Any], state: list[Any], images: Any, labels: Any) -> tuple[Any, Any, Any]:
            logits, _ = model.stateless_call(trainable, state, images, training=False)
            return score_rows(logits, labels)

        self._score = jax.jit(score)

    def __call__(self, batches: Iterable[tuple[Any, np.ndarray]]) -> Scores:
        """Score `batches` of (images on the device [m, h, w, c], labels int32 [n], n <= m; images past the labels do not count).

        Raises ReszooError when there is no example.
        """
        trainable, state = (
            [variable.value for variable in variables]
            for variables in (self._model.trainable_variables, self._model.non_trainable_variables)
        )

        def start(images: Any, labels: np.ndarray) -> tuple[np.ndarray, list[Any]]:
            padded = np.pad(labels, (0, len(images) - len(labels)))
            return labels, [[column] for column in self._score(trainable, state, images, padded)]

        return scored((start(images, labels) for images, labels in batches), self.classes)
