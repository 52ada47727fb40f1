"""Train a run, and let it be killed after a number of steps."""

import os
import signal
from typing import Any
from unittest.mock import patch

from postergenre.config import make_params
from postergenre.train import loop
from postergenre.train.callbacks import Run
from postergenre.train.runs import release
from postergenre.train.setup import prepare


def train(values: dict[str, Any]) -> Run:
    "Train or resume a run; its state to resume from is kept."
    run = prepare(make_params(values))
    loop.fit(run)
    release(run.lock)
    return run


def train_and_die(values: dict[str, Any], steps: int) -> None:
    "Train or resume a run in a process that is killed before the step that follows this number of steps."
    done, update = [], loop.update_weights

    def update_or_die(run: Run) -> None:
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(update(run))

    with patch.object(loop, "update_weights", update_or_die):
        train(values)
