"""Images made up for the tests of reading and augmenting them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def photo() -> Callable[..., np.ndarray]:
    """A maker of smooth images, uint8 [height, width, 3], which survive resizing and JPEG as photographs do."""
    from PIL import Image

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))

    return make
