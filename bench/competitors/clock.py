"""The clock of a job: when each epoch ended, and how many posters it used."""

import time
from itertools import pairwise
from typing import Any


class Clock:
    "Record the moments of a job, in seconds, and the number of posters of each epoch."

    def __init__(self):
        self.started = time.perf_counter()
        self.first_step: float | None = None  # when the first batch is available
        self.began: float | None = None  # when training, or prediction, is called
        self.ends: list[float] = []  # end of each epoch
        self.posters: list[int] = []  # number of posters trained on, or scored, per epoch

    def begin(self) -> None:
        "Mark the call of training, or the making of the loader for prediction."
        self.began = time.perf_counter()
        self.posters.append(0)

    def batch(self, posters: int) -> None:
        "Mark that a batch is available; its step comes next."
        if self.first_step is None:
            self.first_step = time.perf_counter()
        self.posters[-1] += posters

    def end_epoch(self, device: str) -> None:
        "Mark the end of an epoch, its validation included, once the device has finished."
        if device == "cuda":
            import torch  # the clock starts before torch is imported

            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.posters.append(0)

    def results(
        self,
        job: str,  # head, finetune, tune or predict
    ) -> dict[str, Any]:
        "Return seconds and posters per second; only the last epoch of `finetune` counts for its speed."
        epoch_seconds = [end - start for start, end in pairwise([self.began, *self.ends])]
        posters = self.posters[: len(epoch_seconds)]
        total = self.ends[-1] - self.started
        counted = slice(-1, None) if job == "finetune" else slice(None)
        return {
            "seconds": sum(epoch_seconds) if job == "predict" else total,
            "total_seconds": total,
            "start_seconds": None if job == "predict" else self.first_step - self.started,
            "epoch_seconds": epoch_seconds,
            "epoch_posters": posters,
            "posters_per_second": sum(posters[counted]) / sum(epoch_seconds[counted]),
        }
