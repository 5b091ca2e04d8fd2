"""From image files to answers, ours against PIL, torchvision and PyTorch; needs the real images and another environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .images import PHOTOGRAPHS, photographs, published, unpacked
from .parity import Peer

PYTHON = os.environ.get("RESZOO_PEER", "")
DATA = Path(os.environ.get("RESZOO_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [pytest.mark.peers, pytest.mark.shared, pytest.mark.slow]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if not PYTHON or not (DATA / "photos-100.tar").is_file():
        pytest.skip(
            "RESZOO_PEER names no Python with torch and torchvision, or the images are not at hand"
        )
    process = Peer(PYTHON)
    yield process
    process.close()


@pytest.mark.parametrize(("net", "tag"), PHOTOGRAPHS)
def test_photographs_give_the_answers_that_torchvisions_transforms_give(
    net: str, tag: str, peer: Peer, tmp_path: Path
) -> None:
    found = photographs(net, tag, peer, unpacked(DATA / "photos-100.tar", tmp_path))
    assert found["images"] == 100 and found["other_answers"] == 0
    assert found["largest_pixel_difference"] <= 2 and found["pixels_differing_percent"] < 0.3
    assert found["logits"] < 2e-3


@pytest.fixture(scope="module")
def files(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every tenth test image of CIFAR-10; `python -m tests.peers.images` takes all 10,000."""
    return unpacked(DATA / "cifar10-png.tar.xz", tmp_path_factory.mktemp("cifar"), "test")[::10]


@pytest.mark.parametrize("depth", [20, 56])
def test_akamasters_weights_give_pytorchs_answers_to_the_image(
    depth: int, peer: Peer, files: list[Path]
) -> None:
    (weights,) = (DATA / "akamaster").glob(f"resnet{depth}-*.th")
    found = published(depth, peer, weights, files)
    assert (
        found["images"] == 1000
        and found["other_answers"] == 0
        and found["largest_pixel_difference"] == 0
    )
    assert found["logits"] < 1e-4 and found["accuracy"] > 90
