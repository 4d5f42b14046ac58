"""Planning on branches of the simulation: privileged, for upper bounds and examples, never for competitors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from recgym.errors import RecGymError
from recgym.simulation.simulator import Simulator
from recgym.simulation.state import State

Policy = Callable[[Simulator, State], Tensor]  # the slates int64 [B, K] that B lanes are shown

_BRANCHES = 4096  # stepped together; more would only take memory


def ranked(limit: int, group: Tensor | None = None) -> Policy:
    """The candidates with the largest expected immediate reward, at most ``limit`` of a group, the best first.

    Where candidates of other groups run out, the slate is filled up with the best that are left.

    Args:
        limit: items of one group on a slate.
        group: of each item, int64 [N]; None: no limit applies, which is greedy.
    """

    def slates(simulator: Simulator, state: State) -> Tensor:
        items = state.candidates.to(torch.int64)
        expected = simulator.expected_reward(state, items)
        order = expected.argsort(dim=1, descending=True, stable=True)
        if group is not None:
            of = group[items.gather(1, order)]  # [B, M]
            before = (of[:, :, None] == of[:, None, :]).tril_(-1).sum(dim=2)  # better ones of the same group
            order = order.gather(1, (before >= limit).to(torch.uint8).argsort(dim=1, stable=True))
        return items.gather(1, order[:, : simulator.slate_size])

    return slates


@torch.no_grad()
def look_ahead(
    simulator: Simulator,
    state: State,
    policies: Sequence[Policy],
    *,
    depth: int,
    copies: int = 1,
    luck: Literal["same", "fresh"] = "fresh",
    days: int | None = None,
) -> Tensor:
    """The slates of whichever policy earns most when it is followed from here on, found by trying each on branches.

    Known as policy switching, a rollout algorithm (Chang, Givan and Chong, 2004): with exact averages it is no worse
    than the best of the policies. All policies meet the same luck in the same branch. With the ``same`` luck as the
    lanes themselves it is clairvoyant: what it earns is out of reach for anyone who does not know the draws to come.

    Args:
        simulator: of ``state``.
        state: B lanes; left as it is.
        policies: what may be followed; ties go to the first.
        depth: slates that a branch looks ahead.
        copies: branches a lane and policy with ``fresh`` luck, averaged; more of the ``same`` luck would all be alike.
        luck: see ``Simulator.branch``.
        days: of simulated time after which a branch ends as well; None: only slates count. Slates alone make visits
            that are far apart worth as much as frequent ones.

    Returns:
        int64 [B, K].

    Raises:
        RecGymError: no policies, or ``depth``, ``copies`` or ``days`` below 1.
    """
    if not policies or min(depth, copies, 1 if days is None else days) < 1:
        raise RecGymError(
            f"look_ahead needs a policy, depth >= 1, copies >= 1 and days >= 1 or None, got {len(policies)} policies, "
            f"depth {depth}, {copies} copies and {days} days"
        )
    lanes = torch.arange(len(state.seed), device=simulator.device)
    parts = [state.select(rows) for rows in lanes.split(max(_BRANCHES // copies, 1))]
    return torch.cat([_best(simulator, part, policies, depth, copies, luck, days) for part in parts])


def _best(
    simulator: Simulator,
    state: State,
    policies: Sequence[Policy],
    depth: int,
    copies: int,
    luck: Literal["same", "fresh"],
    days: int | None,
) -> Tensor:
    firsts, worths = [], []
    for policy in policies:
        branches = simulator.branch(state, copies, luck)
        earned = torch.zeros(len(branches.seed), dtype=torch.float64, device=simulator.device)
        alive = torch.ones(len(branches.seed), dtype=torch.bool, device=simulator.device)
        begun = branches.visit.day.clone()
        for step in range(depth):
            slate = policy(simulator, branches)
            if step == 0:
                firsts.append(slate[::copies])
            branches, outcome = simulator.step(branches, slate, alive)
            earned += outcome.reward * alive
            alive = alive & ~(outcome.terminated | outcome.truncated)
            if days is not None:
                alive &= branches.visit.day - begun < days
            if not alive.any():
                break
        worths.append(earned.view(-1, copies).mean(dim=1))
    best = torch.stack(worths).argmax(dim=0)  # [B]
    return torch.stack(firsts)[best, torch.arange(len(best), device=best.device)]
