"""One process, several and mixed precision are the same training code."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recgym.errors import RecGymError
from recgym.user_models.preference.config import ModelConfig
from recgym.user_models.preference.training import Trainer
from tests.user_models.test_training import CONFIG, planted_trips, small_data

ROOT = Path(__file__).parents[2]
# Trains on planted users and writes what each process ends with.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from recgym.user_models.preference.training import Trainer
from tests.user_models.test_processes import config
from tests.user_models.test_training import planted_trips, small_data

out, precision, epochs, stop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
trips, _ = planted_trips(users=120, seed=0)
trainer = Trainer(small_data(trips), config(precision, epochs), 0, out / "run")

def interrupt(what, share):
    if what.startswith("finetune") and share > stop:
        raise SystemExit(9)

trainer.progress = interrupt
model = trainer.run()
rank = trainer.accelerator.process_index
weights = {name: value.double().sum().item() for name, value in model.state_dict().items()}
told = {"history": trainer.history, "weights": weights, "processes": trainer.accelerator.num_processes}
(out / f"rank-{rank}.json").write_text(json.dumps(told))
"""


def config(precision: str = "no", epochs: int = 3) -> ModelConfig:
    changes = {"mixed_precision": precision, "pretrain_epochs": 2, "finetune_epochs": epochs, "patience": 9}
    return CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update=changes)})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def launch(text: str, out: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in one process, or with ``torchrun`` in several."""
    out.mkdir(exist_ok=True)
    script = out / "script.py"
    script.write_text(text)
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={free_port()}"]
    command += [str(script), str(out), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=400, check=False)


def train(out: Path, processes: int = 1, precision: str = "no", stop: float = 2.0, expected: int = 0) -> list[dict]:
    """What each of the processes of a training ends with; ``stop`` is the share of fine-tuning that it gets to."""
    result = launch(SCRIPT, out, processes, precision, "3", str(stop))
    assert (result.returncode != 0) == (expected != 0), result.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(out.glob("rank-*.json"))]


def curve(history: list[dict], stage: str, name: str) -> np.ndarray:
    return np.array([row[name] for row in history if row["stage"] == stage])


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    (one,) = train(tmp_path / "one")
    two = train(tmp_path / "two", processes=2)
    assert [told["processes"] for told in (one, *two)] == [1, 2, 2]
    # Both processes of a training end with the same weights and tell the same story.
    assert two[0]["weights"] == two[1]["weights"]
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in told["history"]] for told in two]
    assert timeless[0] == timeless[1]
    # The loss curves of one and of two processes are the same but for the luck of dropout and sampling.
    for stage, name in (("pretrain", "loss/next_item"), ("finetune", "loss/purchase"), ("finetune", "loss/ranking")):
        single, double = curve(one["history"], stage, name), curve(two[0]["history"], stage, name)
        np.testing.assert_allclose(double, single, rtol=0.04)
        assert single[-1] < single[0]
    for name in ("ndcg@10", "log_loss"):
        ends = [curve(told["history"], "finetune", name)[-1] for told in (one, two[0])]
        assert ends[1] == pytest.approx(ends[0], rel=0.06)
    # Rank 0 alone writes: one checkpoint a stage.
    for stage in ("pretrain", "finetune"):
        assert len(list((tmp_path / "two" / "run" / stage).glob("epoch-*.safetensors"))) == 1


@pytest.mark.slow
def test_interrupted_processes_go_on_to_the_same_loss(tmp_path):
    whole = train(tmp_path / "whole", processes=2)
    assert train(tmp_path / "broken", processes=2, stop=0.5, expected=9) == []
    resumed = train(tmp_path / "broken", processes=2)
    for name in ("loss/purchase", "loss/ranking", "ndcg@10", "log_loss"):
        found, expected = (curve(told[0]["history"], "finetune", name) for told in (resumed, whole))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_mixed_precision_trains_to_nearly_the_same_loss(tmp_path):
    (full,), (half,) = train(tmp_path / "full"), train(tmp_path / "half", precision="bf16")
    assert full["weights"] != half["weights"]
    for name in ("loss/purchase", "loss/ranking"):
        np.testing.assert_allclose(
            *(curve(told["history"], "finetune", name) for told in (half, full)), rtol=0.02, err_msg=name
        )


def test_a_second_precision_in_one_process_is_refused(tmp_path):
    Trainer(small_data(), config(), 0, tmp_path)
    with pytest.raises(RecGymError, match=r"mixed_precision is 'bf16'.*train in a new process"):
        Trainer(small_data(), config("bf16"), 0, tmp_path)


def test_an_interrupted_process_resumes_to_exactly_the_same_model(tmp_path):
    trips, _ = planted_trips(users=30, seed=1)
    whole = Trainer(small_data(trips), config(epochs=2), 0, tmp_path / "whole").run()
    broken = Trainer(small_data(trips), config(epochs=2), 0, tmp_path / "broken")

    def interrupt(what: str, share: float) -> None:
        if what.startswith("finetune") and share > 0.5:
            raise KeyboardInterrupt

    broken.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = Trainer(small_data(trips), config(epochs=2), 0, tmp_path / "broken").run()
    for (name, expected), (_, found) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(found, expected), name


def test_a_process_without_the_disk_ends_with_what_the_main_one_reads(tmp_path, monkeypatch):
    trips, _ = planted_trips(users=30, seed=1)
    told = []

    def trainer(place: str) -> Trainer:
        return Trainer(small_data(trips), config(epochs=2), 0, tmp_path / place)

    def tell(self, measure):
        told.append(measure())
        return told[-1]

    # The first epoch is the best one, so that the last weights are others.
    monkeypatch.setattr(Trainer, "evaluate", lambda self: {"ndcg@10": 1.0 / (1 + len(self.history))})
    monkeypatch.setattr(Trainer, "_from_main", tell)
    main = trainer("main")
    main.run()
    monkeypatch.setattr(Trainer, "_from_main", lambda self, measure: told.pop(0))
    other = trainer("other")
    other.main = False
    found = other.run()
    assert not list((tmp_path / "other").iterdir())
    for (name, expected), (_, value) in zip(main.model.state_dict().items(), found.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name
