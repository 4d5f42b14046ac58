"""The ring cache computes exactly what full recomputation under the banded mask computes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recgym.user_models.preference.cache import advance, prefill, slot_biases
from recgym.user_models.preference.config import NetworkConfig
from recgym.user_models.preference.network import PreferenceNetwork


def network(window: int, layers: int) -> PreferenceNetwork:
    config = NetworkConfig(
        dim=16, layers=layers, heads=2, feedforward=32, window=window, group=4, hidden=16, repeat_hidden=4
    )
    with torch.random.fork_rng():
        torch.manual_seed(window * 10 + layers)
        net = PreferenceNetwork(config, num_attributes=3)
        for block in net.blocks:
            torch.nn.init.normal_(block.distance)
    return net.eval().requires_grad_(False)


@settings(max_examples=15, deadline=None)
@given(
    window=st.integers(2, 9),
    layers=st.integers(1, 3),
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=5),
    steps=st.integers(1, 22),
    seed=st.integers(0, 2**31 - 1),
)
def test_incremental_equals_full_recomputation(window, layers, lengths, steps, seed):
    net = network(window, layers)
    generator = torch.Generator().manual_seed(seed)
    count = len(lengths)
    tokens = torch.randn(count, max(*lengths, 1), 16, generator=generator)
    position = torch.tensor(lengths)
    cache, state = prefill(net, tokens, position)
    histories = [tokens[lane, :length] for lane, length in enumerate(lengths)]
    for lane, history in enumerate(histories):
        expected = net.encode(history[None])[0, -1] if len(history) else net.start
        torch.testing.assert_close(state[lane], expected, atol=1e-4, rtol=0)
    biases = [slot_biases(block) for block in net.blocks]
    for step in range(steps):
        if step == steps // 2:  # one lane starts again from nothing; the others must not notice
            cache[0], position[0] = 0.0, 0
            histories[0] = histories[0][:0]
        new = torch.randn(count, 16, generator=generator)
        state = advance(net, biases, cache, position, new)
        position += 1
        histories = [torch.cat((history, new[lane : lane + 1])) for lane, history in enumerate(histories)]
        full = torch.stack([net.encode(history[None])[0, -1] for history in histories])
        torch.testing.assert_close(state, full, atol=1e-4, rtol=0)


def test_a_ring_cache_is_not_a_truncated_window():
    net = network(window=4, layers=2)
    tokens = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0))
    whole = net.encode(tokens)[0, -1]
    truncated = net.encode(tokens[:, -4:])[0, -1]
    receptive = net.encode(tokens[:, -7:])[0, -1]
    assert not torch.allclose(whole, truncated, atol=1e-3)
    torch.testing.assert_close(whole, receptive, atol=1e-5, rtol=0)
