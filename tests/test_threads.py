"""One thread for small steps, and the user's own number back afterwards."""

from __future__ import annotations

import pytest
import torch

from recgym.threads import one_thread


def test_the_number_of_threads_comes_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
