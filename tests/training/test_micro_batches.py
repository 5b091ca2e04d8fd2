"""The rows of a micro-batch that each replica takes."""

from __future__ import annotations

import pytest
import tensorflow as tf

from reszoo.training.micro_batches import share_of_micro_batch


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5])
def test_every_row_counts_once_and_the_shares_are_even(replicas: int) -> None:
    for micro_batches in (1, 2, 3):
        for rows in (1, 2, 3, 5, 7, 8, 12, 13):
            found = []
            for number in range(micro_batches):
                for replica in range(replicas):
                    share = share_of_micro_batch(
                        tf.constant(rows), replica, replicas, number, micro_batches
                    )
                    first, last, weight = (int(value) for value in share)
                    found.append((list(range(first, last)), weight))
            counted = [row for taken, weight in found if weight for row in taken]
            assert counted == list(range(rows)), (micro_batches, rows)
            sizes = [len(taken) for taken, _ in found]
            assert min(sizes) >= 1 and max(sizes) <= -(-rows // (micro_batches * replicas)) + 1
            repeated = [taken for taken, weight in found if not weight]
            assert all(len(taken) == 1 and taken[0] < rows for taken in repeated)
