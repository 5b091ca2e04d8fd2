"""Checkpoints of the tiny akamaster net, and the net that must come out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file

from reszoo import build

from .nets import NETS

NET = NETS["akamaster"]
CLASSES = 10
ARRAYS = load_file(Path(__file__).parent / "goldens" / "akamaster.safetensors")
ANSWERS = load_file(Path(__file__).parent / "goldens" / "akamaster-answers.safetensors")


def under(prefix: str, factor: float = 1.0, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The tensors with a prefix, the classifier's bias times `factor`, without those whose names start so."""
    return {
        prefix + name: array * np.float32(factor) if name == "linear.bias" else array
        for name, array in ARRAYS.items()
        if not name.startswith(without or ("?",))
    }


def loaded(path: Any, **arguments: Any) -> keras.Model:
    return build(
        NET, input_shape=(None, None, 3), weights=path, **({"classes": CLASSES} | arguments)
    )


def bias(model: keras.Model) -> np.ndarray:
    return np.asarray(model.get_layer("head_dense").bias)


def check_same(model: keras.Model, factor: float = 1.0) -> None:
    """Hold a model to PyTorch's answers; `factor` of the classifier's bias tells raw weights from averaged ones."""
    np.testing.assert_array_equal(bias(model), ARRAYS["linear.bias"] * np.float32(factor))
    if factor == 1.0:
        expected = ANSWERS["logits"]
        difference = (
            np.abs(np.asarray(model(ANSWERS["images"])) - expected).max() / np.abs(expected).max()
        )
        assert difference < 1e-5
