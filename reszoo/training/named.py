"""What a person means by a trained net at a prompt: a run's folder, or a net's name with published weights. No TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.training.run import Run
from reszoo.weights.published import Weights, find_weights
from reszoo.zoo.catalog import spec
from reszoo.zoo.spec import Spec


def find_net(given: str | os.PathLike[str], weights: str | None = None) -> Run | tuple[Spec, Weights]:
    """Return the run whose folder is given, or the net of that name with its published `weights` (by default its first).

    Raises ReszooError for anything else, and for weights that the net cannot hold.
    """
    path = Path(given)
    if path.is_dir():
        if weights is not None:
            raise ReszooError(f"{given} is a run's folder, which has weights of its own; drop weights '{weights}'")
        return Run.open(path)
    if path.is_file():
        raise ReszooError(
            f"{given} is a file, which does not say how its images were prepared or what its classes are called; "
            "give a run's folder or a net's name"
        )
    try:
        net = spec(os.fspath(given))
    except ReszooError as error:
        raise ReszooError(f"no run folder {given}, and {error}") from None
    return net, find_weights(net, weights)
