"""How the workers of a run agree on what to train, before TensorFlow opens their cluster."""

from __future__ import annotations

import platform
import tomllib
from pathlib import Path

from reszoo.config.load import load_recipe
from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import ResolvedRecipe, resolve_data, resolve_recipe
from reszoo.errors import ReszooError, shorten
from reszoo.reporting.reporter import Reporter
from reszoo.training.cluster import Hosts
from reszoo.training.data_location import relocate
from reszoo.training.devices import count_devices
from reszoo.training.greeting import Greeting
from reszoo.training.meeting import meet
from reszoo.versions import module_versions

_MET: set[Hosts] = set()  # that have met in this process: they talk through TensorFlow now


def agree(
    hosts: Hosts,
    recipe: Recipe | str | Path | None,
    overrides: Overrides,
    resume: bool,
    data: str | None,
    devices: str,
    quiet: bool,
) -> tuple[ResolvedRecipe, bool, str | None]:
    """Meet the other workers; return worker 0's recipe, whether the run resumes, and its `data`.

    A follower that has a recipe of its own, or `data`, keeps its own location of the data. In a
    second run of the same process the workers do not meet; `Trainer.prepare` compares them.

    Args:
        hosts: The hosts.
        recipe: This worker's recipe; followers need none.
        overrides: Recipe keys to change.
        resume: Whether worker 0 resumes.
        data: On a follower the location of the data, as for `reszoo train --data`.
        devices: The devices of each host.
        quiet: Do not print which workers are missing.

    Raises:
        ReszooError: If a worker has an error or differs from worker 0; on all workers the same.
        PeerLost: If a worker does not come in time.
    """
    own = None
    versions = module_versions("reszoo", "tensorflow", "keras", "numpy")
    versions["python"] = ".".join(platform.python_version_tuple()[:2])
    try:
        if recipe is not None:
            given = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)
            own = resolve_recipe(given)
        elif hosts.first or hosts in _MET:
            raise ReszooError(
                "recipe: none is given; expected one, except on other workers than worker 0 in "
                "the first run of their process. Example: reszoo train quickstart"
            )
        elif overrides:
            raise ReszooError(
                f"--set: {shorten(list(overrides)[0])} is invalid without a recipe; expected none, "
                "because worker 0 sends the recipe. Example: give this worker the recipe too"
            )
        text = own.to_toml() if own else ""
        greeting = Greeting(versions, count_devices(devices), text, resume)
    except ReszooError as error:
        if hosts in _MET:
            raise
        greeting = Greeting(versions, "", error=str(error))
    if hosts in _MET and own:  # TensorFlow has the port
        return own, resume, data
    first = meet(hosts, greeting, report=Reporter(quiet=quiet).line)
    _MET.add(hosts)
    if own and hosts.first:
        return own, first.resume, data
    agreed = ResolvedRecipe(**tomllib.loads(first.recipe))
    if own:
        agreed = agreed.replace(data=own.data)
    if data is not None:
        agreed = agreed.replace(data=resolve_data(relocate(agreed.data, data)))
    return agreed, first.resume, None
