"""Lines that describe a dataset: images per class, class imbalance, and files that are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LISTED = 10  # classes that are listed one by one
ADVICE, OTHER_ADVICE = "; try train.class_weights=balanced", " or data.sampler=balanced"
IMBALANCED = 3  # times as many images in the largest class as in the smallest


def describe_classes(
    class_names: Sequence[str], class_counts: Mapping[str, Sequence[int]]
) -> list[str]:
    """Return one line per split with the number of images of each class, or their range.

    Args:
        class_names: In label order.
        class_counts: For each split, the number of images of each class.
    """
    lines = []
    for split, counts in class_counts.items():
        if len(counts) <= LISTED:
            shown = [f"{name} {n:,}" for name, n in zip(class_names, counts, strict=True)]
        else:
            order = sorted(range(len(counts)), key=lambda label: counts[label])
            low, middle, high = order[0], order[len(order) // 2], order[-1]
            shown = [
                f"smallest {counts[low]:,} ({class_names[low]})",
                f"median {counts[middle]:,}",
                f"largest {counts[high]:,} ({class_names[high]})",
            ]
        lines.append(f"{split} images per class: {', '.join(shown)}")
    return lines


def describe_size(found: str) -> list[str]:
    """Return a line with the input's size that was found; no line if it was given."""
    return [f"image size: {found}; data.image_size=[HEIGHT,WIDTH] sets another"] if found else []


def is_imbalanced(counts: Sequence[int]) -> bool:
    """Return whether the largest class has `IMBALANCED` times the images of the smallest."""
    return max(counts) >= IMBALANCED * min(counts) and max(counts) > min(counts)


def warn_of_imbalance(
    class_names: Sequence[str],
    class_counts: Mapping[str, Sequence[int]],
    *,
    advise: bool = True,
    multi_label: bool = False,
) -> list[str]:
    """Return warnings about imbalanced training classes and classes that a split lacks.

    Args:
        class_names: In label order.
        class_counts: For each split, the number of images of each class.
        advise: Whether to name the remedies.
        multi_label: Whether an image may have several classes.
    """
    lines = []
    for split, counts in class_counts.items():
        absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
        if absent:
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            lines.append(
                f"warning: the {split} split has no image of {', '.join(absent[:3])}{more}"
            )
    training = list(class_counts.get("train", ()))
    if training and min(training) > 0 and is_imbalanced(training):
        low, high = min(training), max(training)
        rare, common = (class_names[training.index(count)] for count in (low, high))
        share = "" if multi_label else f"; {100 * high / sum(training):.3g} % of all are {common}"
        advice = f"{ADVICE}{'' if multi_label else OTHER_ADVICE}" if advise else ""
        lines.append(
            f"warning: the classes are imbalanced: {common} has {high / low:.3g} times the "
            f"training images of {rare} ({high:,} and {low:,}){share}{advice}"
        )
    return lines


def describe_ignored(ignored: Mapping[str, int]) -> list[str]:
    """Return a line with the number of files that are not read, by kind; no line without any."""
    if not ignored:
        return []
    kinds = sorted(ignored.items(), key=lambda one: (-one[1], one[0]))
    return [f"files not read: {', '.join(f'{count:,} {kind}' for kind, count in kinds)}"]
