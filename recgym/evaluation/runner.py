"""Evaluation: every agent meets identical users with identical luck; out come rows, an episode each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from recgym.agents.protocol import Agent
from recgym.errors import RecGymError
from recgym.evaluation.catalogue import Catalogue
from recgym.evaluation.entrants import fingerprint, moved
from recgym.evaluation.plan import CHUNK, Agents, Plan, Scenarios, at_home, make_plan, scenario_at_home
from recgym.evaluation.progress import Progress, bars, silent
from recgym.evaluation.stage import TABLES, Bar, Stage, Task, tasks
from recgym.evaluation.store import ROWS, TRAINING, RunDirectory, versions, write_parquet, write_pieces
from recgym.evaluation.transfer import HOME
from recgym.evaluation.workers import play_in_processes
from recgym.simulation.population import platform_world
from recgym.threads import one_thread
from recgym.worlds.world import World

SUMMED = ("items",)  # tables that a seed's chunks are added up in


def evaluate(
    world: str | Path | World = "ecommerce-v0",
    scenarios: Scenarios | None = None,
    agents: Agents = ("random", "popularity", "frequency"),
    *,
    users: int | None = None,
    seeds: int | Sequence[int] | None = None,
    out: str | Path | None = None,
    train_steps: int | None = None,
    chunk: int = CHUNK,
    workers: int = 1,
    device: str = "cpu",
    user_model: str = "preference",
    trained_in: str | Path | World | None = None,
    progress: bool | Progress = True,
    command: str | None = None,
) -> pd.DataFrame:
    """Plays one episode for every agent, scenario, seed and user.

    Users are drawn without replacement, the same for all agents; the luck of an episode is keyed by (seed, user), so
    two agents can be compared episode by episode. Where more users are asked for than the world holds, all are used.

    Args:
        world: an environment id, a world's name or path, or a ``World``.
        scenarios: names, files or ``Scenario`` objects; None: the environment's own.
        agents: registered names, run directories or ``Agent`` objects; a mapping gives them labels. A learner given by
            name is trained first, once for each scenario, and cached.
        users: how many users; None: what the (first) scenario says.
        seeds: how many seeds (0, 1, ...), or the seeds themselves; None: what the (first) scenario says.
        out: directory for the rows and tables named below, ``run.json`` and what the report needs; a second call with
            the same configuration takes up where the first one stopped. None: nothing is written.
        train_steps: training budget of learners given by name; None: their default.
        chunk: users simulated at once; rows are ordered the same whatever it is.
        workers: processes that chunks are handed to; rows are the same byte for byte whatever it is. More than one
            load the world from its bundle, and the agents as they are saved.
        device: torch device of the simulation.
        user_model: who answers: a name of ``recgym list user-models`` or a target. Learners given by name are trained
            with the world's own users all the same.
        trained_in: another world with the same items, in which the agents are trained before they are scored here; they
            are scored there as well, into ``out``/home, and the report says what they lose away from home. None: here.
        progress: whether to show bars, or a callback ``(task, done, total)``.
        command: what the user typed, for the provenance.

    Returns:
        one row an episode, ordered by scenario, agent, seed and user as given: scenario, agent, privileged, world,
        seed, user (row), lane_seed, history_trips and history_events (what the platform knows of the user), reward,
        revenue (NaN without prices), num_steps, num_shown, num_examined, num_consumed, num_hits (slates with a consumed
        item), num_new (different ones that the log never saw with this user), units, num_rated, rating_sum,
        popularity_shown (sum), num_tail (shown items of the long tail), information_shown (bits), diversity_sum (over
        slates: share of pairs of different categories), num_unseen and num_unseen_consumed (items that no log has seen:
        shown, consumed),
        terms/NAME, costs/NAME and violations/NAME (sums of the scenario's terms and constraints), num_serendipitous
        (of num_new, those not among the K most popular candidates), log_propensity (of all slates; NaN
        where the policy does not know it), reward_first_1, _5 and _20 (of the first slates), num_trips, num_days; of
        the first slate of each visit, num_judged of them, against what the user wants of the candidates if looking:
        precision_true_sum, recall_sum, ndcg_sum, mrr_sum, num_answerable (anything is wanted), where new items arrive
        ndcg_unseen_sum and num_answerable_unseen (of wanted new items alone), regret_sum (expected
        reward given away) and exposure_loss_sum (squared gap of each candidate's attention from an ideal slate's);
        disagreement (of the members of an ensemble on what was shown: standard deviation of q, averaged over slots and
        slates; NaN without one), miscalibration (nats), ended: ``left`` (the user, for good), ``horizon`` (its days are
        over) or ``slates`` (cut off at the limit of slates).

        ``out`` holds beside them: ``visits.parquet`` (user, trip, day of the episode, reward, revenue, num_consumed,
        num_steps, num_hits, entropy of the categories shown in bits), ``providers.parquet`` (user, attribute and
        group of items; attention and consumed over all slates; over first slates of visits offered, wanted, relevance,
        due, received, placed, found, taken), ``items.parquet`` (item; shown, consumed, attention; offered, wanted,
        relevance, due, received; sums over users), ``users.parquet`` (labels of each user) and ``steps.parquet``
        (slates of a few users for the replay).

    Raises:
        UnknownNameError: an unknown agent, scenario or world; the message gives the nearest name.
        RecGymError: fewer than one user or seed, or ``out`` holds another evaluation.
    """
    plan = make_plan(world, scenarios, agents, users, seeds, train_steps, chunk, device, user_model, trained_in)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise RecGymError(f"workers must be a whole number of at least 1, got {workers!r}")
    command = command or "recgym.evaluate(...)"
    with ExitStack() as stack:
        report = stack.enter_context(bars()) if progress is True else progress or silent
        stack.enter_context(one_thread())
        if out is None and workers > 1:
            out = stack.enter_context(tempfile.TemporaryDirectory(prefix="recgym-"))
        store = None if out is None else _open(Path(out), plan, command)
        home = at_home(plan)
        if home is not None and store is not None:
            _run(home, _open(store.path / HOME, home, command), workers, report, " at home")
        return _run(plan, store, workers, report, "")


def _open(out: Path, plan: Plan, command: str) -> RunDirectory:
    store = RunDirectory(out)
    store.claim("configuration", plan.to_dict())
    store.claim("versions", versions())
    store.claim("code", plan.code())
    store.record("command", command)
    return store


def _run(plan: Plan, store: RunDirectory | None, workers: int, report: Progress, where: str) -> pd.DataFrame:
    ready: dict[tuple[str, str], Agent] = {}
    for scenario in plan.scenarios:
        known = platform_world(plan.world, scenario)
        school, there, learned = plan.world, scenario, known
        if plan.home is not None:
            school, there = plan.home, scenario_at_home(scenario, plan.home)
            learned = platform_world(school, there)
        for entrant in plan.entrants:
            agent = entrant.agent(school, there, learned, train_steps=plan.train_steps, progress=report)
            ready[scenario.name, entrant.label] = agent if plan.home is None else moved(agent, known)
    work = tasks(plan, ready)
    if store is None:
        stage, bar = Stage(plan, ready), Bar(report, work, where)
        return pd.concat([bar.of(task, stage.play(task, bar.under_way))["rows"] for task in work], ignore_index=True)
    # An agent trained again with other results must not be mixed with rows of the one before.
    store.claim("fingerprints", {f"{label} in {name}": fingerprint(agent) for (name, label), agent in ready.items()})
    bar = Bar(report, work, where)
    left = [task for task in work if not bar.skip(task, store.has_part(task.name, TABLES))]
    if workers > 1 and len(left) > 1:
        play_in_processes(plan, ready, left, store, min(workers, len(left)), bar)
    else:
        stage = Stage(plan, ready)
        for task in left:
            store.save_part(task.name, bar.of(task, stage.play(task, bar.under_way)))
    catalogues = {scenario.name: Catalogue.seen_by(plan.world, scenario) for scenario in plan.scenarios}
    store.record("providers", {name: catalogue.provider_sizes() for name, catalogue in catalogues.items()})
    tables = [catalogue.user_table(plan.users).assign(scenario=name) for name, catalogue in catalogues.items()]
    write_parquet(store.path / "users.parquet", pd.concat(tables, ignore_index=True))
    rows = _merge(store, work)
    curves = []
    for scenario in plan.scenarios:
        school = plan.world if plan.home is None else plan.home
        there = scenario if plan.home is None else scenario_at_home(scenario, plan.home)
        curves += [entrant.curve(school, there, train_steps=plan.train_steps) for entrant in plan.entrants]
    if any(len(curve) for curve in curves):
        write_parquet(store.path / TRAINING, pd.concat([curve for curve in curves if len(curve)]))
    return rows


def _merge(store: RunDirectory, work: Sequence[Task]) -> pd.DataFrame:
    """Puts the parts together, one table after another: of all but the rows, a seed of an agent is held at a time."""
    for table in TABLES:
        if table != "rows":
            pieces = (_seed_of(store, table, work, first) for first in work if first.start == 0)
            write_pieces(store.path / f"{table}.parquet", pieces)
    rows = pd.concat([store.read_part(task.name, "rows") for task in work], ignore_index=True)
    write_parquet(store.path / ROWS, rows)  # last: where it is, the evaluation is finished
    return rows


def _seed_of(store: RunDirectory, table: str, work: Sequence[Task], first: Task) -> pd.DataFrame:
    """A table of all chunks of the agent, scenario and seed of ``first``."""
    parts = [store.read_part(task.name, table) for task in work if task.group == first.group]
    whole = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    if table not in SUMMED:
        return whole
    return whole.groupby([*Task.KEYS, "item"], as_index=False, sort=True).sum()
