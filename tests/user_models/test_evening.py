"""Evened texts: centred, on average of unit variance, strong directions weakened and weak ones kept."""

from __future__ import annotations

import pytest
import torch

from recgym.user_models.preference.evening import Evening


def texts(count: int = 4000) -> torch.Tensor:
    """Texts [count, 6] of standard deviations 4, 1 and 1/4 in three directions and none in the others."""
    drawn = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=drawn, dtype=torch.float64)).Q
    values = torch.randn(count, 3, generator=drawn, dtype=torch.float64) * torch.tensor([4.0, 1.0, 0.25])
    return (values @ basis[:3] + 5.0).float()


def test_standard_deviations_become_their_square_roots_at_unit_variance() -> None:
    text = texts()
    told = Evening.of(text, 5)(text)
    assert told.shape == (len(text), 3)  # two directions of five have no variance
    assert told.mean(0).abs().max() < 1e-4
    spread = told.std(0)
    torch.testing.assert_close(spread / spread[1], torch.tensor([2.0, 1.0, 0.5]), rtol=0.05, atol=0.0)
    assert abs(float(told.var(0).mean()) - 1.0) < 1e-4


def test_new_texts_are_evened_as_the_known_ones_are() -> None:
    text = texts()
    even = Evening.of(text, 2)
    torch.testing.assert_close(even(text[:7]), even(text)[:7], rtol=1e-4, atol=1e-5)
    assert even.directions.shape == (6, 2)


@pytest.mark.parametrize("text", [torch.ones(7, 6), torch.zeros(7, 6)])
def test_one_text_for_all_items_tells_nothing(text: torch.Tensor) -> None:
    assert torch.equal(Evening.of(text, 4)(text), torch.zeros(7, 1))
