"""Hyperband: brackets of rounds, of each of which the best third continues.

The sizes are KerasTuner's (arXiv 1603.06560). KerasTuner promotes no trial if one of the round
failed, or if the space is smaller than the first round. Here a failed trial is the worst of its
round, and a third of a short round continues.
"""

from __future__ import annotations

import math

from reszoo.tuning.history import History, Past, Proposal, Stage
from reszoo.tuning.plan import FACTOR, Plan
from reszoo.tuning.sampling import propose_random


def propose_stage(plan: Plan, history: History) -> Proposal:
    """Return the next trial: new values in the first round of a bracket, or a promoted trial."""
    proposal = Proposal(None, drawn=history.drawn)
    rounds: dict[tuple[int, int], list[Past]] = {}
    for past in history.trials:
        if past.stage:
            rounds.setdefault((past.stage.bracket, past.stage.round), []).append(past)
    for bracket, sizes in enumerate(sweep(plan.units) * sweeps(plan)):
        size = sizes[0][0]
        first = rounds.get((bracket, 0), [])
        if len(first) < size:
            if not proposal.rejected and proposal.drawn == history.drawn:
                proposal = propose_random(plan, history)
            if proposal.values is not None:
                stage = Stage(bracket, 0, sizes[0][1])
                return Proposal(proposal.values, stage, proposal.rejected, proposal.drawn)
            size = len(first)  # the space is exhausted
        for number in range(1, len(sizes)):
            before, size = size, min(sizes[number][0], math.ceil(size / FACTOR))
            after = rounds.get((bracket, number), [])
            best = _promoted(rounds.get((bracket, number - 1), []), after, before - size)
            if best:
                stage = Stage(bracket, number, sizes[number][1], sizes[number - 1][1], best.trial)
                return Proposal(best.values, stage, proposal.rejected, proposal.drawn)
    return proposal


def _promoted(members: list[Past], after: list[Past], dropped: int) -> Past | None:
    """Return the best trial that has not continued, once more have ended than are dropped."""
    continued = {past.stage.source for past in after if past.stage}
    waiting = [past for past in members if past.status != "running" and past.trial not in continued]
    done = [past for past in waiting if past.status == "completed"]
    return max(done, key=lambda past: past.score) if done and len(waiting) > dropped else None


def sweeps(plan: Plan) -> int:
    """Return how many sweeps the training of the requested trials pays for, at least one."""
    return max(1, plan.space.search.trials * plan.units // sweep_cost(plan.units))


def sweep(units: int) -> list[list[tuple[int, int]]]:
    """Return the brackets of a sweep as rounds of (trials, units of training at their end)."""
    last = round(math.log(units, FACTOR))
    brackets = []
    for bracket in range(last, -1, -1):
        final = math.ceil(1 + math.log(units, FACTOR)) / (bracket + 1)
        left = range(bracket, -1, -1)  # rounds after this one
        brackets.append(
            [(math.ceil(final * FACTOR**n), math.ceil(units / FACTOR**n)) for n in left]
        )
    return brackets


def sweep_cost(units: int) -> int:
    """Return the units of training of a sweep, in which promoted trials continue."""
    return sum(
        trials * (end - start)
        for bracket in sweep(units)
        for (trials, end), start in zip(bracket, [0, *(end for _, end in bracket)], strict=False)
    )
