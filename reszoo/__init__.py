"""reszoo: residual networks in TensorFlow and Keras, to build, train, measure, grow and ship."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from reszoo.registration import register_with_keras

__version__ = "0.1.0"

# TensorFlow reads these when it loads. It leaves oneDNN off on CPUs without AVX-512, at half the
# speed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow reserves a GPU's whole memory otherwise, and a second process on that GPU fails. Read
# when it finds GPUs.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and above

if TYPE_CHECKING:  # for editors and type checkers, which cannot follow `__getattr__`
    from reszoo.comparison.compare import compare as compare
    from reszoo.comparison.seeds import train_seeds as train_seeds
    from reszoo.config.load import list_recipes as list_recipes
    from reszoo.config.load import load_recipe as load_recipe
    from reszoo.config.recipe import Recipe as Recipe
    from reszoo.errors import ReszooError as ReszooError
    from reszoo.evaluation.evaluate import evaluate as evaluate
    from reszoo.evaluation.explain import explain as explain
    from reszoo.evaluation.predict import predict as predict
    from reszoo.evaluation.source import preprocessing as preprocessing
    from reszoo.exporting.convert import convert as convert
    from reszoo.exporting.export import export as export
    from reszoo.images.preprocessing import Preprocessing as Preprocessing
    from reszoo.models.build import build as build
    from reszoo.models.build import features as features
    from reszoo.models.freeze import freeze as freeze
    from reszoo.models.grow import grow as grow
    from reszoo.models.stack import stack as stack
    from reszoo.serving.server import Server as Server
    from reszoo.trainer import train as train
    from reszoo.training.cluster import Hosts as Hosts
    from reszoo.training.model_file import load_model as load_model
    from reszoo.training.run import Run as Run
    from reszoo.tuning.tune import tune as tune
    from reszoo.weights.published import list_weights as list_weights
    from reszoo.zoo.catalog import list_models as list_models
    from reszoo.zoo.catalog import spec as spec
    from reszoo.zoo.count import count as count
    from reszoo.zoo.own_parts import register_block as register_block
    from reszoo.zoo.own_parts import register_shortcut as register_shortcut
    from reszoo.zoo.spec import Spec as Spec

# Where each public name lives. Imported when first used, so that `import reszoo` costs nothing.
_PUBLIC = {
    "Hosts": "reszoo.training.cluster",
    "Preprocessing": "reszoo.images.preprocessing",
    "Recipe": "reszoo.config.recipe",
    "ReszooError": "reszoo.errors",
    "Run": "reszoo.training.run",
    "Server": "reszoo.serving.server",
    "Spec": "reszoo.zoo.spec",
    "build": "reszoo.models.build",
    "compare": "reszoo.comparison.compare",
    "convert": "reszoo.exporting.convert",
    "count": "reszoo.zoo.count",
    "evaluate": "reszoo.evaluation.evaluate",
    "explain": "reszoo.evaluation.explain",
    "export": "reszoo.exporting.export",
    "features": "reszoo.models.build",
    "freeze": "reszoo.models.freeze",
    "grow": "reszoo.models.grow",
    "list_models": "reszoo.zoo.catalog",
    "list_recipes": "reszoo.config.load",
    "list_weights": "reszoo.weights.published",
    "load_model": "reszoo.training.model_file",
    "load_recipe": "reszoo.config.load",
    "predict": "reszoo.evaluation.predict",
    "preprocessing": "reszoo.evaluation.source",
    "register_block": "reszoo.zoo.own_parts",
    "register_shortcut": "reszoo.zoo.own_parts",
    "spec": "reszoo.zoo.catalog",
    "stack": "reszoo.models.stack",
    "train": "reszoo.trainer",
    "train_seeds": "reszoo.comparison.seeds",
    "tune": "reszoo.tuning.tune",
}

__all__ = sorted(_PUBLIC)


if not TYPE_CHECKING:  # so that a type checker reports a misspelled name

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'reszoo' has no attribute '{name}'")
        from reszoo.loading import import_quietly

        return getattr(import_quietly(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]


# Saved models open in Keras after `import reszoo` alone.
register_with_keras()
