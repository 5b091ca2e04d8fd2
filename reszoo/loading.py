"""Import Keras and TensorFlow without the start-up messages of their libraries."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def import_quietly(name: str) -> ModuleType:
    """Import a module, and hold back what TensorFlow prints when it loads.

    TensorFlow's libraries write to the file descriptor of standard error before they read any log
    level, so no setting silences them; a search for GPUs prints more. What they wrote is shown only
    if the import fails. Afterwards TensorFlow's Python logger reports errors only, unless its level
    was set before the import. In a notebook, TensorFlow itself sets it to INFO.

    Args:
        name: The module's full name, such as "reszoo.models.build".

    Returns:
        The module.
    """
    if name in sys.modules or "tensorflow" in sys.modules:
        return importlib.import_module(name)
    logger = logging.getLogger("tensorflow")
    chosen = logger.level != logging.NOTSET
    with held_standard_error():
        module = importlib.import_module(name)
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.config.list_physical_devices()
            if not chosen:
                logger.setLevel(logging.ERROR)
    return module


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Let a library's logger report errors only, inside the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def held_standard_error() -> Iterator[None]:
    """Hold back standard error inside the block, that of libraries too. Show it on failure."""
    try:
        kept = os.dup(2)
    except OSError:  # standard error is closed: nothing can be written to it
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
