"""Hyperband: sizes as KerasTuner's, promotion, failures, small spaces and workers that wait."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from pathlib import Path

import keras_tuner
import pytest

from reszoo.errors import ReszooError
from reszoo.tuning.history import History
from reszoo.tuning.hyperband import sweep, sweep_cost, sweeps
from reszoo.tuning.proposals import expected_trainings, expected_trials, propose
from tests.tuning.helpers import extend, plan_of, play, score


@pytest.mark.parametrize("units", [3, 9, 27])
def test_a_sweep_has_kerastuners_sizes(units: int) -> None:
    theirs = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"), max_epochs=units, factor=3
    )
    brackets = sweep(units)
    assert len(brackets) == theirs._get_num_brackets()
    for number, rounds in zip(range(len(brackets) - 1, -1, -1), brackets, strict=True):
        steps = range(number + 1)
        assert rounds == [
            (theirs._get_size(number, step), theirs._get_epochs(number, step)) for step in steps
        ]


def test_each_round_continues_with_its_best(tiny: Path) -> None:
    plan = plan_of(tiny, 9.0, tuner="hyperband")
    history = play(plan)
    past = {each.trial: each for each in history.trials}
    stages = [each.stage for each in history.trials if each.stage]
    assert len(past) == expected_trials(plan) == sum(n for rounds in sweep(9) for n, _ in rounds)
    assert sum(stage.end - stage.start for stage in stages) == sweep_cost(9)
    assert expected_trainings(plan) == sweep_cost(9) / 9
    for bracket, sizes in enumerate(sweep(9)):
        rounds = [
            [
                t
                for t in history.trials
                if t.stage and (t.stage.bracket, t.stage.round) == (bracket, n)
            ]
            for n, _ in enumerate(sizes)
        ]
        assert [len(members) for members in rounds] == [size for size, _ in sizes]
        for before, after in itertools.pairwise(rounds):
            continued = [past[each.stage.source or ""] for each in after if each.stage]
            best = sorted((each.score for each in before), reverse=True)[: len(after)]
            assert sorted((each.score for each in continued), reverse=True) == best
            for each, source in zip(after, continued, strict=True):
                assert each.values == source.values and each.stage and source.stage
                assert each.stage.start == source.stage.end < each.stage.end


@pytest.mark.parametrize(("trials", "expected"), [(0, 1), (5, 1), (14, 1), (28, 2), (42, 3)])
def test_trials_are_paid_in_whole_sweeps(trials: int, expected: int, tiny: Path) -> None:
    assert sweeps(plan_of(tiny, tuner="hyperband", trials=trials)) == expected
    assert expected == 1 or expected * sweep_cost(27) <= trials * 27


@pytest.mark.parametrize(
    ("epochs", "units"), [(1, 1), (2.9, 1), (3, 3), (8.99, 3), (9, 9), (26, 9), (27, 27), (500, 27)]
)
def test_a_training_is_divided_into_what_its_epochs_hold(
    epochs: float, units: int, tiny: Path
) -> None:
    plan = plan_of(tiny, epochs, tuner="hyperband")
    rejected = pytest.raises(ReszooError, match="expected at least 3 epochs")
    assert plan.units == units
    with contextlib.nullcontext() if units > 1 else rejected:
        plan.check()


def test_a_space_smaller_than_the_first_round_is_trained_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        'recipe = "quickstart"\nset = ["model.stem_width=4"]\n[space]\nmodel.shortcut = ["none", "A"]\n'
        "schedule.rate = [0.02, 0.05, 0.08]\n[space.width.options]\n"
        "4 = { model.widths = [4, 4, 8] }\n8 = { model.widths = [8, 8, 16] }\n"
    )
    history = play(plan_of(path, tuner="hyperband"))
    by_round = [
        [each.values for each in history.trials if each.stage and each.stage.round == number]
        for number in range(4)
    ]
    assert [len(values) for values in by_round] == [12, 4, 2, 1]  # a third each time, rounded up
    assert by_round[3] == [max(by_round[0], key=score)]


def test_failed_trials_are_the_worst_of_their_round_and_do_not_block_it(tiny: Path) -> None:
    plan = plan_of(tiny, 9.0, tuner="hyperband")
    history = play(plan, 13, fails=lambda number: number % 2 == 0)
    stages = [each.stage for each in history.trials if each.stage]
    assert [stage.round for stage in stages] == [0] * 9 + [1] * 3 + [2]
    past = {each.trial: each for each in history.trials}
    assert all(past[stage.source].status == "completed" for stage in stages if stage.source)
    # If all fail, none continues, and the next bracket starts.
    history = play(plan, fails=lambda number: True)
    assert all(each.stage and each.stage.round == 0 for each in history.trials)
    assert len(history.trials) == sum(bracket[0][0] for bracket in sweep(9))


def test_more_sweeps_may_be_requested_later(tiny: Path) -> None:
    plan, more = (plan_of(tiny, 3.0, tuner="hyperband", trials=trials) for trials in (0, 8))
    history = play(plan)
    proposal = propose(more, history)
    assert proposal.stage and proposal.stage.bracket == 2 and sweeps(more) == 2
    assert propose(plan, history).values is None


def test_workers_wait_for_the_end_of_a_round_and_meanwhile_start_the_next_bracket(
    tiny: Path,
) -> None:
    plan, history = plan_of(tiny, 3.0, tuner="hyperband"), History()  # 3 then 1, and 2
    for _ in range(5):
        history = extend(plan, history, propose(plan, history))
    stages = [each.stage for each in history.trials if each.stage]
    assert [stage.bracket for stage in stages] == [0, 0, 0, 0, 1]  # in turn: the fourth is promoted

    def running(*numbers: int) -> History:
        started = play(plan, 3).trials
        return History(
            tuple(
                replace(each, status="running") if number in numbers else each
                for number, each in enumerate(started)
            ),
            (),
            play(plan, 3).drawn,
        )

    next_bracket, promoted = propose(plan, running(0, 1, 2)), propose(plan, running())
    assert next_bracket.stage and next_bracket.stage.bracket == 1
    assert promoted.stage and promoted.stage.round == 1
    both = running(2)
    for _ in range(2):  # bracket 1 has two trials; the third of bracket 0 may yet be the best
        both = extend(plan, both, propose(plan, both))
    assert propose(plan, both).values is None
