"""Settings that cannot work are refused before anything is trained."""

import pydantic
import pytest

from recgym.user_models.preference.config import NetworkConfig, RatingConfig


def test_heads_divide_the_width() -> None:
    with pytest.raises(pydantic.ValidationError, match="3 heads do not divide 64"):
        NetworkConfig(heads=3)
    assert NetworkConfig(heads=3, dim=48).heads == 3


def test_at_least_half_of_the_ratings_is_seen() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"less than or equal to 0\.5"):
        RatingConfig(hidden_share=0.7)
    assert RatingConfig(hidden_share=0.5).hidden_share == 0.5
