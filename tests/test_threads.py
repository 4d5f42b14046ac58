"""One thread for small steps, several for chunks, and the user's own number back afterwards."""

from __future__ import annotations

import threading

import pytest
import torch

from recgym.threads import chunk_threads, num_chunk_threads, one_thread, spread


def test_the_number_of_threads_comes_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_are_spread_over_the_threads_there_were(two_threads: None) -> None:
    both = threading.Barrier(2, timeout=30)  # passed only if two parts are computed at once

    def meet(part: int) -> tuple[int, int]:
        both.wait()
        assert not torch.is_grad_enabled()
        return part, torch.get_num_threads()

    with chunk_threads():
        assert (num_chunk_threads(), torch.get_num_threads()) == (2, 1)
        assert spread(meet, [0, 1, 2, 3]) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert (num_chunk_threads(), torch.get_num_threads()) == (1, 2)
    caller = threading.get_ident()
    assert spread(lambda _: threading.get_ident(), [0, 1]) == [caller, caller]  # outside: the caller's own thread


def test_the_first_failure_is_raised_after_all_parts_are_done(two_threads: None) -> None:
    done = []

    def work(part: int) -> None:
        if part in (1, 2):
            raise ValueError(f"part {part}")
        done.append(part)

    with chunk_threads(), pytest.raises(ValueError, match="part 1"):
        spread(work, [0, 1, 2, 3])
    assert sorted(done) == [0, 3]
