"""Register reszoo's layers with Keras as soon as both are imported, without importing Keras.

Keras finds the classes of a saved model by their registered names. `import reszoo` must not import
Keras, which takes seconds; so the layers are registered at the end of Keras' own import.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

KERAS = "keras"


def register_with_keras() -> None:
    """Register the layers now if Keras is imported, else at the end of its import."""
    if sys.modules.get(KERAS) is not None:
        _register()
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    with contextlib.suppress(
        ImportError
    ):  # the import of reszoo.models says why, where it is asked for
        importlib.import_module("reszoo.models")


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Find Keras as the other finders do, and add one step to the end of its import."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return Keras' spec, whose loader registers the layers too; None for other modules."""
        if name != KERAS or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(KERAS)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            with contextlib.suppress(ValueError):  # it is no longer there
                sys.meta_path.remove(self)
            _register()

        loader.exec_module = load_and_register
        return spec
