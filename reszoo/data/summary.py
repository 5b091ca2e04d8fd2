"""Lines that describe a dataset to a person: images per class, class imbalance, and files that are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Classes that are listed one by one; of more, the smallest, the median and the largest are given.
LISTED = 10

# A dataset is called imbalanced if its largest class has this many times the images of its smallest.
IMBALANCED = 3


def describe_classes(
    class_names: Sequence[str], class_counts: Mapping[str, Sequence[int]]
) -> list[str]:
    """Return one line per split with the number of images of each class, or their range if there are many classes.

    Args:
        class_names: in label order.
        class_counts: of each split, the number of images of each class.
    """
    lines = []
    for split, counts in class_counts.items():
        if len(counts) <= LISTED:
            text = ", ".join(
                f"{name} {count:,}" for name, count in zip(class_names, counts, strict=True)
            )
        else:
            order = sorted(range(len(counts)), key=lambda label: counts[label])
            low, middle, high = order[0], order[len(order) // 2], order[-1]
            text = (
                f"smallest {counts[low]:,} ({class_names[low]}), median {counts[middle]:,}, "
                f"largest {counts[high]:,} ({class_names[high]})"
            )
        lines.append(f"{split} images per class: {text}")
    return lines


def is_imbalanced(counts: Sequence[int]) -> bool:
    """Return whether the largest class has `IMBALANCED` times the images of the smallest, or more."""
    return max(counts) >= IMBALANCED * min(counts) and max(counts) > min(counts)


def warn_of_imbalance(
    class_names: Sequence[str], class_counts: Mapping[str, Sequence[int]]
) -> list[str]:
    """Return a warning if the training classes are imbalanced, or if a class is missing in another split; else no line."""
    lines = []
    for split, counts in class_counts.items():
        absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
        if absent:
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            lines.append(
                f"warning: the {split} split has no image of {', '.join(absent[:3])}{more}"
            )
    training: list[int] = list(class_counts.get("train", ()))
    if training and min(training) > 0 and is_imbalanced(training):
        low, high = training.index(min(training)), training.index(max(training))
        lines.append(
            f"warning: the classes are imbalanced: {class_names[high]} has {training[high] / training[low]:.3g} times the training images "
            f"of {class_names[low]} ({training[high]:,} and {training[low]:,}); {100 * training[high] / sum(training):.3g} % of all are "
            f"{class_names[high]}"
        )
    return lines


def describe_ignored(ignored: Mapping[str, int]) -> list[str]:
    """Return a line with how many files were not read, by kind; no line if there are none."""
    if not ignored:
        return []
    kinds = ", ".join(
        f"{count:,} {kind}"
        for kind, count in sorted(ignored.items(), key=lambda one: (-one[1], one[0]))
    )
    return [f"files not read: {kinds}"]
