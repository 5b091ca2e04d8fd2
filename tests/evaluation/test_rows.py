"""The cells of predictions.csv with more than 100 classes, against NumPy's sorted probabilities."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from reszoo.evaluation.evaluator import Evaluator
from reszoo.evaluation.rows import COLUMNS, TOP

CLASSES = COLUMNS + 3
NAMES = [f"c{label}" for label in range(CLASSES)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_many_classes_have_columns_of_the_five_most_probable(multi_label: bool) -> None:
    inputs = keras.Input((CLASSES,))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (6, CLASSES)).astype(np.float32)
    logits[4, 7] = np.nan
    labels = random.integers(0, CLASSES, 6)
    targets = (random.random((6, CLASSES)) < 0.02).astype(np.float32)
    evaluator = Evaluator(model, classes=CLASSES, best=True, multi_label=multi_label, strategy=None)
    rows = evaluator.rows([(logits, targets if multi_label else labels)])
    head = rows.header(NAMES)
    first = ["true", "predicted"] + ([] if multi_label else ["probability", "true_probability"])
    assert head == [*first, *(f"{what}_{k}" for k in range(1, TOP + 1) for what in ("class", "p"))]
    wide = logits.astype(float)
    softmax = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    expected = 1 / (1 + np.exp(-wide)) if multi_label else softmax
    for number in (0, 1, 2, 3, 5):
        cells, best = rows.cells(number, NAMES), np.argsort(-expected[number])[:TOP]
        assert len(cells) == len(head)
        assert cells[len(first) :: 2] == [NAMES[label] for label in best]
        found = np.array(cells[len(first) + 1 :: 2], float)
        np.testing.assert_allclose(found, expected[number, best], rtol=1e-4)
        own, predicted = targets[number] > 0, expected[number] > 0.5
        true = ";".join(np.array(NAMES)[own]) if multi_label else NAMES[labels[number]]
        named = ";".join(np.array(NAMES)[predicted]) if multi_label else NAMES[best[0]]
        assert cells[:2] == [true, named]
    assert rows.cells(4, NAMES)[1:] == [""] * (len(head) - 1)
