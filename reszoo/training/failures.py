"""What is recorded and reported when a run fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.training.protocols import Pipeline
from reszoo.training.run import Run


@contextlib.contextmanager
def record_failure(run: Run, recipe: Recipe, pipeline: Pipeline) -> Iterator[None]:
    """Record an error of the block in run.json, and replace it by its explanation if that is known.

    Args:
        run: The run folder.
        recipe: The recipe.
        pipeline: The data.

    Raises:
        ReszooError: If memory is exhausted or an image is damaged.
    """
    try:
        yield
    except Exception as error:
        memory = explain_memory(error, recipe)
        damaged = None if memory else pipeline.explain(error)
        with contextlib.suppress(OSError):  # the disk may be the cause
            reason = str(memory or damaged or error).split("\n")[0]
            run.write_meta(status="failed", reason=reason)
            if damaged and "data" in run.meta:  # repaired files will have other digests
                run.write_meta(data={**run.meta["data"], "fingerprint": {}})
        if explained := memory or damaged:
            raise explained from error
        raise


def explain_memory(error: Exception, recipe: Recipe) -> ReszooError | None:
    """Return the remedy if an error reports that memory is exhausted, else None."""
    if not isinstance(error, tf.errors.ResourceExhaustedError):
        return None
    settings = recipe.train
    return ReszooError(
        f"out of memory with batches of {settings.batch_size} images; lower train.batch_size, or "
        f"raise train.accumulate ({settings.accumulate}) to split a batch into more micro-batches"
    )
