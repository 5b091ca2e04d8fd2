"""References in recipes to a user's own code, "package.module:attribute", and how it is called."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from reszoo.errors import ReszooError, did_you_mean
from reszoo.loading import import_quietly

PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
NAME_PATTERN = r"^[A-Za-z_]\w+(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?$"
"""A registered name, or a reference."""
EXPECTED = '"package.module:attribute"'
GIVEN = "given"
"""The module in the reference of an object that was passed to `reszoo.train`."""
ARGUMENTS = {
    "augment.extra": "augment",
    "data.name": "dataset",
    "optimizer.name": "optimizer",
    "schedule.kind": "schedule",
    "train.loss": "loss",
}
"""The arguments of `reszoo.train` that take an object in place of a reference."""


def is_reference(text: object) -> bool:
    """Return whether a value of a recipe is a reference. "folder:PATH" is not."""
    return isinstance(text, str) and bool(re.match(PATTERN, text)) and text[:7] != "folder:"


def is_passed(reference: str) -> bool:
    """Return whether a reference stands for an object that was passed to `reszoo.train`."""
    return reference.startswith(f"{GIVEN}:")


def reference_to(given: object) -> str:
    """Return the reference by which a recipe records an object that was passed."""
    own = given if inspect.isroutine(given) or isinstance(given, type) else type(given)
    return f"{GIVEN}:{re.sub(r'[^A-Za-z0-9_]', '_', own.__name__)}"


def invalid_reference(key: str, reference: str, why: str) -> ReszooError:
    """Return the error for the value of a key that does not refer to what the key needs."""
    return ReszooError(f'{key}: "{reference}" is invalid; {why}')


def load_reference(key: str, reference: str) -> Any:
    """Import what a reference names, from the current directory too.

    Args:
        key: The recipe key, for messages.
        reference: The reference.

    Raises:
        ReszooError: The module cannot be imported, or does not have the attribute.
    """
    name, _, attribute = reference.partition(":")
    if is_passed(reference):
        argument = ARGUMENTS[key]
        raise invalid_reference(
            key,
            reference,
            f"only the Python program that passed this object to reszoo.train has it. To resume: "
            f"reszoo.train(..., {argument}=...)",
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for `python -m`; the module may import others later
    try:
        found: Any = import_quietly(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            why = f"no module {error.name} in {os.getcwd()} or on PYTHONPATH"
            raise invalid_reference(key, reference, why) from None
        raise invalid_reference(key, reference, f"{name} needs {error.name}") from error
    except Exception as error:
        why = f"importing {name} raised {type(error).__name__}: {error}"
        raise invalid_reference(key, reference, why) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [each for each in vars(found) if each[:1] != "_"])
            raise invalid_reference(key, reference, f"{name} does not have {attribute}{near}")
        found = getattr(found, part)
    return found


def call_function(
    key: str, reference: str, function: Callable[..., Any], arguments: dict[str, Any]
) -> Any:
    """Call a user's function with those of the arguments that it takes.

    Args:
        key: The recipe key, for messages.
        reference: The reference to the function, for messages.
        function: The function, or a class.
        arguments: All arguments by name.

    Raises:
        ReszooError: It is not a function, or needs other arguments.
    """
    listed = ", ".join(arguments)
    expected = f"expected a function of {listed}, or of some of them" if arguments else ""
    if not callable(function):
        found = type(function).__name__
        raise invalid_reference(
            key, reference, f"{expected or 'expected a function without arguments'}, not {found}"
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # of a built-in class
        parameters = []
    named = [
        each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    for each in named:
        if each.default is each.empty and each.name not in arguments:
            why = expected or "it is called without arguments"
            raise invalid_reference(key, reference, f"it needs the argument {each.name}; {why}")
    taken = {each.name for each in named if each.kind is not each.POSITIONAL_ONLY}
    return function(**{name: value for name, value in arguments.items() if name in taken})
