"""The rows of a micro-batch that each replica takes, and those that a worker reads."""

from __future__ import annotations

import pytest

from reszoo.data.micro_batches import Part, share_of_micro_batch

TOTALS = (1, 2, 3, 5, 7, 8, 12, 13)


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5])
def test_every_row_counts_once_and_the_shares_are_even(replicas: int) -> None:
    for micro_batches in (1, 2, 3):
        for rows in TOTALS:
            found = []
            for number in range(micro_batches):
                for replica in range(replicas):
                    share = share_of_micro_batch(rows, replica, replicas, number, micro_batches)
                    first, last, weight = (int(value) for value in share)
                    found.append((list(range(first, last)), weight))
            counted = [row for taken, weight in found if weight for row in taken]
            assert counted == list(range(rows)), (micro_batches, rows)
            sizes = [len(taken) for taken, _ in found]
            assert min(sizes) >= 1 and max(sizes) <= -(-rows // (micro_batches * replicas)) + 1
            repeated = [taken for taken, weight in found if not weight]
            assert all(len(taken) == 1 and taken[0] < rows for taken in repeated)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_workers_rows_are_the_shares_of_its_replicas(workers: int, replicas: int) -> None:
    every = workers * replicas
    for micro_batches in (1, 2, 3):
        parts = [Part(worker, workers, replicas, micro_batches) for worker in range(workers)]
        for total in TOTALS:
            rows, repeated = [part.rows(total).numpy() for part in parts], 0
            for number in range(micro_batches):
                for replica in range(every):
                    worker = replica // replicas
                    first, last, weight = parts[worker].local_share(total, replica, number)
                    low, high, same = share_of_micro_batch(
                        total, replica, every, number, micro_batches
                    )
                    read = rows[worker][int(first) : int(last)]
                    assert weight == same and read.tolist() == list(range(low, high))
                    repeated += int(weight == 0)
            if workers == 1:
                assert rows[0].tolist() == list(range(total))
            else:  # no row is read for nothing
                assert sum(map(len, rows)) == total + repeated
