"""Write reszoo/weights/published.tsv and imagenet_classes.tsv from what the publishers' own packages state.

Run in an environment with torchvision and timm (no TensorFlow needed), at the root of a checkout:

    python tests/peers/write_published.py RESULTS_IMAGENET_CSV KERAS_SOURCE

RESULTS_IMAGENET_CSV is results/results-imagenet.csv of huggingface/pytorch-image-models (read at commit aa4b585), KERAS_SOURCE
the folder keras/src/applications of Keras. The figures of akamaster are those of its README (commit d5489e8), those of
keras.applications of keras.io/api/applications; digests of akamaster's files are of the files at that commit.
"""

from __future__ import annotations

import ast
import csv
import math
import re
import sys
from pathlib import Path

IMAGENET = ("0.485,0.456,0.406", "0.229,0.224,0.225")
HALF = ("0.5,0.5,0.5", "0.5,0.5,0.5")
# Caffe's: BGR in 0..255, the mean colour taken away; here of pixels in 0..1.
CAFFE = (",".join(repr(m / 255) for m in (103.939, 116.779, 123.68)), ",".join([repr(1 / 255)] * 3))

COLUMNS = "model tag layout data top1 top5 image_size resize interpolation mean std channel_order license source files".split()

NAMES = {f"resnet{d}": f"resnet{d}_v1_5" for d in (50, 101, 152)}
NAMES |= {f"resnet{d}d": f"resnet{d}_d" for d in (18, 34, 50, 101, 152, 200)}
NAMES |= {f"seresnet{d}": f"se_resnet{d}" for d in (50, 101, 152)}
SAME = (
    "resnet18",
    "resnet34",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "nf_resnet50",
    "resnet50_gn",
)
NAMES |= {name: name for name in (*SAME, "resnext101_32x8d", "resnext101_64x4d")}

