"""SlateQ (Ie et al., IJCAI 2019): the value of a slate, decomposed into long-term values of its items.

The paper is "SlateQ: a tractable decomposition for reinforcement learning with recommendation sets".

Q(s, A) = sum over i in A of P(i | s, A) Q(s, i) + P(nothing | s, A) Q(s, nothing): a user model times the long-term
value of each item that was consumed. With A(s, i) = Q(s, i) - Q(s, nothing), what an item adds, that is
Q(s, A) = Q(s, nothing) + sum over i in A of P(i | s, A) A(s, i). P, A and Q(s, nothing) are learned here.

Departures from the paper: a user here may consume several items of a slate, each by itself, so P(i | s, A) is a
logistic model of the item alone, and what follows a slate, above what follows nothing, is split evenly among the items
consumed, which keeps the second form exact (``item_targets``). Slates are filled by P(i | s) A(s, i), which maximises
it; the paper's top-K heuristic is P(i | s) Q(s, i), which ranks by P alone where most of Q follows anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recgym.agents.learning import LearnerConfig, ReplayAgent, Trainer, descend, follow
from recgym.agents.networks import SlateScorer, StateNetwork
from recgym.agents.replay import Replay
from recgym.agents.search import Search


class SlateQConfig(LearnerConfig):
    """Settings of ``SlateQAgent``."""

    exploration: Annotated[float, Search(0.01, 0.5, log=True)] = Field(
        0.1, ge=0, le=1, description="chance that a lane shows a random slate"
    )
    target_rate: float = Field(0.05, gt=0, le=1, description="share by which targets follow at each gradient step")


class SlateQNetwork(nn.Module):
    """A user model, the item-wise long-term value, and that of consuming nothing."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int) -> None:
        """For ``num_user`` and ``num_candidate`` features."""
        super().__init__()
        self.choice = SlateScorer(num_user, num_candidate, hidden)  # logit of being consumed where shown
        self.value = SlateScorer(num_user, num_candidate, hidden)
        self.nothing = StateNetwork(num_user, num_candidate, hidden)

    def forward(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of choice [B, M], what items are worth above consuming nothing [B, M], and the value [B] of that."""
        u, c = self.choice.standardised(user, candidates)  # scaled alike in both scorers
        return self.choice.of_standardised(u, c), self.value.of_standardised(u, c), self.nothing(u, c).squeeze(1)


class SlateQAgent(ReplayAgent):
    """Shows the candidates of largest P(i | s) A(s, i)."""

    id = "slateq"
    Config = SlateQConfig

    def build(self, num_user: int, num_candidate: int) -> nn.Module:
        """See ``NetworkAgent.build``."""
        return SlateQNetwork(num_user, num_candidate, self.config.hidden)

    def scores(self, user: Tensor, candidates: Tensor) -> Tensor:
        """See ``NetworkAgent.scores``."""
        logits, above, _ = self.network(user, candidates)
        return torch.exp(-torch.log1p(torch.exp(-logits))) * above  # torch.sigmoid rounds by place, these do not

    def trainer(self, slate_size: int) -> Trainer:
        """See ``ReplayAgent.trainer``."""
        return _Trainer(self, slate_size)


def item_targets(own: Tensor, consumed: Tensor, after: Tensor, nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Targets of A(s, i) where item i was consumed [n, K], and of Q(s, nothing) where nothing was [n].

    With Q(s, nothing), the targets of what was consumed sum to the slate's reward and all that follows it.

    Args:
        own: reward by position [n, K].
        consumed: bool [n, K].
        after: discounted value [n] of the state that follows.
        nothing: Q(s, nothing) as it is estimated now [n].
    """
    number = consumed.sum(1).clamp(min=1)
    return own + ((after - nothing) / number)[:, None], after + own.sum(1)


def slate_value(choice: Tensor, above: Tensor, nothing: Tensor) -> Tensor:
    """Q(s, A) [n] from P(i | s) and A(s, i) of the slate's items [n, K], and Q(s, nothing) [n]."""
    return nothing + (choice * above).sum(1)


class _Trainer:
    """See ``recgym.agents.learning.Trainer``."""

    def __init__(self, agent: SlateQAgent, slate_size: int) -> None:
        self.config, self.slate_size = agent.config, slate_size
        self.network, self.target = agent.network, copy.deepcopy(agent.network)
        self.modules: Mapping[str, nn.Module] = {"network": self.network, "target": self.target}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(self.network.parameters(), self.config.learning_rate)
        }
        self.replay = Replay(self.config.replay_size)
        self.agent = agent

    def explore(self, user: Tensor, candidates: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.agent.shown_last(self.agent.scores(user, candidates), candidates)
        random = torch.rand(scores.shape, generator=generator)
        explore = torch.rand(len(scores), 1, generator=generator) < self.config.exploration
        slates = torch.where(explore, random, scores).topk(self.slate_size).indices
        return slates, {"slate": slates}

    def update(self, generator: torch.Generator) -> dict[str, float]:
        batch = self.replay.sample(self.config.batch_size, generator)
        slate, consumed = batch.more["slate"], batch.more["consumed"]
        with torch.no_grad():
            logits, above, nothing = self.target(batch.next_user, batch.next_candidates)
            choice = logits.sigmoid()
            ranked = self.agent.shown_last(choice * above, batch.next_candidates)
            best = ranked.topk(self.slate_size).indices
            follows = slate_value(choice.gather(1, best), above.gather(1, best), nothing)
            after = self.config.gamma * (1.0 - batch.terminated) * follows
        logits, above, nothing = self.network(batch.user, batch.candidates)
        item_target, nothing_target = item_targets(batch.more["own"], consumed, after, nothing.detach())
        choice_loss = binary_cross_entropy_with_logits(logits.gather(1, slate), consumed.float())
        errors = (above.gather(1, slate) - item_target)[consumed]
        nothing_errors = (nothing - nothing_target)[~consumed.any(1)]
        value_loss = errors.square().sum() / max(len(errors), 1)
        nothing_loss = nothing_errors.square().sum() / max(len(nothing_errors), 1)
        loss = choice_loss + value_loss + nothing_loss
        descend(self.optimizers["network"], loss, self.config.max_grad_norm)
        follow(self.target, self.network, self.config.target_rate)
        return {"choice_loss": choice_loss.item(), "value_loss": value_loss.item(), "nothing_loss": nothing_loss.item()}
