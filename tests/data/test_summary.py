"""What a person reads about a dataset's classes and files."""

from __future__ import annotations

from reszoo.data.summary import describe_classes, describe_ignored, is_imbalanced, warn_of_imbalance


def test_few_classes_are_listed_and_many_are_summed_up() -> None:
    assert describe_classes(["cat", "dog"], {"train": [1200, 10], "test": [4, 5]}) == [
        "train images per class: cat 1,200, dog 10",
        "test images per class: cat 4, dog 5",
    ]
    names = [f"c{i}" for i in range(11)]
    assert describe_classes(names, {"train": [10 * (i + 1) for i in reversed(range(11))]}) == [
        "train images per class: smallest 10 (c10), median 60, largest 110 (c0)"
    ]


def test_imbalance_is_a_factor_of_three() -> None:
    assert [
        is_imbalanced(counts) for counts in ([10, 29], [10, 30], [1, 2, 3], [5, 5], [1, 1])
    ] == [False, True, True, False, False]


def test_the_warning_names_classes_ratio_and_share() -> None:
    assert warn_of_imbalance(
        ["dog", "cat", "owl"], {"train": [10, 150, 40], "test": [1, 1, 1]}
    ) == [
        "warning: the classes are imbalanced: cat has 15 times the training images of dog (150 and 10); 75 % of all are cat; try train.class_weights=balanced or data.sampler=balanced"
    ]
    assert warn_of_imbalance(["dog", "cat"], {"train": [10, 12], "test": [1, 9]}) == []
    assert warn_of_imbalance(["dog", "cat"], {"train": [10, 12], "test": [0, 9]}) == [
        "warning: the test split has no image of dog"
    ]
    assert warn_of_imbalance(["dog", "cat"], {}) == []
    for count, absent in ((3, "a, b, c"), (4, "a, b, c and 1 more"), (5, "a, b, c and 2 more")):
        counts = [*[0] * count, *[7] * (6 - count)]
        assert warn_of_imbalance(list("abcdef"), {"test": counts}) == [
            f"warning: the test split has no image of {absent}"
        ]


def test_files_that_are_not_read_are_counted_by_kind() -> None:
    assert describe_ignored({}) == []
    assert describe_ignored({".txt": 2, "HEIC": 1500, "hidden": 2}) == [
        "files not read: 1,500 HEIC, 2 .txt, 2 hidden"
    ]
