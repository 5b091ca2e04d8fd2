"""The deepest models that train: the same steps as Keras' own, and the record of an experiment."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.data.embedded import load_digits
from reszoo.errors import ReszooError
from reszoo.lab.depth import FORMS, depth, train
from reszoo.models.build import build
from reszoo.zoo.count import count


def test_losses_are_those_of_keras_and_a_tape() -> None:
    """The same four steps by hand: SGD with momentum, a clipped gradient and a rising rate."""
    split = load_digits()["train"]
    images = split.images.astype(np.float32)
    images = (images - images.mean()) / images.std()
    keras.utils.set_random_seed(0)
    model = build("resnet8", input_shape=(8, 8, 1), widths=(8, 16, 32), stem_width=8, order="pre")
    optimizer, draw, expected = (
        keras.optimizers.SGD(0.2, momentum=0.9),
        np.random.default_rng(0),
        [],
    )
    for number in range(1, 5):
        chosen = draw.integers(0, len(images), 64)
        with tf.GradientTape() as tape:
            logits = model(images[chosen], training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(split.labels[chosen], logits)
            )
        gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        optimizer.learning_rate = 0.2 * number / 20
        optimizer.apply(gradients, model.trainable_variables)
        expected.append(float(loss))
    found = train("batch_norm", 8, 4, 0.2)
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert found["last"] == pytest.approx(expected[-1], rel=1e-4) and not found["trained"]


def test_depth_leaves_a_record_and_uses_finished_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def pretend(form: str, layers: int, steps: int, rate: float) -> dict[str, object]:
        """Plain models do not learn, models without normalization only if shallow or slowly."""
        calls.append((form, layers, rate))
        able = not form.startswith("plain") and (form != "none" or (layers < 14 and rate < 0.1))
        losses = [2.3] * (steps - 1) + [1.0 if able else None]
        seconds = {f"{part}_seconds": 1.0 for part in ("build", "first", "step", "processor")}
        return {
            "form": form, "layers": layers, "parameters": 1, "rate": rate, "loss": losses,
            "last": losses[-1], "trained": able, "gigabytes": 1.5, **seconds,
        }  # fmt: skip

    monkeypatch.setattr("reszoo.lab.depth.train", pretend)
    for _ in range(2):
        record = depth(
            tmp_path / "out", depths=(14, 8), steps=3, deepest=20, deepest_steps=2, quiet=True
        )
    found = record["results"]["measures"]
    assert (found["batch_norm_layers"], found["none_layers"], found["batch_norm_gain"]) == (
        14,
        8,
        1.75,
    )
    assert found["plain_orthogonal_tanh_layers"] == 0 and found["fixup_gain"] == 1
    assert found["deepest_minutes"] == pytest.approx(3 / 60)
    assert found["deepest_loss_share"] == pytest.approx(1 / 2.3)
    # Learning rates in turn, no greater depth after a failure, and nothing a second time.
    assert [call[1:] for call in calls if call[0] == "none"] == [
        (8, 0.2), (8, 0.05), (14, 0.2), (14, 0.05),
    ]  # fmt: skip
    assert [call[1:] for call in calls if call[0] == "plain_batch_norm"] == [(8, 0.2), (8, 0.05)]
    assert len(calls) == 4 + 3 * 2 + 4 * 2 + 1
    assert {"record.json", "report.html", "depth.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    with pytest.raises(ReszooError, match="6n"):
        depth(tmp_path / "other", depths=(9,))


def test_every_form_is_a_model() -> None:
    counts = {form: count("resnet8", **fields).parameters for form, fields in FORMS.items()}
    assert counts["plain_orthogonal_tanh"] == counts["none"] < counts["skipinit"] < counts["rezero"]
