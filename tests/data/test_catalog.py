"""Known datasets have their published sizes, and embedded ones hold what is listed."""

from __future__ import annotations

import pytest

from reszoo.config.data import DataConfig, NoCrop
from reszoo.data.catalog import EMBEDDED, KNOWN
from reszoo.data.pipeline import open_dataset

# (images, classes): LeCun et al. 1998; Xiao et al. 2017; Krizhevsky 2009, twice; Netzer et al. 2011
# without `extra`; the page of Imagenette 2; Russakovsky et al. 2015, table 2, without its test
# images, which have no labels.
PUBLISHED = {
    "mnist": (70_000, 10),
    "fashion_mnist": (70_000, 10),
    "cifar10": (60_000, 10),
    "cifar100": (60_000, 100),
    "svhn_cropped": (99_289, 10),
    "imagenette": (13_394, 10),
    "imagenet2012": (1_331_167, 1000),
}


def test_listed_sizes_are_the_published_ones() -> None:
    found = {name: (known.train + known.test, known.classes) for name, known in KNOWN.items()}
    assert {name: found[name] for name in KNOWN if name not in EMBEDDED} == PUBLISHED


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_datasets_are_as_listed(name: str) -> None:
    info = open_dataset(DataConfig(name=name), NoCrop(), batch_size=8, seed=0).info
    known = KNOWN[name]
    assert info.examples == {"train": known.train, "validation": 0, "test": known.test}
    assert info.classes == known.classes and "x".join(map(str, info.input_shape)) == known.shape
