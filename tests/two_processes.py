"""What each of two processes does in tests/test_processes.py, which starts it with torchrun."""

import json
import os
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch
from torch.utils.data import DataLoader

from postergenre.config import make_params
from postergenre.data.dataset import make_loader
from postergenre.errors import ConfigError
from postergenre.export.job import export_run
from postergenre.train import start
from postergenre.train.averaging import average_run
from postergenre.train.finder import find_lr
from postergenre.train.loop import evaluate, fit, share_lost
from postergenre.train.runs import release
from postergenre.train.setup import create_accelerator, prepare
from postergenre.train.training import finalize

RUNS = json.loads(sys.argv[1])  # name -> parameters
OUT, RANK = Path(sys.argv[2]), int(os.environ["RANK"])
found: dict = {"written": [], "runs": {}}
replace = os.replace


def slow_replace(source, target) -> None:
    "Move a file as a slow disk does, and note who did it."
    time.sleep(0.1)
    replace(source, target)
    found["written"].append(Path(target).name)


def train(name: str, values: dict) -> None:
    "Train a run, and note what this process sees of it."
    run = prepare(make_params({**values, "experiment_name": name}))
    seen = []
    for _ in range(8 if name == "pair" else 0):  # epochs, before the first; those of other runs are not looked at
        seen += [indices.tolist() for _, _, indices in run.train_loader]
    run.sampler.draw = 0
    history = fit(run)
    finalize(run)
    found["runs"][name] = {
        "processes": run.accelerator.num_processes,
        "batches": seen,
        "draw": run.sampler.draw,
        "step": run.step,
        "history": history.drop(columns="seconds").to_dict("records"),
        "weights": run.model.head.linear.weight.tolist(),
        "statistics": {k: v.double().sum().item() for k, v in run.evaluated.state_dict().items() if "running" in k},
        "validation": run.validation.scores.tolist(),
        "stored": run.feature_cache is not None,
    }


def diverge(values: dict) -> str:
    "Return how a run ends in which the second process meets a loss that is no number in batch 2."
    run = prepare(make_params({**values, "experiment_name": "diverged"}))
    loss, calls = run.loss, []

    def broken(logits, targets):
        calls.append(1)
        return loss(logits, targets) * (float("nan") if RANK == 1 and len(calls) == 2 else 1.0)

    run.loss.in_epoch = lambda epoch: broken
    try:
        fit(run)
    except FloatingPointError as error:
        return str(error)
    finally:
        release(run.lock)
    return "it went on"


def refused(job, values: dict) -> str:
    try:
        job(make_params(values))
    except ConfigError as error:
        return str(error)
    return "it went on"


def share_of_lost(values: dict) -> float:
    "Return the share of lost posters that this process knows of after three were lost in the second one."
    run = prepare(make_params({**values, "experiment_name": "lost", "cache": False}))
    for path in run.data.valid["path"][:3] if RANK == 1 else ():
        run.data.lost.add(path)
    share_lost(run)
    release(run.lock)
    return run.data.lost.share


def on_two_machines(values: dict) -> dict[str, str]:
    "Return how jobs end of which the second process sees another folder runs/."
    shared, n = os.environ["RUNS_PATH"], len(found["written"])
    if RANK == 1:
        os.environ["RUNS_PATH"] = str(OUT / "elsewhere")
    try:
        with patch.object(start, "_PATIENCE", 1), redirect_stdout(StringIO()):
            jobs = {"train": prepare, "lr_find": find_lr}
            return {name: refused(job, {**values, "experiment_name": f"apart_{name}"}) for name, job in jobs.items()}
    finally:
        os.environ["RUNS_PATH"] = shared
        del found["written"][n:]


class Numbers(torch.utils.data.Dataset):
    "Items that say which they are."

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return torch.tensor([float(index)]), torch.tensor([float(index % 2)]), index


def gathered(n: int, accelerator) -> list[float]:
    "Return the items that `evaluate` sees of n, as whole numbers."
    loader: DataLoader = accelerator.prepare(make_loader(Numbers(n), batch_size=4, num_workers=0))
    scores = evaluate(torch.nn.Identity(), loader, torch.nn.MSELoss(), accelerator).scores
    return [round(value) for value in torch.logit(torch.tensor(scores[:, 0], dtype=torch.float64)).tolist()]


os.replace = slow_replace
printed = StringIO()
with redirect_stdout(printed):
    for name, values in RUNS.items():
        if name.startswith("lrf"):
            found[name] = find_lr(make_params({**values, "experiment_name": name})).table["loss"].tolist()
        else:
            train(name, values)
    first = next(iter(RUNS.values()))
    found["diverged"] = diverge(first)
    for job in (average_run, export_run):
        found[job.__name__] = refused(job, {**first, "experiment_name": next(iter(RUNS))})
    found["lost"], found["apart"] = share_of_lost(first), on_two_machines(first)
    found["too many"] = refused(prepare, {**first, "experiment_name": "too_many", "batch_size": 65})
    accelerator = create_accelerator(make_params({}))
    found["gathered"] = {n: gathered(n, accelerator) for n in range(1, 14)}
found["printed"] = printed.getvalue()
(OUT / f"{RANK}.json").write_text(json.dumps(found))
