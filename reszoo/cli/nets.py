"""What the verbs that take a trained net share: a wrong name is refused at once, before TensorFlow is loaded."""

from __future__ import annotations

from pathlib import Path

from reszoo.errors import ReszooError
from reszoo.zoo.catalog import spec


def refuse_unknown(given: str, weights: str | None) -> None:
    """Raise ReszooError unless `given` is a run's folder or the name of a net that has the published `weights`."""
    from reszoo.weights.published import find_weights

    path = Path(given)
    if path.is_dir():
        if not (path / "recipe.toml").is_file():
            raise ReszooError(f"{given} is no run folder: it holds no recipe.toml")
        return
    if path.is_file():
        raise ReszooError(
            f"{given} is a file, which does not say how its images were prepared or what its classes are called; "
            "give a run's folder or a net's name"
        )
    try:
        net = spec(given)
    except ReszooError as error:
        raise ReszooError(f"no run folder {given}, and {error}") from None
    find_weights(net, weights)
