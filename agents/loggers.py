"""Where training writes its figures: TensorBoard, and Weights & Biases or MLflow where they are installed."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recgym.agents.protocol import Log
from recgym.errors import AgentError, unknown_name

_PROJECT = "recgym"


def _tensorboard(directory: Path, about: Mapping[str, Any], stack: ExitStack) -> Log:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory))
    stack.callback(writer.close)

    def log(figures: Mapping[str, float], steps: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, steps)

    return log


def _wandb(directory: Path, about: Mapping[str, Any], stack: ExitStack) -> Log:
    wandb = _imported("wandb")
    # An id of the directory's own: a resumed training goes on in the same run.
    number = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    run = wandb.init(
        project=_PROJECT, name=directory.name, id=number, dir=str(directory), config=dict(about), resume="allow"
    )
    stack.callback(run.finish)
    return lambda figures, steps: run.log(dict(figures), step=steps)


def _mlflow(directory: Path, about: Mapping[str, Any], stack: ExitStack) -> Log:
    mlflow = _imported("mlflow")
    mlflow.set_experiment(_PROJECT)
    mlflow.start_run(run_name=directory.name)
    stack.callback(mlflow.end_run)
    mlflow.log_params({key: about[key] for key in ("agent", "seed", "steps")} | about["config"])
    return lambda figures, steps: mlflow.log_metrics(dict(figures), step=steps)


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any], ExitStack], Log]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
_PACKAGES = ("wandb", "mlflow")  # those that have to be installed first


def check_loggers(names: Sequence[str]) -> None:
    """Refuses a logger that there is not.

    Raises:
        UnknownNameError: no such logger; the message gives the nearest one.
        AgentError: its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise unknown_name("logger", name, LOGGERS)
        if name in _PACKAGES:
            _imported(name)


@contextmanager
def open_loggers(names: Sequence[str], directory: Path, about: Mapping[str, Any]) -> Iterator[Log]:
    """A log that writes to all of ``names``, until the context ends.

    Args:
        names: of ``LOGGERS``; none: figures go nowhere.
        directory: the run directory.
        about: the record of the run.
    """
    with ExitStack() as stack:
        logs = [LOGGERS[name](directory, about, stack) for name in names]

        def log(figures: Mapping[str, float], steps: int) -> None:
            for one in logs:
                one(figures, steps)

        yield log


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AgentError(f"logger {name!r} needs the package {name!r}: pip install {name}") from error