# README of akamaster/pytorch_resnet_cifar10: test error in percent; sha256 of the file, or what its name carries of it.
AKAMASTER = {
    20: (8.27, "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    32: (7.37, "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    44: (6.90, "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
    56: (6.61, "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"),
    110: (6.32, "1d1ed7c2"),
    1202: (6.18, "f3b1deed"),
}
# keras.io/api/applications: top-1 and top-5 accuracy in percent.
KERAS = {
    "resnet50": (74.9, 92.1),
    "resnet101": (76.4, 92.8),
    "resnet152": (76.6, 93.1),
    "resnet50v2": (76.0, 93.0),
    "resnet101v2": (77.2, 93.8),
    "resnet152v2": (78.0, 94.2),
}


def hub(name: str) -> str:
    return f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors|hub"


def pth(url: str) -> str | None:
    """Return the file with the eight digits of its sha256 that its name carries, or None where it carries none."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", url or "")
    return f"{url}|sha256:{found[1]}" if found else None


def torchvision_rows() -> list[dict]:
    from timm.models import get_pretrained_cfg, list_pretrained
    from torchvision.models import get_model_weights

    twins = {
        get_pretrained_cfg(name).url: name
        for name in list_pretrained()
        if re.search(r"\.tv2?_in1k$", name)
    }
    rows = []
    for name, ours in NAMES.items():
        try:
            members = list(get_model_weights(name))
        except ValueError:
            continue
        for weights in sorted(
            members, key=lambda member: member.name, reverse=True
        ):  # the newer first
            eval_ = weights.transforms()
            metrics = weights.meta["_metrics"]["ImageNet-1K"]
            files = [hub(twins[weights.url])] if weights.url in twins else []
            rows.append(
                dict(
                    model=ours,
                    tag=f"torchvision/{weights.name}",
                    layout="torchvision",
                    data="imagenet",
                    top1=metrics["acc@1"],
                    top5=metrics["acc@5"],
                    image_size=eval_.crop_size[0],
                    resize=eval_.resize_size[0],
                    interpolation=eval_.interpolation.value,
                    mean=IMAGENET[0],
                    std=IMAGENET[1],
                    channel_order="RGB",
                    license="BSD-3-Clause",
                    source=weights.meta["recipe"],
                    files=" ".join([*files, pth(weights.url)]),
                )
            )
    return rows


def timm_rows(results: Path) -> list[dict]:
    from timm.models import get_pretrained_cfg, list_pretrained

    measured: dict[str, list[dict]] = {}
    with results.open() as file:
        for row in csv.DictReader(file):
            measured.setdefault(row["model"], []).append(row)
    rows = []
    for full in list_pretrained():
        name, _, tag = full.partition(".")
        cfg = get_pretrained_cfg(full)
        if name not in NAMES or cfg.num_classes != 1000 or full not in measured:
            continue
        # The figure at the size that the weights are meant to be tested at, which is the larger one.
        best = max(measured[full], key=lambda row: int(row["img_size"]))
        size, crop = int(best["img_size"]), float(best["crop_pct"])
        stats = {(0.485, 0.456, 0.406): IMAGENET, (0.5, 0.5, 0.5): HALF}[cfg.mean]
        assert tuple(map(float, stats[1].split(","))) == cfg.std
        license = {
            "apache-2.0": "Apache-2.0",
            "bsd-3-clause": "BSD-3-Clause",
            "cc-by-nc-4.0": "CC-BY-NC-4.0",
        }[cfg.license]
        rows.append(
            dict(
                model=NAMES[name],
                tag=f"timm/{tag}",
                layout="timm",
                data="imagenet",
                top1=float(best["top1"]),
                top5=float(best["top5"]),
                image_size=size,
                resize=math.floor(size / crop),
                interpolation=best["interpolation"],
                mean=stats[0],
                std=stats[1],
                channel_order="RGB",
                license=license,
                source=f"https://huggingface.co/timm/{full}",
                files=" ".join(filter(None, [hub(full), pth(cfg.url)])),
            )
        )
    # What may be used by anyone first, then the better.
    return sorted(rows, key=lambda row: (row["license"] == "CC-BY-NC-4.0", -row["top1"]))


def akamaster_rows() -> list[dict]:
    base = "https://github.com/akamaster/pytorch_resnet_cifar10"
    return [
        dict(
            model=f"resnet{depth}",
            tag="akamaster",
            layout="akamaster",
            data="cifar10",
            top1=round(100 - error, 2),
            top5="",
            image_size=32,
            resize=0,
            interpolation="bilinear",
            mean=IMAGENET[0],
            std=IMAGENET[1],
            channel_order="RGB",
            license="BSD-2-Clause",
            source=base,
            files=f"{base}/raw/master/pretrained_models/resnet{depth}-{digest[:8]}.th|sha256:{digest}",
        )
        for depth, (error, digest) in AKAMASTER.items()
    ]


def mlperf_rows() -> list[dict]:
    base = "https://github.com/mlcommons/tiny"
    path = "benchmark/training/image_classification/trained_models/pretrainedResnet.h5"
    commit = "1afd2c9820f795965a6134facd0b4dfae41ef23f"
    digest = "5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f"
    return [
        dict(
            model="resnet8_kerasio",
            tag="mlperf",
            layout="kerasio",
            data="cifar10",
            top1=87.19,  # measured here; MLCommons states 90.0 % on its 200 images
            top5="",
            image_size=32,
            resize=0,
            interpolation="bilinear",
            mean="0,0,0",
            std=",".join(["0.003921569"] * 3),  # 1 / 255: inputs are 0..255
            channel_order="RGB",
            license="Apache-2.0",
            source=base,
            files=f"{base}/raw/{commit}/{path}|sha256:{digest}",
        )
    ]


def keras_rows(source: Path) -> list[dict]:
    tree = ast.parse((source / "resnet.py").read_text())
    assigned = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    values = {node.targets[0].id: node.value for node in assigned}
    base, hashes = (
        ast.literal_eval(values["BASE_WEIGHTS_PATH"]),
        ast.literal_eval(values["WEIGHTS_HASHES"]),
    )
    rows = []
    for name, (top1, top5) in KERAS.items():
        second = name.endswith("v2")
        mean, std = HALF if second else CAFFE
        rows.append(
            dict(
                model=name.removesuffix("v2") + ("_v2_keras" if second else "_keras"),
                tag="keras",
                layout="keras",
                data="imagenet",
                top1=top1,
                top5=top5,
                image_size=224,
                resize=256,
                interpolation="bilinear",
                mean=mean,
                std=std,
                channel_order="RGB" if second else "BGR",
                license="Apache-2.0",
                source="https://keras.io/api/applications",
                files=f"{base}{name}_weights_tf_dim_ordering_tf_kernels.h5|md5:{hashes[name][0]}",
            )
        )
    return rows


def classes() -> str:
    import timm
    from torchvision.models import ResNet50_Weights

    ids = (Path(timm.__file__).parent / "data/_info/imagenet_synsets.txt").read_text().split()
    names = ResNet50_Weights.DEFAULT.meta["categories"]
    assert len(ids) == len(names) == 1000 and ids == sorted(ids)
    return "".join(f"{number}\t{name}\n" for number, name in zip(ids, names, strict=True))


if __name__ == "__main__":
    rows = (
        akamaster_rows()
        + mlperf_rows()
        + torchvision_rows()
        + timm_rows(Path(sys.argv[1]))
        + keras_rows(Path(sys.argv[2]))
    )
    folder = Path("reszoo/weights")
    lines = ["\t".join(COLUMNS)] + [
        "\t".join(str(row[column]) for column in COLUMNS) for row in rows
    ]
    (folder / "published.tsv").write_text("\n".join(lines) + "\n")
    (folder / "imagenet_classes.tsv").write_text(classes())
    print(len(rows), "rows")
