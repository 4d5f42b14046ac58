"""The protocol of an agent: typed config, batch-first ``act``, and a saved form that checks where it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recgym.errors import AgentError, nearest

if TYPE_CHECKING:
    from recgym.agents.online import Transitions
    from recgym.envs.vector import RecVectorEnv
    from recgym.worlds.world import World

FORMAT_VERSION = 1
MANIFEST = "agent.json"
TENSORS = "agent.safetensors"

Observations = Mapping[str, NDArray[Any] | Tensor]
Log = Callable[[Mapping[str, float], int], None]  # takes figures by name, and the slates shown so far


class AgentConfig(BaseModel):
    """Hyper-parameters of an agent; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class ActContext:
    """What an agent may know about the lanes besides their observations."""

    lane_seeds: NDArray[np.int64]  # [B] the identity of each lane: keys an agent's own random draws
    step: NDArray[np.int64]  # [B] slates this lane has been shown so far, over all its episodes
    slate_size: int  # K
    learning: bool = False  # whether ``update`` is told what comes of these slates: agents explore only then


class Agent:
    """A policy over the candidates of every lane at once.

    A subclass sets the class attributes, defines ``act``, and where it learns defines ``fit`` (from the world's log),
    ``update`` (slate by slate, online) or ``train`` (in the environment, in its own way) with ``tensors`` and
    ``restore`` to be saved: what an agent has learned is all in its tensors.

    An evaluation leaves a trained agent as it is. Only one that learns online and whose config says ``adapt`` goes on
    learning in it: its users are taken in blocks of a fixed size, each block meets a copy of the trained agent, and the
    copy is updated after every slate of the block. So rows depend neither on how the evaluation is cut into chunks nor
    on the other blocks.
    """

    id: ClassVar[str]
    observes: ClassVar[tuple[str, ...]]  # observation keys; nothing else reaches ``act``
    learns: ClassVar[Literal["nothing", "log", "environment"]] = "nothing"
    learns_online: ClassVar[bool] = False  # defines ``update``
    stochastic: ClassVar[bool] = False  # ``act`` draws (keyed by lane seed and step), so ``propensities`` are not all 1
    privileged: ClassVar[bool] = False  # reads the hidden state: an upper bound for evaluation, never a competitor
    action_mode: ClassVar[str] = "slate"
    Config: ClassVar[type[AgentConfig]] = AgentConfig

    def __init__(self, world: World, config: AgentConfig | None = None, seed: int = 0) -> None:
        """An agent for ``world``, not fitted yet; see ``make_agent`` for one by name.

        Raises:
            AgentError: ``config`` is of another agent.
        """
        config = self.Config() if config is None else config
        if not isinstance(config, self.Config):
            raise AgentError(f"agent {self.id!r} takes a {self.Config.__name__}, got a {type(config).__name__}")
        self.world = world
        self.config: Any = config
        self.seed = seed
        self.device = torch.device("cpu")  # where learning computes; set before ``train``
        self.log: Log = lambda figures, steps: None  # takes what training has to tell; set before ``train``

    @property
    def adapts(self) -> bool:
        """Whether it goes on learning in an evaluation."""
        return self.learns_online and bool(getattr(self.config, "adapt", False))

    def fit(self, world: World) -> None:
        """Learns from the observable log of ``world``; agents that do not learn from logs ignore it."""

    def act(
        self, observations: Observations, context: ActContext, *, env: RecVectorEnv | None = None
    ) -> NDArray[np.int64]:
        """Slates for all lanes.

        The slate of a lane depends only on its own observation, seed and step: not on its position nor on the others.

        Args:
            observations: the keys in ``observes``, lane dimension B first.
            context: lane seeds, steps and the slate size K.
            env: the running environment; only privileged agents are handed one.

        Returns:
            int64 [B, K]: positions among the candidates, best first, without repeats within a row.
        """
        raise AgentError(f"{type(self).__name__} does not define act(observations, context)")

    def propensities(
        self, observations: Observations, context: ActContext, slates: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """The chance [B, K] that each position shows what it does in ``slates``, given the positions above it.

        Over the agent's own draws, so the chance of a slate is the product of its row. None where that is not known.
        """
        return None if self.stochastic else np.ones(slates.shape)

    def update(self, transitions: Transitions) -> None:
        """Learns from what came of the slates that ``act`` chose, after every step.

        Raises:
            AgentError: this agent does not learn online.
        """
        raise AgentError(f"agent {self.id!r} does not learn online (it learns from: {self.learns})")

    def train(
        self,
        env: RecVectorEnv,
        steps: int,
        *,
        directory: Path | None = None,
        progress: Callable[[int], None] | None = None,
        resume: bool = False,
    ) -> None:
        """Learns by acting in ``env`` (lanes restart within the step that ends them).

        Agents that learn online need not define it: they are updated after every step; see ``learn_online``.

        Args:
            env: the environment, observing at least ``observes``, in this agent's action mode.
            steps: slates to show in all lanes together, those before a resume included.
            directory: where logs and checkpoints go; nothing is written without one.
            progress: called now and then with the number of slates shown so far, when ``act`` and ``tensors`` tell what
                is learned by then. What it raises ends the training there: that is how it is stopped early.
            resume: goes on from the checkpoint in ``directory`` if there is one.

        Raises:
            AgentError: this agent does not learn in the environment.
        """
        if self.learns_online:
            from recgym.agents.online import learn_online

            return learn_online(self, env, steps, directory=directory, progress=progress, resume=resume)
        raise AgentError(f"agent {self.id!r} does not learn in the environment (it learns from: {self.learns})")

    def report(self) -> dict[str, Any]:
        """Figures on data held out from what was learned, as JSON values for the record of a run; {} where none are."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, by name, ready for safetensors."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what ``tensors`` gave."""

    def clone(self) -> Self:
        """A copy that learns on its own."""
        copy = type(self)(self.world, self.config, self.seed)
        copy.restore({name: tensor.detach().clone() for name, tensor in self.tensors().items()})
        return copy

    def save(self, directory: str | Path) -> Path:
        """Writes ``agent.json`` and ``agent.safetensors``, and returns the directory. No pickle is involved."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors().items()}
        save_file(tensors, directory / TENSORS)
        manifest = {
            "format_version": FORMAT_VERSION,
            "agent": self.id,
            "target": f"{type(self).__module__}:{type(self).__qualname__}",
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "world": {"name": self.world.name, "hash": self.world.hash},
            **fitting(self, self.world),
        }
        (directory / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return directory

    @classmethod
    def load(cls, directory: str | Path, world: World) -> Self:
        """The agent that ``save`` wrote, for ``world``: the same world, or another with the same items and layout.

        Raises:
            AgentError: the directory holds another agent or cannot be read, or the agent's item vocabulary, observation
                layout or action mode is not that of ``world``; the message says which.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        if manifest["agent"] != cls.id:
            raise AgentError(f"{directory} holds agent {manifest['agent']!r}, not {cls.id!r}")
        agent = cls(world, parse_config(cls, manifest["config"]), manifest["seed"])
        refuse_misfit(directory, manifest, fitting(agent, world))
        try:
            agent.restore(read_tensors(directory / TENSORS))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise AgentError(f"{directory / TENSORS} cannot be read: {error}") from error
        if agent.learns == "log" and manifest["world"]["hash"] != world.hash:
            agent.fit(world)  # same items, other users: what was counted per item or user is counted again
        return agent


def vocabulary_hash(world: World) -> str:
    """A digest of the item ids in row order: item rows mean the same in two worlds where it agrees."""
    return hashlib.sha256("\x1f".join(map(str, world.items["item_id"])).encode()).hexdigest()


def observation_layout(world: World, keys: tuple[str, ...]) -> dict[str, list[str]]:
    """The names of the features behind each observation key, in order (empty for keys that hold rows, not features)."""
    from recgym.envs.features import CANDIDATE_FEATURES, USER_FEATURES

    names = {"user": USER_FEATURES, "candidates": CANDIDATE_FEATURES}
    return {key: list(names[key](world)) if key in names else [] for key in keys}


def not_shown(world: World, observations: Observations) -> Tensor:
    """1 for candidates that stood on no earlier slate of this trip, else 0; float32 [B, M].

    Rankers sort by it first: whoever declined an item keeps declining it on this trip, and what is in the basket is not
    bought again.
    """
    from recgym.envs.features import CANDIDATE_FEATURES

    shown = list(CANDIDATE_FEATURES(world)).index("shown")
    return 1.0 - as_tensor(observations["candidates"])[:, :, shown]


def fitting(agent: Agent, world: World) -> dict[str, Any]:
    """What has to agree for ``agent`` to act in ``world``."""
    return {
        "item_vocabulary": vocabulary_hash(world),
        "observation_layout": observation_layout(world, agent.observes),
        "action_mode": agent.action_mode,
    }


def refuse_misfit(directory: Path, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises AgentError naming the first part of ``fitting`` in which a saved agent differs from ``here``."""
    if saved["item_vocabulary"] != here["item_vocabulary"]:
        raise AgentError(
            f"{directory} was trained with another item vocabulary ({saved['item_vocabulary'][:12]}…, world "
            f"{saved['world']['name']!r}); this world's is {here['item_vocabulary'][:12]}…"
        )
    if saved["action_mode"] != here["action_mode"]:
        raise AgentError(
            f"{directory} was trained with action mode {saved['action_mode']!r}; here it is {here['action_mode']!r}"
        )
    before, now = saved["observation_layout"], here["observation_layout"]
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            gone = sorted(set(before.get(key) or ()) - set(now.get(key) or ()))
            new = sorted(set(now.get(key) or ()) - set(before.get(key) or ()))
            detail = f"missing here: {gone}, new here: {new}" if gone or new else "the same features in another order"
            raise AgentError(f"{directory} was trained with another observation layout of {key!r} ({detail})")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, where torch would have put them: products round by how memory is aligned."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def read_manifest(directory: Path) -> dict[str, Any]:
    """The checked contents of a directory's ``agent.json``.

    Raises:
        AgentError: there is none, it cannot be read, or it is of another format version.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AgentError(f"{directory} holds no saved agent: {MANIFEST} is missing") from error
    except (OSError, json.JSONDecodeError) as error:
        raise AgentError(f"{directory / MANIFEST} cannot be read: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise AgentError(f"{directory / MANIFEST} has format_version {version!r}; this RecGym reads {FORMAT_VERSION}")
    needed = {"agent", "target", "config", "seed", "world", "item_vocabulary", "observation_layout", "action_mode"}
    if missing := sorted(needed - set(manifest)):
        raise AgentError(f"{directory / MANIFEST} lacks {', '.join(missing)}")
    return manifest


def parse_config(agent: type[Agent], values: Mapping[str, Any]) -> AgentConfig:
    """The typed config of an agent class from plain values.

    Raises:
        AgentError: an unknown key (the message gives the nearest valid one) or a value out of range.
    """
    valid = agent.Config.model_fields
    for key in values:
        if key not in valid:
            guess = nearest(key, valid)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise AgentError(
                f"agent {agent.id!r} has no setting {key!r}.{hint} Valid: {', '.join(sorted(valid)) or 'none'}."
            )
    try:
        return agent.Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise AgentError(f"agent {agent.id!r}: setting {key!r} = {first['input']!r}: {first['msg']}") from error


def agent_class(name: str) -> type[Agent]:
    """The class behind a registered name, ``module:Class`` or ``path.py:Class``.

    Raises:
        UnknownNameError: no such agent.
        AgentError: what the name leads to is not an agent.
    """
    from recgym.registration import AGENTS

    found = AGENTS.load(name)
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise AgentError(f"agent {name!r} leads to {found!r}, which is not a subclass of recgym.agents.Agent")
    return found


def saved_class(directory: Path) -> type[Agent]:
    """The class of the agent that ``directory`` holds; errors as ``read_manifest`` and ``agent_class``."""
    from recgym.registration import AGENTS

    manifest = read_manifest(directory)
    return agent_class(manifest["agent"] if manifest["agent"] in AGENTS.names() else manifest["target"])


def make_agent(name_or_path: str | Path, world: World, seed: int = 0, **config: Any) -> Agent:
    """An agent ready to act in ``world``: loaded from a run directory, or made by name and fitted on the log.

    One that learns in the environment comes untrained when made by name; see ``recgym.agents.training``.

    Raises:
        UnknownNameError: no agent of that name.
        AgentError: an unknown setting, or a saved agent that does not fit ``world``.
    """
    from recgym.registration import AGENTS

    path = Path(name_or_path)
    if (path / MANIFEST).is_file() or (path.is_dir() and str(name_or_path) not in AGENTS.names()):
        if config:
            raise AgentError(f"{path} is a saved agent: its settings ({', '.join(config)}) cannot be changed")
        return saved_class(path).load(path, world)
    cls = agent_class(str(name_or_path))
    agent = cls(world, parse_config(cls, config), seed)
    if agent.learns == "log":
        agent.fit(world)
    return agent


def as_tensor(values: NDArray[Any] | Tensor) -> Tensor:
    """An observation as a tensor, without a copy where possible."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values)


def top_slate(slate_size: int, *keys: Tensor) -> NDArray[np.int64]:
    """The best ``slate_size`` candidates, by the first of ``keys`` (each [B, M], larger is better), ties by the next.

    Remaining ties go to the lower position. Returns int64 [B, K].

    Raises:
        AgentError: there are fewer candidates than slots.
    """
    lanes, num_candidates = keys[0].shape
    if slate_size > num_candidates:
        raise AgentError(f"a slate of {slate_size} cannot be filled from {num_candidates} candidates")
    order = torch.arange(num_candidates, device=keys[0].device).expand(lanes, num_candidates)
    for key in reversed(keys):  # stable sorts from the least to the most important key
        order = order.gather(1, key.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return order[:, :slate_size].cpu().numpy()
