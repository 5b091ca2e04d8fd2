"""Load a trained Keras model from a run folder or a model file, with reszoo's layers registered."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from pathlib import Path

import keras

from reszoo.errors import ReszooError
from reszoo.models.settings import fixed_settings  # `reszoo.models` registers the layers
from reszoo.training.run import Run
from reszoo.weights.files import find_content, find_in_folder


@fixed_settings()
def load_model(source: Run | str | os.PathLike[str], *, compile: bool = False) -> keras.Model:
    """Load a Keras model: images in, logits out.

    Args:
        source: A run or its folder, or a file that `model.save` wrote (`.keras`, or `.h5` with the
            whole model).
        compile: Also restore the optimizer, loss and metrics, for another `fit`.

    Returns:
        The model. The run, not the model, records the preprocessing and the class names:
        `reszoo.predict(run, images)` uses both.

    Raises:
        ReszooError: If `source` does not exist, or does not hold a whole Keras model.
    """
    path = source.path if isinstance(source, Run) else Path(source)
    if path.is_dir():
        if (path / "recipe.toml").is_file() and not (path / "model.keras").is_file():
            return Run.open(path).load_model()  # raises: the run is not finished
        path = find_in_folder(path)
    if not path.is_file():
        raise ReszooError(
            f"no run folder or model file {path}. Example: reszoo.load_model('runs/first')"
        )
    _reject_weights_alone(path)
    try:
        if path.suffix in (".keras", ".h5", ".hdf5"):
            return keras.models.load_model(path, compile=compile)
        with tempfile.TemporaryDirectory() as folder:  # Keras decides by the suffix
            link = Path(folder) / ("model.keras" if zipfile.is_zipfile(path) else "model.h5")
            link.symlink_to(path.resolve())
            return keras.models.load_model(link, compile=compile)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        text = str(error)
        if unknown := re.search(r"Could not locate \w+ '([^']+)'", text):
            reason = f"'{unknown[1]}' is not registered; import the module that defines it first"
        else:
            reason = text.strip().partition("\n")[0][:200] or type(error).__name__
        raise ReszooError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _reject_weights_alone(path: Path) -> None:
    """Raise ReszooError if a file holds weights without their model."""
    kind = find_content(path)
    if kind == "hdf5":
        import h5py  # type: ignore[import-untyped, unused-ignore]

        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    else:
        whole = kind == "keras"
    if not whole:
        raise ReszooError(
            f"{path} holds weights without their model. Example: "
            f"reszoo.build(NAME, weights={str(path)!r})"
        )
