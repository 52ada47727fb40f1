"""Measure training in two processes against one process with two threads: python -m bench.processes [--rounds N] ...

Both use two cores and the same posters per step, and take turns, so that a busy machine slows both. The start of the
processes does not count. Only the ratio of one run counts; macro AP shows that both learn alike.
"""

import argparse
import json
import os
import tempfile
import time

import pandas as pd

from postergenre.config import make_params, run_folder
from postergenre.machine import usable_cores
from postergenre.train.callbacks import Callback, Run
from postergenre.train.processes import launch
from postergenre.train.training import train_run

SETTINGS = {"one process, two threads": 1, "two processes, one thread each": 2}


class Clock(Callback):
    "Record the posters per second of each epoch, without validation, in `speed.json`."

    def __init__(self):
        self.began, self.ended, self.rates = 0.0, 0.0, []

    def on_epoch_start(self, run: Run) -> None:
        self.began = time.perf_counter()

    def on_batch_end(self, run: Run, batch: int) -> None:
        self.ended = time.perf_counter()

    def on_epoch_end(self, run: Run) -> None:
        posters = run.schedule.steps_per_epoch * run.params.batch_size * run.accelerator.num_processes
        self.rates.append(posters / (self.ended - self.began))
        if run.is_main:
            (run.folder / "speed.json").write_text(json.dumps(self.rates))


def train(
    values: dict,  # parameters
) -> None:
    "Train a run, in one of the processes that share it."
    train_run(make_params(values))


def measure_round(
    number: int,
    posters: int,  # demo posters, of which 0.8 are trained on
    batch: int,  # posters per step in all processes
    epochs: int,
    img_size: list[int],  # height and width, pixels
) -> list[dict]:
    "Train one run in each way; return a row for each: the speed of its fastest epoch, and its best macro AP."
    rows = []
    for name, count in SETTINGS.items():
        values = {
            "experiment_name": f"processes_{count}_{number}",
            "n_demo_posters": posters,
            "seed": number,
            "img_size": img_size,
            "batch_size": batch // count,
            "num_iteration_on_epoch": None,
            "n_epochs": epochs,
            "num_workers": 0,
            "min_positives": 3,
            "trackers": [],
            "callbacks": ["bench.processes.Clock"],
        }
        launch(train, (values,), count, "Start again.")
        folder = run_folder(make_params(values))
        speed = max(json.loads((folder / "speed.json").read_text()))
        quality = pd.read_csv(folder / "metrics.csv")["macro_ap"].max()
        rows.append({"setting": name, "posters_per_second": speed, "macro_ap": quality})
    return rows


def summarize(
    rows: list[dict],  # of all rounds
) -> pd.DataFrame:
    "Return the highest speed of each setting, the factor against one process, and the range of macro AP."
    by_setting = pd.DataFrame(rows).groupby("setting", sort=False)
    speed, quality = by_setting["posters_per_second"].max(), by_setting["macro_ap"]
    columns = {"posters_per_second": speed, "factor": speed / speed.iloc[0], "rounds": by_setting.size()}
    return pd.DataFrame(columns | {"macro_ap_lowest": quality.min(), "macro_ap_highest": quality.max()})


def main() -> None:
    "Print the table; start no round that would take longer than the minutes that are left."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posters", type=int, default=600, help="demo posters")
    parser.add_argument("--batch", type=int, default=32, help="posters per step")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--img-size", type=int, nargs=2, default=[96, 64], help="height and width, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0)
    given = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(f"{usable_cores()} cores; load average before the start: {os.getloadavg()[0]:.1f}", flush=True)
    rows, began, longest = [], time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNS_PATH"] = folder
        for number in range(1, given.rounds + 1):
            started = time.monotonic()
            if started - began + longest > 60 * given.minutes:
                break
            rows += measure_round(number, given.posters, given.batch, given.epochs, given.img_size)
            longest = max(longest, time.monotonic() - started)
    print(summarize(rows).round(3).to_string())


if __name__ == "__main__":
    main()
