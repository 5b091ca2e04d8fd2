"""Updates, averages, schedules and layer decay against torch's and timm's own code, in float64."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from reszoo.config.optimizer import SGD, Lamb, OptimizerConfig
from reszoo.config.schedule import CosineSchedule
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.models.build import build
from reszoo.training.devices import precision
from reszoo.training.optimizers import make_optimizer
from reszoo.training.reduction import find_statistics
from reszoo.training.weight_update import WeightUpdate, learning_rate_factors

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not PYTHON, reason="RESZOO_PEER names no Python with torch and timm"),
]

STEPS, PER_EPOCH, EPOCHS = 12, 5, 12
MOMENTUM: dict[str, Any] = {
    "velocity": "gradients", "weight_decay": 0.1, "no_decay": ["*/gamma", "*/beta"],
}  # fmt: skip
Arrays = dict[str, np.ndarray]


def make_update(config: OptimizerConfig, train: TrainConfig) -> tuple[WeightUpdate, keras.Model]:
    """An update of a small model in float64."""
    with precision("float64"):
        inputs = keras.Input((3, 3, 2))
        x = keras.layers.Conv2D(4, 3, use_bias=False, name="stage1_block1_conv1")(inputs)
        x = keras.layers.BatchNormalization(name="stage1_block1_bn1")(x)
        x = keras.layers.Dense(3, name="head_dense")(keras.layers.Flatten()(x))
        model = keras.Model(inputs, x)
        strategy, statistics = tf.distribute.get_strategy(), list(find_statistics(model))
        optimizer = make_optimizer(config)
        return WeightUpdate(
            model, optimizer, config, strategy, train, FinetuneConfig(), statistics
        ), model


@pytest.fixture(scope="module")
def job() -> Arrays:
    """Weights, and gradients, statistics and a learning rate for each step."""
    rng = np.random.default_rng(0)
    shapes = ((3, 3, 2, 4), (4,), (4,), (4, 3), (3,))
    found: Arrays = {
        "rates": rng.uniform(0.01, 0.2, STEPS).astype(np.float32),
        "per_epoch": np.array(PER_EPOCH),
    }
    for what in ("start", *(f"gradient{step}_" for step in range(STEPS))):
        found |= {f"{what}{at}": rng.normal(size=shape) for at, shape in enumerate(shapes)}
    return found | {f"statistics{step}": rng.uniform(size=(2, 4)) for step in range(STEPS)}


@pytest.fixture(scope="module")
def theirs(job: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    folder = tmp_path_factory.mktemp("originals")
    np.savez(folder / "job.npz", **job)
    program = Path(__file__).with_name("original_updates.py")
    command = [PYTHON, str(program), str(folder / "job.npz"), str(folder / "result.npz")]
    subprocess.run(command, check=True, timeout=300)
    return dict(np.load(folder / "result.npz"))


def compare(ours: list[Any], theirs: Arrays, case: str) -> None:
    """Arrays of Keras against those of PyTorch, by their order."""
    for at, each in enumerate(ours):
        array = each.numpy()
        array = np.transpose(array, (*reversed(range(array.ndim)[-2:]), *range(array.ndim - 2)))
        np.testing.assert_allclose(array, theirs[f"{case}{at}"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("case", "config", "train"),
    [
        ("momentum", SGD(**MOMENTUM), {}),
        ("nesterov", SGD(nesterov=True, **MOMENTUM), {}),
        ("value", SGD(**MOMENTUM), {"clip_value": 0.3}),
        ("agc", SGD(**MOMENTUM), {"clip_adaptive": 0.3}),
        (
            "lamb",
            Lamb(decay="update", weight_decay=0.1, decay_norms=False, epsilon=1e-6),
            {"clip_norm": 1.0},
        ),
    ],
)
def test_updates_are_those_of_torch_and_timm(
    case: str, config: OptimizerConfig, train: dict[str, float], job: Arrays, theirs: Arrays
) -> None:
    settings = TrainConfig(batch_size=1, steps=1, **train)  # type: ignore[arg-type]
    update, _ = make_update(config, settings)
    for at, weight in enumerate(update.weights):
        weight.assign(job[f"start{at}"])
    for step, rate in enumerate(job["rates"]):
        gradients = [tf.constant(job[f"gradient{step}_{at}"]) for at in range(5)]
        gradients = update.regularize(gradients, update.weights, {})
        update.apply(gradients, tf.constant(rate), tf.constant(0.0, tf.float64), range(5))
    compare(update.weights, theirs, case)


@pytest.mark.parametrize(
    ("case", "keys"),
    [
        ("torchvision", {"ema_every": 2, "ema_start": 1.0}),
        ("timm", {"ema_start": 0.0}),
        ("timm_warmup", {"ema_start": 0.0, "ema_warmup": 2 / 3}),
    ],
)
def test_averages_are_those_of_torchvision_and_timm(
    case: str, keys: dict[str, Any], job: Arrays, theirs: Arrays
) -> None:
    train = TrainConfig(batch_size=1, steps=1, ema=0.8, ema_batch_norm=True, **keys)
    update, model = make_update(SGD(), train)
    for step in range(STEPS):
        for at, weight in enumerate(update.weights):
            weight.assign(job[f"gradient{step}_{at}"])
        moving = [each for each in model.variables if each.path.endswith(("mean", "variance"))]
        for variable, value in zip(moving, job[f"statistics{step}"], strict=True):
            variable.assign(value)
        share = tf.constant(train.ema_share(step, PER_EPOCH), tf.float64)
        still = [tf.zeros_like(weight.value) for weight in update.weights]
        update.apply(still, tf.constant(0.0), share, range(5))
    compare(update.averages, theirs, case)


@pytest.mark.parametrize(
    ("original", "keys"),
    [
        ("torchvision", {"warmup_start": 0.005, "final_rate": 0.002, "every": "epoch"}),
        ("timm True", {"every": "epoch"}),
        ("timm False", {}),
    ],
)
def test_learning_rates_are_those_of_torchvision_and_timm(
    original: str, keys: dict[str, Any], theirs: Arrays
) -> None:
    timm = {"warmup_start": 0.1, "final_rate": 0.01, "include_warmup": original != "torchvision"}
    config = CosineSchedule(kind="cosine", rate=0.5, unit="epochs", warmup=3, **(timm | keys))
    total = EPOCHS * PER_EPOCH
    terms = {"total_steps": total, "steps_per_epoch": PER_EPOCH, "batch_size": 1}
    ours = [config.rate_at(step, **terms) for step in range(total)]  # type: ignore[arg-type]
    np.testing.assert_allclose(ours, theirs[f"rates {original}"], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "other"), [("resnet18", "resnet18"), ("resnet18_v2", "resnetv2_18")]
)
def test_layer_decay_is_timms(name: str, other: str, theirs: Arrays) -> None:
    """The set of factors of each block, of the stem and of the classifier."""
    model, expected = build(name), dict[str, set[float]]()
    for key, scale in json.loads(str(theirs["scales"]))[other].items():
        found = re.match(r"(?:layer|stages\.)(\d)\.(?:blocks\.)?(\d)", key)
        group = (
            "head" if key.startswith(("fc", "head")) else "head_bn" if key[:4] == "norm" else "stem"
        )
        if found:
            stage = int(found[1]) + key.startswith("stages")
            group = f"stage{stage}_block{int(found[2]) + 1}"
        expected.setdefault(group, set()).add(round(scale, 12))
    factors = learning_rate_factors(model, FinetuneConfig(block_decay=0.7))
    ours: dict[str, set[float]] = {}
    for weight in model.trainable_variables:
        found = re.match(r"stage\d_block\d|head_bn|head|stem", weight.path)
        assert found
        ours.setdefault(found[0], set()).add(round(factors[id(weight)], 12))
    assert ours == expected
