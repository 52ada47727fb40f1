"""Measure the training step with the first stages of a network frozen: python -m bench.stages [--model NAME] ...

The settings take turns, so that a busy machine slows them all; only the ratios of one run count.
"""

import argparse
import os
import tempfile
import time

import pandas as pd

from postergenre.config import make_params
from postergenre.train.callbacks import Run
from postergenre.train.loop import train_epoch
from postergenre.train.runs import release
from postergenre.train.setup import prepare


def create_frozen_run(
    model_name: str,
    img_size: list[int],
    batch_size: int,
    stages: int,  # number of frozen stages; 0: everything is trained
) -> Run:
    "Return a run of the project whose loader is one batch of demo posters in memory."
    values = {
        "experiment_name": f"stages_{stages}",
        "overwrite": True,
        "n_demo_posters": 200,
        "min_positives": 1,
        "img_size": img_size,
        "batch_size": batch_size,
        "num_workers": 0,
        "model_name": model_name,
        "pretrained": False,
        "callbacks": [{"freeze": {"stages": stages}}] if stages else [],
    }
    run = prepare(make_params(values))
    release(run.lock)
    run.train_loader = [[value.to(run.accelerator.device) for value in next(iter(run.train_loader))]]
    return run


def measure_stages(
    model_name: str,
    img_size: list[int],
    batch_size: int,
    most: int,  # largest number of frozen stages
    rounds: int,  # number of timed steps of each setting, after one that is not timed
) -> pd.DataFrame:
    "Return a row per number of frozen stages: posters per second, and the factor against training everything."
    runs = {stages: create_frozen_run(model_name, img_size, batch_size, stages) for stages in range(most + 1)}
    seconds: dict[int, list[float]] = {stages: [] for stages in runs}
    for _ in range(rounds + 1):
        for stages, run in runs.items():
            run.step, started = 0, time.perf_counter()
            train_epoch(run)  # reads the loss, so a GPU has finished
            seconds[stages].append(time.perf_counter() - started)
    rates = batch_size / pd.DataFrame(seconds).iloc[1:].min()  # the step that other programs disturbed least
    trained = {n: sum(p.numel() for p in run.model.parameters() if p.requires_grad) for n, run in runs.items()}
    table = pd.DataFrame({"posters_per_second": rates, "factor": rates / rates[0], "trained": pd.Series(trained)})
    return table.rename_axis("stages")


def main() -> None:
    "Print the table."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, nargs=2, default=[288, 192], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--most", type=int, default=5, help="largest number of frozen stages")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNS_PATH"] = folder
        table = measure_stages(given.model, given.size, given.batch, given.most, given.rounds)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
