"""Input throughput of the CIFAR pipeline: 45,000 images of 32x32x3 in memory, padded, cropped and mirrored.

    python tests/bench/input.py [--batches 2000] [--rounds 5] [--peer PYTHON-WITH-TORCHVISION] [--json FILE]

Random images stand in for CIFAR's, which costs the pipeline the same. With --peer, torchvision's transforms under a
PyTorch DataLoader with two workers take turns with it in the same run. Not a test: nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEER = """
import sys, time, numpy, torch, torchvision.transforms as T
from PIL import Image
images = numpy.random.default_rng(0).integers(0, 256, (20000, 32, 32, 3), dtype=numpy.uint8)
change = T.Compose([T.RandomCrop(32, 4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize((.5,) * 3, (.25,) * 3)])
class Set(torch.utils.data.Dataset):
    def __len__(self): return len(images)
    def __getitem__(self, i): return change(Image.fromarray(images[i])), i % 10
loader = torch.utils.data.DataLoader(Set(), 128, shuffle=True, num_workers=2)
for _ in sys.stdin:
    begun, count = time.perf_counter(), 0
    for x, y in loader: count += len(y)
    print(count / (time.perf_counter() - begun), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="a Python with torchvision")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import numpy as np

    from reszoo.data.config import AugmentConfig
    from reszoo.data.parts import Arrays, ImageSet
    from reszoo.data.pipeline import Pipeline
    from reszoo.data.preprocessing import Preprocessing
    from reszoo.data.statistics import fitted

    random = np.random.default_rng(0)
    part = Arrays(
        random.integers(0, 256, (45_000, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, 45_000, dtype=np.int32)
    )
    preprocessing = Preprocessing((32, 32), 3, 0, np.zeros(3, np.float32), np.ones(3, np.float32))
    preprocessing = fitted(preprocessing, part, "pixel_mean")
    images = ImageSet(name="random", class_names=tuple("0123456789"), parts={"train": part})
    pipeline = Pipeline(images, preprocessing, AugmentConfig(crop="pad", pad=4, flip=True), batch_size=128, seed=0)

    peer = (
        subprocess.Popen([args.peer, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if args.peer
        else None
    )
    speeds: dict[str, list[float]] = {"ours": [], "torchvision": []}
    batches = iter(pipeline.train())
    next(batches)
    for _ in range(args.rounds):
        begun, count = time.perf_counter(), 0
        for _ in range(args.batches):
            count += len(next(batches)[1])
        speeds["ours"].append(count / (time.perf_counter() - begun))
        if peer:
            peer.stdin.write("\n")  # type: ignore[union-attr]
            peer.stdin.flush()  # type: ignore[union-attr]
            speeds["torchvision"].append(float(peer.stdout.readline()))  # type: ignore[union-attr]
    result = {
        f"{side}_images_per_second": round(statistics.median(values)) for side, values in speeds.items() if values
    }
    if peer:
        result["ratio_median"] = round(statistics.median([a / b for a, b in zip(*speeds.values(), strict=True)]), 1)
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
