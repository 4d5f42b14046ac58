"""The registries: one each for environments, worlds, data sets, agents, user models and scenarios."""

from __future__ import annotations

import importlib.resources
import re
from typing import Any

from recgym.registry import EnvSpec, Registry, Spec, is_target, load_target

_SCENARIO_SUFFIXES = (".yaml", ".yml")


def _read_target(name: str, target: str) -> Spec | None:
    return Spec(name, target) if is_target(target) else None


def _read_env(name: str, target: str) -> EnvSpec | None:
    """An env's target is an ``EnvSpec``: the entry point names where one is defined."""
    if _read_target(name, target) is None:
        return None
    spec = load_target(target)
    return spec if isinstance(spec, EnvSpec) else None


def _read_scenario(name: str, target: str) -> Spec | None:
    """A scenario's target is a YAML file, or (entry points) the package that holds ``NAME.yaml``."""
    if target.endswith(_SCENARIO_SUFFIXES) or "/" in target:
        return Spec(name, target)
    if name != target and re.fullmatch(r"\w+(\.\w+)*", target):
        return Spec(name, str(importlib.resources.files(target) / f"{name}.yaml"))
    return None


def _load_scenario(spec: Spec) -> Any:
    from recgym.scenario import load_scenario  # pydantic and YAML only when a scenario is read

    return load_scenario(spec.target)


def _builtin_scenarios() -> list[Spec]:
    files = importlib.resources.files("recgym.scenarios").iterdir()
    found = [file for file in files if file.name.endswith(_SCENARIO_SUFFIXES)]
    return [Spec(file.name.rsplit(".", 1)[0], str(file)) for file in sorted(found, key=lambda file: file.name)]


def _load_spec(spec: Spec | EnvSpec) -> Any:
    return load_target(spec.target)


