"""Exact scores on Keras' JAX backend: `Evaluator` for batches that lie on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.evaluation.scores import Scores, Tally, refuse_other_outputs, score_rows


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
        tally = Tally(self.classes)
        # A batch's results are read while the next one is being computed, so that the device does not stand waiting.
        waiting = None
        for images, labels in batches:
            padded = np.pad(labels, (0, len(images) - len(labels)))
            done, waiting = waiting, (labels, self._score(trainable, state, images, padded))
            if done is not None:
                tally.add(done[0], [[column] for column in done[1]])
        if waiting is None:
            raise ReszooError("nothing to evaluate: the split holds no examples")
        tally.add(waiting[0], [[column] for column in waiting[1]])
        return tally.scores()
