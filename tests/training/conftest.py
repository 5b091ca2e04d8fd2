"""Runs without figures, each of which takes as long as many steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reszoo.run_results.draw_curves", lambda *args, **named: None)
        patch.setattr("reszoo.evaluation.evaluate.draw_confusion", lambda *args, **named: None)
        yield
