"""PPO in one file, in the manner of CleanRL: no agent class, no registry, only the environment's own interface.

``python examples/single_file_ppo.py --env ecommerce-v0 --total-steps 100000``. Thousands of users are one vector
environment that gives tensors, so nothing is copied between the simulation and the policy. A slate is drawn item by
item without repeats (Plackett-Luce, by Gumbel noise) from one score a candidate; the critic reads the user alone. The
loop, the clipped objective and the names are those of CleanRL's ``ppo.py`` (Huang et al., JMLR 23(274), 2022).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn

import recgym


@dataclass(frozen=True)
class Args:
    """What the command line sets."""

    env: str = "ecommerce-v0"
    world: str | None = None
    seed: int = 0
    total_steps: int = 100_000  # slates shown in all
    num_envs: int = 64  # users at once
    num_steps: int = 16  # slates a user between updates
    num_minibatches: int = 4
    update_epochs: int = 4
    learning_rate: float = 3e-3  # falls linearly to 0
    gamma: float = 0.5  # per slate
    gae_lambda: float = 0.9
    clip_coef: float = 0.2
    ent_coef: float = 0.003
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    eval_users: int = 500


class Policy(nn.Module):
    """A score for each candidate, and the value of a state."""

    def __init__(self, num_user: int, num_candidate: int, hidden: int = 64) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(num_user + num_candidate, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.critic = nn.Sequential(nn.Linear(num_user, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, user: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B, M] of candidates [B, M, F] for users [B, Du], and values [B]."""
        pairs = torch.cat([user[:, None].expand(-1, candidates.shape[1], -1), candidates], dim=-1)
        return self.actor(pairs).squeeze(-1), self.critic(user).squeeze(-1)


def log_prob(scores: Tensor, slates: Tensor) -> Tensor:
    """Log-probability [B] of ordered slates [B, K]: each item is drawn from those that are left."""
    shown = torch.nn.functional.one_hot(slates, scores.shape[1]).cumsum(1)  # [B, K, M]
    before = torch.cat([torch.zeros_like(shown[:, :1]), shown[:, :-1]], dim=1).bool()
    left = scores[:, None].masked_fill(before, -torch.inf).logsumexp(-1)  # [B, K]
    return (scores.gather(1, slates) - left).sum(1)


def draw(scores: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Slates [B, K] by Plackett-Luce: the largest scores after Gumbel noise is added."""
    uniform = torch.rand(scores.shape, generator=generator).clamp(1e-9, 1 - 1e-9)
    return (scores - torch.log(-torch.log(uniform))).topk(size).indices


def train(args: Args) -> tuple[Policy, list[float]]:
    """The trained policy, and the mean reward a slate of every update."""
    vec = make(args, args.num_envs)
    space = vec.single_observation_space
    slate_size = len(vec.single_action_space.nvec)
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)  # of the weights
    policy = Policy(space["user"].shape[0], space["candidates"].shape[1])
    optimizer = torch.optim.Adam(policy.parameters(), lr=args.learning_rate, eps=1e-5)
    batch_size = args.num_envs * args.num_steps
    num_updates = max(args.total_steps // batch_size, 1)
    curve = []
    observation, _ = vec.reset(seed=args.seed)
    for update in range(num_updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / num_updates)
        rows: dict[str, list[Tensor]] = {name: [] for name in ("user", "candidates", "slate", "old", "value")}
        rewards, dones = [], []
        for _ in range(args.num_steps):
            user, candidates = observation["user"].clone(), observation["candidates"].clone()
            with torch.no_grad():
                scores, value = policy(user, candidates)
                slate = draw(scores, slate_size, generator)
                old = log_prob(scores, slate)
            observation, reward, terminated, truncated, _ = vec.step(slate)
            for name, column in zip(rows, (user, candidates, slate, old, value), strict=True):
                rows[name].append(column)
            rewards.append(reward.float())
            dones.append((terminated | truncated).float())
        with torch.no_grad():
            after = policy(observation["user"], observation["candidates"])[1]
        advantages = torch.zeros(args.num_steps, args.num_envs)
        last = torch.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):  # generalised advantage estimation
            more = 1.0 - dones[step]  # what follows a finished episode is another user's
            delta = rewards[step] + args.gamma * after * more - rows["value"][step]
            last = advantages[step] = delta + args.gamma * args.gae_lambda * more * last
            after = rows["value"][step]
        flat = {name: torch.cat(columns) for name, columns in rows.items()}
        advantage = advantages.flatten()
        returns = advantage + flat["value"]
        for _ in range(args.update_epochs):
            for part in torch.randperm(batch_size, generator=generator).chunk(args.num_minibatches):
                scores, value = policy(flat["user"][part], flat["candidates"][part])
                ratio = (log_prob(scores, flat["slate"][part]) - flat["old"][part]).exp()
                gain = (advantage[part] - advantage[part].mean()) / (advantage[part].std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = -torch.min(gain * ratio, gain * clipped).mean()
                value_loss = 0.5 * (value - returns[part]).square().mean()
                entropy = torch.distributions.Categorical(logits=scores).entropy().mean()  # of the first item
                loss = policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), args.max_grad_norm)
                optimizer.step()
        curve.append(float(torch.stack(rewards).mean()))
    return policy, curve


def evaluate(args: Args, policy: Policy | None) -> Tensor:
    """Reward [B] of one episode of each of ``eval_users``, best items first; None shows random slates.

    Seeds are the same whatever the policy, so users and luck are too, and differences can be taken user by user.
    """
    vec = make(args, args.eval_users)
    slate_size, generator = len(vec.single_action_space.nvec), torch.Generator().manual_seed(args.seed)
    observation, _ = vec.reset(seed=1_000_000 + args.seed)
    total, alive = torch.zeros(args.eval_users), torch.ones(args.eval_users)
    while alive.any():
        with torch.no_grad():
            scores = torch.zeros(observation["candidates"].shape[:2])
            slate = draw(scores, slate_size, generator) if policy is None else (
                policy(observation["user"], observation["candidates"])[0].topk(slate_size).indices
            )  # fmt: skip
        observation, reward, terminated, truncated, _ = vec.step(slate)
        total += alive * reward
        alive *= 1.0 - (terminated | truncated).float()
    return total


def make(args: Args, num_envs: int):  # type: ignore[no-untyped-def]
    """The environment: tensors out, and lanes that begin anew within the step that ended their episode."""
    id, world = (None, args.world) if args.world else (args.env, None)
    keys = ("user", "candidates")
    return recgym.make_vec(
        id, world=world, num_envs=num_envs, observation=keys, output="torch", autoreset_mode=AutoresetMode.SAME_STEP
    )


def main(words: list[str] | None = None) -> dict[str, float]:
    """Trains, compares with random slates on the same users and luck, and prints means with a 95% interval."""
    parser = argparse.ArgumentParser(description="PPO on slates of recommendations, in one file")
    for name, default in vars(Args()).items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    args = Args(**vars(parser.parse_args(words)))
    policy, curve = train(args)
    ours, random = evaluate(args, policy), evaluate(args, None)
    difference = ours - random
    half = 1.96 * float(difference.std()) / args.eval_users**0.5
    print(f"reward a slate in training: {curve[0]:.3f} at first, {curve[-1]:.3f} at last")
    print(f"reward an episode: PPO {ours.mean():.3f}, random {random.mean():.3f}")
    print(f"difference, paired by user: {difference.mean():.3f} +- {half:.3f}")
    return {"ppo": float(ours.mean()), "random": float(random.mean()), "low": float(difference.mean()) - half}


if __name__ == "__main__":
    main()
