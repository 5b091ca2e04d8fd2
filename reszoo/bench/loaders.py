"""Input pipelines side by side: a program of its own, `python loaders.py SIDE WHAT FOLDER`, in an environment that may lack reszoo.

WHAT is "cifar" (45,000 pictures of 32 x 32 in memory, padded, cropped, mirrored, normalised) or "photographs" (the files in FOLDER, a
random part of each brought to 224 x 224, mirrored). It answers as `child.py` does, one call a batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

BATCH = {"cifar": 128, "photographs": 32}
WORKERS = 2


def main(side: str, what: str, folder: str) -> None:
    """Answer on standard output."""
    real, sys.stdout = sys.stdout, sys.stderr
    try:
        batches, version = SIDES[side](what, folder)
        next(batches)
    except (LookupError, ImportError) as error:
        print(json.dumps({"error": str(error)}), file=real, flush=True)
        return
    print(json.dumps({"version": version}), file=real, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            next(batches)
        print(
            json.dumps({"seconds": time.perf_counter() - start, "peak_mb": 0}),
            file=real,
            flush=True,
        )


def _reszoo(what: str, folder: str) -> tuple[Iterator[Any], str]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np

    import reszoo
    from reszoo.config.data import DataConfig, InceptionCrop, PadCrop
    from reszoo.data.parts import Arrays, ImageSet
    from reszoo.data.pipeline import Pipeline, open_dataset
    from reszoo.data.preprocessing import Preprocessing
    from reszoo.data.statistics import fitted
    from reszoo.versions import module_versions

    version = (
        f"reszoo {reszoo.__version__}, tensorflow {module_versions('tensorflow')['tensorflow']}"
    )
    if what == "photographs":
        config = DataConfig(
            name=f"folder:{folder}", image_size=(224, 224), validation=0, normalize="channel"
        )
        return iter(
            open_dataset(config, InceptionCrop(flip=True), batch_size=BATCH[what], seed=0).train()
        ), version
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (45_000, 32, 32, 3), dtype=np.uint8)
    part = Arrays(images, random.integers(0, 10, 45_000, dtype=np.int32))
    preprocessing = Preprocessing((32, 32), 3, 0, np.zeros(3, np.float32), np.ones(3, np.float32))
    preprocessing = fitted(preprocessing, part, "pixel_mean")
    some = ImageSet(name="random", class_names=tuple("0123456789"), parts={"train": part})
    augment = PadCrop(pad=4, flip=True)
    return iter(
        Pipeline(some, preprocessing, augment, batch_size=BATCH[what], seed=0).train()
    ), version


def _torch(what: str, folder: str) -> tuple[Iterator[Any], str]:
    import numpy
    import torch
    import torchvision
    from PIL import Image
    from torchvision import transforms

    normal = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]

    class Cifar(torch.utils.data.Dataset):
        images = numpy.random.default_rng(0).integers(
            0, 256, (45_000, 32, 32, 3), dtype=numpy.uint8
        )
        change = transforms.Compose(
            [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), *normal]
        )

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int) -> Any:
            return self.change(Image.fromarray(self.images[index])), index % 10

    if what == "cifar":
        pictures: Any = Cifar()
    else:
        change = transforms.Compose(
            [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *normal]
        )
        pictures = torchvision.datasets.ImageFolder(os.path.join(folder, "train"), change)
    loader = torch.utils.data.DataLoader(
        pictures,
        BATCH[what],
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        drop_last=True,
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    return (
        forever(),
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, {WORKERS} workers",
    )


SIDES = {"reszoo": _reszoo, "torch": _torch}

if __name__ == "__main__":
    main(*sys.argv[1:])
