"""Versions of the libraries that a result was made with."""

from __future__ import annotations

import importlib


def module_versions(*names: str) -> dict[str, str]:
    """Return the version of each module in `names`, which are imported where they are not yet.

    The modules are asked, not the installed distributions: a module can come from a distribution of
    another name (`tensorflow` from `tensorflow-cpu`), or from a folder on the path that has no
    metadata.

    Args:
        names: Names of modules, such as "tensorflow".

    Returns:
        The value of `__version__` for each name, or "unknown" if a module has none.
    """
    return {
        name: str(getattr(importlib.import_module(name), "__version__", "unknown"))
        for name in names
    }
