"""Let a training run be killed after a number of steps."""

import contextlib
import os
import signal
from collections.abc import Iterator
from unittest.mock import patch

from postergenre.train import loop


@contextlib.contextmanager
def killed_after(steps: int) -> Iterator[None]:
    "Kill this process before the step that follows this number of steps."
    done, update = [], loop.update_weights

    def update_or_die(run) -> None:
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(update(run))

    with patch.object(loop, "update_weights", update_or_die):
        yield
