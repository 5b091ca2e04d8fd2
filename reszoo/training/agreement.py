"""How the workers of a run agree on what to train, before TensorFlow opens their cluster."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Callable
from pathlib import Path

from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_data, resolve_recipe
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.training.cluster import Hosts
from reszoo.training.data_location import relocate
from reszoo.training.devices import check_devices
from reszoo.training.greeting import Greeting
from reszoo.training.meeting import meet
from reszoo.versions import module_versions


def agree(
    hosts: Hosts,
    recipe: Recipe | str | Path | None,
    overrides: Overrides,
    *,
    resume: bool,
    data: str | None,
    devices: str,
    report: Callable[[str], None],
) -> tuple[ResolvedRecipe, bool]:
    """Meet the other workers, and return worker 0's recipe and whether the run resumes.

    A follower that has a recipe of its own, or `data`, keeps its own location of the data.

    Args:
        hosts: The hosts.
        recipe: This worker's recipe; followers need none.
        overrides: Recipe keys to change.
        resume: Whether worker 0 resumes.
        data: On a follower the location of the data, as for `reszoo train --data`.
        devices: The devices of each host.
        report: Reports a line.

    Raises:
        ReszooError: If a worker has an error or differs from worker 0; on all workers the same.
        PeerLost: If a worker does not come in time.
    """
    own = None
    versions = module_versions("reszoo", "tensorflow", "keras", "numpy")
    versions["python"] = ".".join(platform.python_version_tuple()[:2])
    greeting = Greeting(versions, "")
    try:
        if recipe is not None:
            given = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
            own = resolve_recipe(given)
        elif hosts.first:
            raise ReszooError(
                "recipe: none is given; expected a recipe on worker 0. Example: reszoo train "
                "quickstart"
            )
        kind, numbers = check_devices(devices)
        if kind == "cpu":
            count = int(numbers or 1)
        else:
            count = (
                numbers.count(",") + 1 if numbers else len(tf.config.list_physical_devices("GPU"))
            )
        text = own.to_toml() if own else ""
        greeting = Greeting(versions, f"{count} {kind.upper()}", text, resume)
    except ReszooError as error:
        greeting = Greeting(versions, "", error=str(error))
    first = meet(hosts, greeting, report=report)
    if own and hosts.first:
        return own, first.resume
    agreed = ResolvedRecipe(**tomllib.loads(first.recipe))
    if own:
        agreed = agreed.replace(data=own.data)
    if data is not None:
        agreed = agreed.replace(data=resolve_data(relocate(agreed.data, data)))
    return agreed, first.resume
