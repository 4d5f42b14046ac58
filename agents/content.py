"""Content-based: candidates whose text is like that of what the user bought (Pazzani and Billsus, 2007)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from recgym.agents.collaborative import CollaborativeAgent
from recgym.agents.features.factors import Factors
from recgym.agents.features.pairs import Pairs

_MANY = 1e3  # ridge of unknown users: so strong that a folded-in user points to the mean of the history


class ContentAgent(CollaborativeAgent):
    """Scores by the cosine of the item's text vector and the user's, a mean over what the user bought.

    Purchases weigh log(1 + trips). Text vectors are the 16 principal components that are observable of every item.
    What others bought decides nothing but ties.
    """

    id = "content"
    Model = Factors

    def learn(self, pairs: Pairs) -> Factors:
        """See ``CollaborativeAgent``."""
        text = F.normalize(self.world.item_tensors["text_pca"].float(), dim=1)
        profile = torch.zeros(pairs.num_users, text.shape[1])
        profile.index_add_(0, pairs.users, text[pairs.items] * pairs.values.log1p()[:, None])
        return Factors(
            users=F.normalize(profile, dim=1),
            items=text,
            bias=torch.zeros(len(text)),
            ridge=_MANY * torch.eye(text.shape[1]),
            confidence=torch.ones(()),
        )