ENVS: Registry[EnvSpec] = Registry(
    "environment",
    "recgym.envs",
    [
        EnvSpec(
            "ecommerce-v0", world="ecommerce", description="Grocery trips of 2,300 households (The Complete Journey)."
        ),
        EnvSpec(
            "movies-v0", world="movies", description="Film watching and rating (MovieLens-100K, built on request)."
        ),
    ],
    read=_read_env,
    load=_load_spec,
)
WORLDS: Registry[Spec] = Registry(
    "world",
    "recgym.worlds",
    [
        Spec("ecommerce", "recgym.worlds.recipes:ecommerce", "Purchases and quantities; ships with RecGym."),
        Spec("ecommerce-a", "recgym.worlds.recipes:ecommerce_a", "The same of one half of the households."),
        Spec("ecommerce-b", "recgym.worlds.recipes:ecommerce_b", "The same of the other half."),
        Spec("movies", "recgym.worlds.recipes:movies", "Watches and ratings; needs the data set ml-100k."),
    ],
    read=_read_target,
    load=_load_spec,
)
DATASETS: Registry[Spec] = Registry(
    "data set",
    "recgym.datasets",
    [
        Spec(
            "completejourney",
            "recgym.data.sources.completejourney:load",
            "A year of grocery purchases, 2,469 households.",
        ),
        Spec(
            "instacart-sample",
            "recgym.data.sources.instacart:load",
            "15,183 grocery orders of 593 users, without dates or item text.",
        ),
        Spec("ml-100k", "recgym.data.sources.ml_100k:load", "100,000 film ratings of 943 people, MovieLens."),
    ],
    read=_read_target,
    load=_load_spec,
)
AGENTS: Registry[Spec] = Registry(
    "agent",
    "recgym.agents",
    [
        Spec("random", "recgym.agents.random:RandomAgent", "A uniformly random slate of the candidates."),
        Spec("popularity", "recgym.agents.popularity:PopularityAgent", "The candidates bought most often overall."),
        Spec("frequency", "recgym.agents.frequency:FrequencyAgent", "The candidates this user bought most often."),
        Spec("content", "recgym.agents.content:ContentAgent", "Items whose text is like that of what the user bought."),
        Spec(
            "user_knn", "recgym.agents.user_knn:UserKNNAgent", "What the users with the most similar purchases bought."
        ),
        Spec("item_knn", "recgym.agents.item_knn:ItemKNNAgent", "Neighbours of what the user bought, by co-purchase."),
        Spec("als", "recgym.agents.als:ALSAgent", "Factors of who bought what, by alternating least squares."),
        Spec("bpr", "recgym.agents.bpr:BPRAgent", "Factors that rank what was bought above what was not."),
        Spec("svdpp", "recgym.agents.svdpp:SVDppAgent", "Biases, factors and the items each user has to do with."),
        Spec("lightgcn", "recgym.agents.lightgcn:LightGCNAgent", "Graph convolution over who bought what."),
        Spec(
            "scorer", "recgym.agents.scorer:ScorerAgent", "One hidden layer over user, item and context, squared loss."
        ),
        Spec("fm", "recgym.agents.fm:FMAgent", "A factorisation machine: all features interact in pairs."),
        Spec("nfm", "recgym.agents.nfm:NFMAgent", "A network on top of the factorisation machine's interactions."),
        Spec(
            "ncf", "recgym.agents.ncf:NCFAgent", "Neural collaborative filtering: a product of factors and a network."
        ),
        Spec("multiway", "recgym.agents.multiway:MultiwayAgent", "Factors of user x item x context."),
        Spec("sasrec", "recgym.agents.sasrec:SASRecAgent", "Self-attention over what the user consumed last."),
        Spec("two_tower", "recgym.agents.two_tower:TwoTowerAgent", "The product of a user's and an item's tower."),
        Spec("greedy", "recgym.agents.greedy:GreedyAgent", "Privileged: the best immediate reward under the truth."),
        Spec("lookahead", "recgym.agents.lookahead:LookAheadAgent", "Privileged: plans on branches with fresh luck."),
        Spec(
            "epsilon_greedy",
            "recgym.agents.epsilon_greedy:EpsilonGreedyAgent",
            "A linear bandit that explores slot by slot; learns online.",
        ),
        Spec("linucb", "recgym.agents.linucb:LinUCBAgent", "A linear bandit, optimistic; learns online."),
        Spec(
            "thompson",
            "recgym.agents.thompson:ThompsonAgent",
            "A logistic or linear bandit that samples its posterior; learns online.",
        ),
        Spec("bcq", "recgym.agents.bcq:BCQAgent", "Batch-constrained Q-learning from logged rollouts."),
        Spec("cql", "recgym.agents.cql:CQLAgent", "Conservative Q-learning from logged rollouts."),
        Spec("ppo", "recgym.agents.ppo:PPOAgent", "A re-ranker with a shared candidate scorer, learned by PPO."),
        Spec("dqn", "recgym.agents.dqn:DQNAgent", "Item-wise values from a shared candidate scorer, learned by DQN."),
        Spec("qrdqn", "recgym.agents.qrdqn:QRDQNAgent", "Item-wise return distributions, learned by QR-DQN."),
        Spec("sac", "recgym.agents.sac:SACAgent", "Candidate scores or feature weights, learned by soft actor-critic."),
        Spec("maskable_ppo", "recgym.agents.maskable_ppo:MaskablePPOAgent", "PPO over what this trip has not shown."),
        Spec("reinforce", "recgym.agents.reinforce:ReinforceAgent", "Policy gradient with top-K correction."),
        Spec("slateq", "recgym.agents.slateq:SlateQAgent", "Slate values decomposed into item-wise long-term values."),
        Spec("wolpertinger", "recgym.agents.wolpertinger:WolpertingerAgent", "DDPG: a proposal's neighbours by value."),
        Spec("hac", "recgym.agents.hac:HACAgent", "Hyper-actor critic: slates as points of a latent space."),
    ],
    read=_read_target,
    load=_load_spec,
)
USER_MODELS: Registry[Spec] = Registry(
    "user model",
    "recgym.user_models",
    [
        Spec("preference", "recgym.user_models.preference.users:PreferenceUsers", "The preference model of the world."),
        Spec(
            "preference_bfloat16",
            "recgym.user_models.preference.users:CompactPreferenceUsers",
            "The same, remembering in half the memory: a little faster, and answers differ a little.",
        ),
        Spec(
            "ensemble",
            "recgym.user_models.ensemble:EnsembleUsers",
            "The mean of several networks of the world; evaluation can read how they disagree.",
        ),
        Spec(
            "boredom", "recgym.user_models.boredom:BoredUsers", "Hand-written: latent topics and boredom, no network."
        ),
        Spec("influence", "recgym.user_models.influence:InfluencedUsers", "Hand-written: boredom, and tastes follow."),
        Spec(
            "interest_evolution",
            "recgym.user_models.interest_evolution:InterestEvolutionUsers",
            "Hand-written, RecSim's: one click a slate, interests that move, and a budget of time.",
        ),
        Spec(
            "long_term_satisfaction",
            "recgym.user_models.long_term_satisfaction:LongTermSatisfactionUsers",
            "Hand-written, RecSim's choc and kale: what engages most now engages least later.",
        ),
        Spec("replay", "recgym.user_models.replay:ReplayUsers", "Wants what the log says, and counts what it cannot."),
        Spec(
            "planted",
            "recgym.user_models.planted:PlantedUsers",
            "Known truth: factors, drift, price response and returns; marks fitted worlds.",
        ),
    ],
    read=_read_target,
    load=_load_spec,
)
SCENARIOS: Registry[Spec] = Registry(
    "scenario",
    "recgym.scenarios",
    _builtin_scenarios(),
    read=_read_scenario,
    load=_load_scenario,
)
