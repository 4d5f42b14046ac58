"""Rounds: contestants alternate, failures are reported, an interrupted run goes on, and nothing is mixed up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recgym.benchmark.environments import Peer, PeerError
from recgym.benchmark.plan import Contestant, Ratio, Suite
from recgym.benchmark.run import run
from recgym.benchmark.store import Store, configuration
from recgym.benchmark.summary import summarise
from recgym.errors import RecGymError

Fake = Callable[..., Contestant]
SHORT: dict[str, Any] = {"seconds": 0.01, "least": 0.0, "most": 0.0}


def suite(*contestants: Contestant) -> Suite:
    names = [one.name for one in contestants]
    return Suite("fakes", "Fakes", contestants, (Ratio("first / second", names[0], names[1]),))


def test_contestants_alternate_and_change_order(fake: Fake, trace: Path) -> None:
    run([suite(fake("a"), fake("b"))], Store(None, {}), rounds=3, **SHORT)
    assert trace.read_text().split() == ["a", "b", "b", "a", "a", "b"]


def test_a_contestant_that_fails_is_reported_and_not_tried_again(fake: Fake, trace: Path) -> None:
    store = Store(None, {})
    plan = [suite(fake("good"), fake("bad", "raise ModuleNotFoundError('no module named absl')"))]
    run(plan, store, rounds=3, **SHORT)
    assert trace.read_text().split().count("bad") == 1
    good, bad = summarise(plan, store)[0].standings
    assert good.rate is not None and good.rate.rounds == 3
    assert bad.rate is None and bad.cpu is None
    assert bad.errors == ("ModuleNotFoundError: no module named absl",)
    comparison = summarise(plan, store)[0].comparisons[0]
    assert comparison.spread is None and comparison.by_round == {}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os; os._exit(0)", "gave no result that can be read"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("print('x'); raise SystemExit('out of luck')", "out of luck"),
    ],
)
def test_the_reason_is_named(fake: Fake, body: str, message: str) -> None:
    store = Store(None, {})
    run([suite(fake("good"), fake("bad", body))], store, rounds=1, **SHORT)
    assert message in (store.measurements["fakes", "bad", 0].error or "")


def test_a_peer_that_pip_cannot_install_is_reported(fake: Fake, recgym_home: Path) -> None:
    peer = Peer("nobody", ("/no/such/file.whl",))
    broken = Contestant("nobody", fake("x").file, {}, peer)
    store = Store(None, {})
    run([suite(fake("good"), broken)], store, rounds=2, **SHORT)
    error = store.measurements["fakes", "nobody", 1].error or ""
    assert "file.whl is not a valid wheel filename" in error
    assert (peer.home / "pip.log").is_file() and peer.home.is_relative_to(recgym_home)
    assert peer.installed() is None
    with pytest.raises(PeerError):
        peer.install()


def test_other_requirements_are_another_environment() -> None:
    assert Peer("a", ("x==1",)).home != Peer("a", ("x==2",)).home
    assert Peer("a", ("x==1",)).home == Peer("a", ("x==1",)).home


def test_an_interrupted_run_goes_on_where_it_stopped(fake: Fake, trace: Path, tmp_path: Path) -> None:
    plan = [suite(fake("a"), fake("b"))]

    def interrupt(task: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, Store.open(tmp_path / "out", {"seconds": 1}), rounds=2, progress=interrupt, **SHORT)
    before = json.loads((tmp_path / "out" / "speed.json").read_text())["measurements"]
    assert len(before) == 3
    store = Store.open(tmp_path / "out", {"seconds": 1})
    run(plan, store, rounds=2, **SHORT)
    assert trace.read_text().split() == ["a", "b", "b", "a"]
    after = json.loads((tmp_path / "out" / "speed.json").read_text())["measurements"]
    assert after[:3] == before and len(after) == 4


def test_what_failed_is_tried_again_by_the_next_run(fake: Fake, trace: Path, tmp_path: Path) -> None:
    plan = [suite(fake("a"), fake("b", "raise ValueError('not yet')"))]
    run(plan, Store.open(tmp_path / "out", {}), rounds=1, **SHORT)
    plan = [suite(plan[0].contestants[0], fake("b"))]
    store = Store.open(tmp_path / "out", {})
    run(plan, store, rounds=1, **SHORT)
    assert trace.read_text().split() == ["a", "b", "b"]
    assert store.measurements["fakes", "b", 0].error is None


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    first = configuration("ecommerce-v0", 5.0, 0, "cpu", False, 0)
    Store.open(tmp_path, first).write()
    Store.open(tmp_path, json.loads(json.dumps(first)))
    other = configuration("ecommerce-v0", 3.0, 0, "cpu", False, 0)
    with pytest.raises(RecGymError, match=r"measured with another seconds \(5.0, now 3.0\): give another --out"):
        Store.open(tmp_path, other)
    with pytest.raises(RecGymError, match="another code"):
        Store.open(tmp_path, {**first, "code": "changed"})
    (tmp_path / "speed.json").write_text("[]")
    with pytest.raises(RecGymError, match="does not hold measurements"):
        Store.open(tmp_path, first)
