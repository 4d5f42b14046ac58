"""The floor: the arithmetic of a step as bare torch calls into buffers made beforehand, without luck or bookkeeping.

A step advances the user model's Transformer by one token, fuses the user state, scores the items of the slate and
writes the default observation. Weights and inputs are random numbers of the shipped model's shapes. What a simulator
adds is left out: draws, examination, the trip's memory, the purchase record, candidates, sessions, resets and checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import recgym

CHUNKS = (64, 128, 256, 512, 1024, 2048, 4096)
TRIAL = 0.6  # seconds that each way of splitting the work is tried for
GATES = 4  # sources fused: sequence, graph, attributes, time
TIME, PAIR, PACE = 9, 6, 4  # features


class Chunk:
    """Some lanes with all their buffers. n lanes, d width, W window, h heads, K slots, M candidates."""

    def __init__(self, lanes: int, sizes: dict[str, int], tables: dict[str, Tensor], seed: int) -> None:
        """Buffers of ``lanes`` lanes; ``tables`` are shared by all chunks."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        def rows(stop: int, *shape: int) -> Tensor:
            return torch.randint(stop, shape, generator=generator)

        self.n, self.sizes, self.tables = lanes, sizes, tables
        d, window, heads, slots = sizes["dim"], sizes["window"], sizes["heads"], sizes["slate"]
        wide, hidden, repeat = sizes["feedforward"], sizes["hidden"], sizes["repeat_hidden"]
        n = lanes
        self.cache = normal(sizes["layers"], 2, n * heads * window, d // heads)
        self.base = (torch.arange(n * heads) * window).view(n, heads)
        self.slot = rows(window, n)
        self.slate = rows(sizes["items"], n * slots)
        self.feedback = rows(21, n * slots)
        self.bags = torch.arange(0, n * slots, slots)
        self.consumed = (torch.rand(n * slots, generator=generator) < 0.1).float()
        self.ignored = 1.0 - self.consumed
        self.scale = torch.rand(2, n, 1, generator=generator)
        self.counts, self.gap = normal(n, 2), normal(n, d)
        self.time, self.history = normal(n, TIME), normal(n * slots, PAIR)
        self.pace = normal(n, PACE)
        self.static_gate, self.static_parts = normal(n, GATES * d), normal(n, 2, d)
        self.user, self.own = normal(n, sizes["user"]), normal(n, sizes["candidates"], 3)
        self.drawn = rows(sizes["items"], n * sizes["candidates"])

        empty = torch.empty
        self.qkv = empty(n, 3 * d)
        self.bias = empty(n, heads * window)
        self.wide = empty(n, wide)
        self.gates = empty(n, GATES * d)
        self.part, self.fused = empty(n, d), empty(n, d)
        self.query = empty(n, hidden + d + repeat)
        self.items = empty(n * slots, hidden + d + repeat + 1)
        self.hidden = empty(n, slots, hidden)
        self.inner, self.second = empty(n * slots, repeat), empty(n * slots, repeat)
        self.logit, self.term = empty(n, slots), empty(n, slots)

    def advance(self) -> Tensor:
        """One more token for every lane: [n, d]."""
        t, s, n = self.tables, self.sizes, self.n
        d, window, heads = s["dim"], s["window"], s["heads"]
        token = _pooled(t["token"], self.slate, self.bags, self.consumed)
        token += _pooled(t["feedback"], self.feedback, self.bags, self.consumed)
        passed = _pooled(t["ignored"], self.slate, self.bags, self.ignored)
        token.mul_(self.scale[0]).addcmul_(passed, self.scale[1]).add_(self.gap)
        x = F.layer_norm(token.addmm_(self.counts, t["size"]), (d,))
        self.slot.add_(1).remainder_(window)
        place = (self.base + self.slot[:, None]).view(-1)
        for layer in range(s["layers"]):
            keys, values = self.cache[layer, 0], self.cache[layer, 1]
            torch.addmm(t["qkv_bias"], F.layer_norm(x, (d,)), t["qkv"], out=self.qkv)
            query, key, value = self.qkv.view(n, 3, heads, 1, d // heads).unbind(1)
            keys.index_copy_(0, place, key.reshape(n * heads, -1))
            values.index_copy_(0, place, value.reshape(n * heads, -1))
            torch.index_select(t["distance"], 0, self.slot, out=self.bias)
            # One query a head: of torch's ways, this one is faster than multiply and sum, which is faster than bmm.
            attended = F.scaled_dot_product_attention(
                query.contiguous(),
                keys.view(n, heads, window, -1),
                values.view(n, heads, window, -1),
                attn_mask=self.bias.view(n, heads, 1, window),
            )
            x = torch.addmm(x, attended.reshape(n, d), t["attention"])
            torch.addmm(t["expand_bias"], F.layer_norm(x, (d,)), t["expand"], out=self.wide)
            x = torch.addmm(x, F.gelu(self.wide), t["contract"])
        return F.layer_norm(x, (d,))

    def fuse(self, sequence: Tensor) -> None:
        """The fused user state, and what the heads need of it."""
        t, d = self.tables, self.sizes["dim"]
        torch.addmm(self.static_gate, sequence, t["gate_sequence"], out=self.gates)
        self.gates.addmm_(self.time, t["gate_time"])
        gates = self.gates.sigmoid_().view(self.n, GATES, d)
        torch.mm(sequence, t["project_sequence"], out=self.part)
        torch.mul(gates[:, 0], self.part, out=self.fused)
        torch.mm(self.time, t["project_time"], out=self.part)
        self.fused.addcmul_(gates[:, 1], self.part)
        self.fused.addcmul_(gates[:, 2], self.static_parts[:, 0]).addcmul_(gates[:, 3], self.static_parts[:, 1])
        torch.addmm(t["query_bias"], self.fused, t["query"], out=self.query)

    def score(self) -> None:
        """Purchase probability and quantity of every item on the slate."""
        t, s, n = self.tables, self.sizes, self.n
        d, hidden, slots = s["dim"], s["hidden"], s["slate"]
        torch.index_select(t["items"], 0, self.slate, out=self.items)
        items, query = self.items.view(n, slots, -1), self.query[:, None]
        torch.add(items[..., :hidden], query[..., :hidden], out=self.hidden)
        F.silu(self.hidden, inplace=True)
        torch.matmul(self.hidden, t["purchase"], out=self.logit)
        items[..., hidden : hidden + d].mul_(query[..., hidden : hidden + d])
        self.logit.add_(items[..., hidden : hidden + d].sum(-1)).add_(items[..., -1])
        self.query[:, hidden + d :].addmm_(self.pace, t["repeat_pace"])
        torch.mm(self.history, t["repeat_pair"], out=self.inner)
        inner = self.inner.view(n, slots, -1).add_(items[..., hidden + d : -1]).add_(query[..., hidden + d :])
        torch.addmm(t["repeat_bias"], F.silu(inner).view(n * slots, -1), t["repeat_inner"], out=self.second)
        torch.matmul(F.silu(self.second).view(n, slots, -1), t["repeat_out"], out=self.term)
        self.logit.add_(self.term).sigmoid_()
        torch.matmul(self.hidden, t["quantity"], out=self.term)
        self.term.sigmoid_()

    def step(self, candidates: Tensor, user: Tensor) -> None:
        """All of it; the observation goes to ``candidates`` [n, M, F] and ``user`` [n, Du]."""
        self.fuse(self.advance())
        self.score()
        torch.index_select(self.tables["features"], 0, self.drawn, out=candidates.view(len(self.drawn), -1))
        candidates[..., -3:] = self.own
        user.copy_(self.user)


class Contestant:
    """Lanes in chunks, split in the way that proves fastest: chunk size, threads within a call or one a chunk."""

    def __init__(self, env: str, lanes: int, seed: int) -> None:
        """Reads the shapes off the environment, and tries every way of splitting ``lanes``."""
        made = recgym.make(env)
        spaces: Any = made.observation_space
        network = made.world.spec.config["model"]["network"]
        self.sizes: dict[str, int] = {name: value for name, value in network.items() if isinstance(value, int)}
        self.sizes |= {
            "items": made.world.num_items,
            "slate": made.slate_size,
            "candidates": spaces["candidates"].shape[0],
            "features": spaces["candidates"].shape[1],
            "user": spaces["user"].shape[0],
        }
        made.close()
        self.lanes, self.seed = lanes, seed
        self.tables = _tables(self.sizes, seed)
        self.candidates = torch.empty(lanes, self.sizes["candidates"], self.sizes["features"])
        self.user = torch.empty(lanes, self.sizes["user"])
        threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(threads)
        ways = [("torch", 1), *([("torch", threads), ("chunks", threads)] if threads > 1 else [])]
        tried: dict[str, float] = {}
        best = ""
        with torch.inference_mode():
            for size in sorted({min(chunk, lanes) for chunk in CHUNKS}):
                chunks = self._chunks(size)
                for way, number in ways:
                    name = f"chunks of {size}, " + (
                        f"{number} at once" if way == "chunks" else f"{number} torch threads"
                    )
                    plan = self._plan(chunks, way, number)
                    tried[name] = self._try(plan)
                    if tried[name] >= max(tried.values()):
                        best, self.run = name, plan
        self.facts: dict[str, Any] = {"way": best, "tried": {name: round(rate) for name, rate in tried.items()}}

    def step(self) -> int:
        """One slate for every lane."""
        with torch.inference_mode():
            self.run()
        return self.lanes

    def _chunks(self, size: int) -> list[tuple[Chunk, Tensor, Tensor]]:
        out = []
        for start in range(0, self.lanes, size):
            stop = min(start + size, self.lanes)
            chunk = Chunk(stop - start, self.sizes, self.tables, self.seed + start)
            out.append((chunk, self.candidates[start:stop], self.user[start:stop]))
        return out

    def _plan(self, chunks: list[tuple[Chunk, Tensor, Tensor]], way: str, threads: int) -> Callable[[], None]:
        def one(part: tuple[Chunk, Tensor, Tensor]) -> None:
            torch.set_num_threads(1)
            with torch.inference_mode():
                part[0].step(part[1], part[2])

        def at_once() -> None:
            list(self.pool.map(one, chunks))

        def in_turn() -> None:
            torch.set_num_threads(threads)
            for chunk, candidates, user in chunks:
                chunk.step(candidates, user)

        return at_once if way == "chunks" else in_turn

    def _try(self, run: Callable[[], None]) -> float:
        run()
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < TRIAL:
            run()
            count += 1
        return count * self.lanes / (time.perf_counter() - started)


def _pooled(table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of table rows, a bag each: faster than gathering, masking and adding up."""
    return F.embedding_bag(rows, table, bags, mode="sum", per_sample_weights=weights)


def _tables(sizes: dict[str, int], seed: int) -> dict[str, Tensor]:
    """What all lanes share, random: weights (transposed, for addmm) and rows by item."""
    generator = torch.Generator().manual_seed(seed)
    d, hidden, repeat, items = sizes["dim"], sizes["hidden"], sizes["repeat_hidden"], sizes["items"]
    shapes = {
        "token": (items, d),
        "ignored": (items, d),
        "feedback": (21, d),
        "size": (2, d),
        "qkv": (d, 3 * d),
        "qkv_bias": (3 * d,),
        "distance": (sizes["window"], sizes["heads"] * sizes["window"]),
        "attention": (d, d),
        "expand": (d, sizes["feedforward"]),
        "expand_bias": (sizes["feedforward"],),
        "contract": (sizes["feedforward"], d),
        "gate_sequence": (d, GATES * d),
        "gate_time": (TIME, GATES * d),
        "project_sequence": (d, d),
        "project_time": (TIME, d),
        "query": (d, hidden + d + repeat),
        "query_bias": (hidden + d + repeat,),
        "items": (items, hidden + d + repeat + 1),
        "purchase": (hidden,),
        "quantity": (hidden,),
        "repeat_pair": (PAIR, repeat),
        "repeat_pace": (PACE, repeat),
        "repeat_inner": (repeat, repeat),
        "repeat_bias": (repeat,),
        "repeat_out": (repeat,),
        "features": (items, sizes["features"]),
    }
    return {name: torch.randn(*shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def prepare(env: str, lanes: int, seed: int) -> Contestant:
    """The floor of ``env`` for ``lanes`` lanes."""
    return Contestant(env, lanes, seed)
