"""Incremental sequence state: a ring buffer of keys and values per layer, advanced a token for all users at once.

Of W tokens a layer holds the keys as [dim, W] and the values as [W, dim], so that both of attention's sums run along
rows; a cache keeps them flat, [B, layers, 2, W * dim].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recgym.user_models.preference.network import Block, PreferenceNetwork
from recgym.user_models.preference.numerics import linear


def slot_biases(block: Block) -> Tensor:
    """Attention bias by position and ring slot, [2 W, heads, W].

    Row p < W is for the p-th token while the ring fills (empty slots get -inf); row W + s for a full ring whose newest
    token lies in slot s.
    """
    window = block.window
    position = torch.arange(2 * window)[:, None]
    distance = (position - torch.arange(window)[None, :]) % window
    bias = block.distance.detach()[:, distance].transpose(0, 1).clone()  # [2 W, heads, W]
    empty = (position < window) & (distance > position)
    return bias.masked_fill(empty[:, None, :], -torch.inf)


def advance(
    network: PreferenceNetwork, biases: list[Tensor], cache: Tensor, position: Tensor, tokens: Tensor
) -> Tensor:
    """Sequence state [B, dim] after one more token; ``cache`` is written in place, ``position`` is left to the caller.

    Equals ``network.encode`` over the whole history under the banded mask, up to float rounding.

    Args:
        network: in evaluation mode.
        biases: ``slot_biases`` of each block.
        cache: float [B, layers, 2, W * dim]; keys and values.
        position: int64 [B], tokens seen before this one.
        tokens: float [B, dim] token inputs.
    """
    window, heads = network.config.window, network.config.heads
    lanes = torch.arange(tokens.shape[0], device=tokens.device)
    slot = position % window
    row = torch.where(position < window, position, window + slot)
    x = tokens
    for layer, (block, bias) in enumerate(zip(network.blocks, biases, strict=True)):
        normed = F.layer_norm(x, x.shape[-1:], block.norm_attention.weight, block.norm_attention.bias)
        q, k, v = linear(normed, block.qkv.weight, block.qkv.bias).chunk(3, dim=-1)
        keys = cache[:, layer, 0].unflatten(-1, (-1, window))  # [B, dim, W]
        values = cache[:, layer, 1].unflatten(-1, (window, -1))  # [B, W, dim]
        keys[lanes, :, slot] = k.to(cache.dtype)
        values[lanes, slot] = v.to(cache.dtype)
        q = q.unflatten(-1, (heads, -1)) * (q.shape[-1] // heads) ** -0.5
        scores = (keys.unflatten(1, (heads, -1)) * q[..., None]).sum(2) + bias[row]  # [B, heads, W]
        shares = scores.softmax(dim=2).transpose(1, 2)[..., None]  # [B, W, heads, 1]
        attended = (values.unflatten(-1, (heads, -1)) * shares).sum(1).flatten(1)
        x = x + linear(attended, block.out.weight, block.out.bias)
        normed = F.layer_norm(x, x.shape[-1:], block.norm_feedforward.weight, block.norm_feedforward.bias)
        wide = F.gelu(linear(normed, block.expand.weight, block.expand.bias))
        x = x + linear(wide, block.contract.weight, block.contract.bias)
    return F.layer_norm(x, x.shape[-1:], network.norm_out.weight, network.norm_out.bias)


def prefill(network: PreferenceNetwork, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Caches and sequence states after whole histories.

    Args:
        network: in evaluation mode.
        tokens: float [B, T, dim] token inputs, right-padded.
        lengths: int64 [B], tokens of each history (0 allowed).

    Returns:
        cache [B, layers, 2, W * dim] with token p in slot p % W, and states [B, dim].
    """
    window = network.config.window
    batch, total, dim = tokens.shape
    slots = torch.arange(window, device=tokens.device)
    newest = lengths[:, None] - 1
    index = newest - (newest - slots) % window  # [B, W]: the newest token that lies in each slot
    held = (index >= 0)[..., None]
    index = index.clamp(min=0)[..., None].expand(-1, -1, dim)
    layers = []
    x = tokens
    for block in network.blocks:
        _, keys, values = block.qkv(block.norm_attention(x)).chunk(3, dim=-1)
        keys, values = (t.gather(1, index) * held for t in (keys, values))  # [B, W, dim]
        layers.append(torch.stack((keys.transpose(1, 2).flatten(1), values.flatten(1)), dim=1))
        x = block(x)
    states = network.norm_out(x)
    last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, dim)
    state = torch.where((lengths > 0)[:, None], states.gather(1, last)[:, 0], network.start)
    return torch.stack(layers, dim=1), state
