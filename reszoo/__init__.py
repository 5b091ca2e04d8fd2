"""reszoo: residual networks in TensorFlow and Keras, to build, train, measure, grow and ship."""

from __future__ import annotations

import os
from typing import Any

from reszoo.registration import register_with_keras

__version__ = "0.1.0"

# TensorFlow reads these when it loads. It leaves oneDNN off on CPUs without AVX-512, at half the speed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow reserves a GPU's whole memory otherwise, and a second process on that GPU fails. Read when it finds GPUs.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and above

# Where each public name lives. Imported when first used, so that `import reszoo` costs nothing.
_PUBLIC = {
    "Recipe": "reszoo.config.recipe",
    "ReszooError": "reszoo.errors",
    "Run": "reszoo.training.run",
    "Spec": "reszoo.zoo.spec",
    "build": "reszoo.nets.build",
    "convert": "reszoo.exporting.convert",
    "count": "reszoo.zoo.count",
    "evaluate": "reszoo.evaluation.evaluate",
    "export": "reszoo.exporting.export",
    "features": "reszoo.nets.build",
    "freeze": "reszoo.nets.freeze",
    "grow": "reszoo.nets.grow",
    "list_models": "reszoo.zoo.catalog",
    "list_recipes": "reszoo.config.load",
    "list_weights": "reszoo.weights.published",
    "load_model": "reszoo.training.model_file",
    "load_recipe": "reszoo.config.load",
    "predict": "reszoo.evaluation.predict",
    "spec": "reszoo.zoo.catalog",
    "stack": "reszoo.nets.stack",
    "train": "reszoo.workflow",
    "tune": "reszoo.tuning.tune",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'reszoo' has no attribute '{name}'")
    from reszoo.loading import import_quietly

    return getattr(import_quietly(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]


# Saved models open in Keras after `import reszoo` alone.
register_with_keras()
