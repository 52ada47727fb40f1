"""Jobs that are killed at each of their file operations, then run again.

python tests/killing.py FOLDER JOB ...   tries JOBS, and prints the number of moments at which each could be killed
"""

import functools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from moments import in_child, moments_of, names_in, put_back

from postergenre.config import make_params
from postergenre.data.experiment import load_run_data
from postergenre.export import job as exporting
from postergenre.export.job import export_run
from postergenre.params import EvaluateParams
from postergenre.report.documents import write_evaluation
from postergenre.report.evaluation import score_run
from postergenre.report.predictions import Thresholds, save_thresholds
from postergenre.train import averaging, setup, trackers, training
from postergenre.train.averaging import average_run, combine_run
from postergenre.train.checkpoints import load_plain
from postergenre.train.finder import find_lr
from postergenre.train.runs import RUN_FILE, lock_run, read_run, release
from postergenre.train.training import train_run

SMALL = {
    "experiment_name": "run",
    "n_demo_posters": 100,
    "img_size": [32, 32],
    "batch_size": 8,
    "num_iteration_on_epoch": 1,
    "n_epochs": 2,
    "pretrained": False,
    "num_workers": 0,
    "cache": False,
    "min_positives": 1,
    "split_fractions": [0.4, 0.3, 0.3],
    "model_name": "test_efficientnet",
    "augmentations": [],
}


def kill_everywhere(
    folder: Path,  # the runs folder
    before: Callable[[], object],  # makes the state that the job starts from
    job: Callable[[], object],
    check: Callable[[], object],  # looks at what a kill left
    check_end: Callable[[], object],  # looks at what the same job makes of it
) -> int:
    "Run a job on what a kill at each of its file operations leaves; return the number of these moments."
    seen = None
    with moments_of(folder, before, job) as states:
        for state in states:
            put_back(state, folder)
            check()
            finished = {
                name: content
                for name, content in files_in(folder).items()
                if ".tmp" not in name and "tensorboard" not in name
            }
            there = finished, names_in(folder)
            if there == seen:
                continue  # nothing new was left behind, so the same comes of it
            seen = there
            assert in_child(job) == 0
            check_end()
            left = [path for path in folder.glob("run/**/*") if path.name.endswith((".tmp", ".replacing"))]
            assert not left and not list(folder.glob(".replaced/*")), left
        return len(states)


def files_in(folder: Path, names: tuple[str, ...] = ()) -> dict[str, bytes]:
    "Return the content of a folder's files by path, or of those named that are there."
    paths = [folder / name for name in names] if names else folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def results_of(folder: Path) -> dict[str, object]:
    "Return what must be the same after a training run that was killed: weights, and files without times."
    weights = {}
    for path in sorted(folder.rglob("*.pth")):
        content = load_plain(path)
        if "model" in content:  # not the state of a finished run
            weights[path.name] = b"".join(value.numpy().tobytes() for value in content["model"].values())
    names = ("params.yaml", "split.json", "train_df.csv", "model.storage.json", "genres.csv", "valid_predictions.csv")
    history = [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
    return {**weights, **files_in(folder, (*names, RUN_FILE)), "history": history}


def train_job(folder: Path, earlier: Path | None) -> int:
    "Kill a training run, one that replaces an earlier run if there is one."
    values = {**SMALL, "n_epochs": 1 if earlier else 2, "overwrite": bool(earlier)}
    job = functools.partial(train_run, make_params(values))
    run, aside = folder / "run", folder / ".replaced" / "run" / "1"
    assert in_child(job) == 0
    wanted = results_of(run)
    old = files_in(earlier) if earlier else {}

    def before() -> None:
        shutil.rmtree(run, ignore_errors=True)  # killed before it made the folder
        if earlier:
            shutil.copytree(earlier, run)

    def check() -> None:
        if earlier and files_in(run) == old:
            assert not aside.exists()
        elif (run / RUN_FILE).exists() and read_run(run)[1] == "finished":
            assert results_of(run).items() >= wanted.items()  # more, until spare files are removed
        elif earlier:  # the old run is complete elsewhere, and nothing of it is here
            assert files_in(aside) == old
            here = files_in(run)
            assert not [name for name in here if name.endswith(("pth", "yaml")) and old.get(name) == here[name]]
        elif run.exists():
            assert not (run / "summary.json").exists() or read_run(run)[1] in ("resumable", "finished")

    def check_end() -> None:
        assert results_of(run) == wanted

    return kill_everywhere(folder, before, job, check, check_end)


def replacing_job(folder: Path, names: tuple[str, ...], old: Callable, new: Callable) -> int:
    "Kill a job that replaces files of a finished run; the last one named describes the others."
    run, kept = folder / "run", Path(tempfile.mkdtemp(dir=folder)) / "kept"
    assert in_child(old) == 0
    shutil.copytree(run, kept)
    there = [files_in(run, names)]
    assert in_child(new) == 0
    there.append(files_in(run, names))
    assert there[0].keys() == there[1].keys() == set(names) and all(there[0][n] != there[1][n] for n in names)

    def before() -> None:
        shutil.rmtree(run)
        shutil.copytree(kept, run)

    def check() -> None:
        assert files_in(run, names) in there or not (run / names[-1]).exists()
        in_child(lambda: release(lock_run(run)))  # as any later job does
        assert files_in(run, names) in there

    def check_end() -> None:
        assert files_in(run, names) == there[1]

    return kill_everywhere(folder, before, new, check, check_end)


def swa_job(folder: Path) -> int:
    "Kill the averaging of three checkpoints where an average of two is."
    old, new = ({**SMALL, "n_epochs": 3, "swa_checkpoints": n, "overwrite": True} for n in (2, 3))
    averages = [functools.partial(average_run, make_params(values)) for values in (old, new)]
    return replacing_job(folder, ("model.swa.pth", "swa.json"), *averages)


def ensemble_job(folder: Path) -> int:
    "Kill the ensemble of a run with two of its checkpoints where one with a single checkpoint is."
    epochs = [f"run/checkpoints/epoch_{epoch:04d}.pth" for epoch in (1, 2)]
    old, new = (
        {**SMALL, "n_epochs": 3, "ensemble_members": members, "tta": [], "overwrite": True}
        for members in (epochs[:1], epochs)
    )
    combinations = [functools.partial(combine_run, make_params(values)) for values in (old, new)]
    return replacing_job(folder, ("model.ensemble.pth", "ensemble.json"), *combinations)


def export_job(folder: Path) -> int:
    "Kill the export of the last checkpoint where one of the best is; the files are made by something quick."

    def content(model: torch.nn.Module, *_) -> bytes:
        return model.head.linear.weight.detach().numpy().tobytes()

    def export(weights: str) -> None:
        quick = {f"{kind}_file": content for kind in ("torchscript", "program", "onnx")}
        quick |= {"export_program": lambda model, *_: model}
        quick |= {f"load_{kind}": lambda _: None for kind in ("torchscript", "program", "onnx")}
        quick |= {"parity_table": lambda *_: pd.DataFrame(), "check_parity": lambda _: None}
        with patch.multiple(exporting, **quick):
            export_run(make_params({**SMALL, "n_epochs": 3, "export_weights": weights, "overwrite": True}))

    (folder / "run" / "model.int8.onnx").write_bytes(b"of other weights")
    shutil.copy(folder / "run" / "checkpoints" / "epoch_0001.pth", folder / "run" / "model.best.pth")  # not the last
    names = ("model.onnx", "model.pt2", "model.ts", "export.json")
    return replacing_job(folder, names, lambda: export("best"), lambda: export("last"))


def evaluate_job(folder: Path) -> int:
    "Kill the writing of an evaluation on validation posters where one on test posters is."
    evaluated = [score_run(EvaluateParams(experiment_name="run", split=split)) for split in ("test", "valid")]
    jobs = [functools.partial(write_evaluation, given, overwrite=True) for given in evaluated]
    return replacing_job(folder, ("MODEL_CARD.md", "report.html", "evaluation.json"), *jobs)


def thresholds_job(folder: Path) -> int:
    "Kill the saving of thresholds where others are."
    evaluated = score_run(EvaluateParams(experiment_name="run", split="valid"))
    thresholds = [Thresholds(evaluated.thresholds.values * factor, "by hand") for factor in (0.5, 0.6)]
    jobs = [functools.partial(save_thresholds, evaluated.run, given) for given in thresholds]
    return replacing_job(folder, ("thresholds.json",), *jobs)


def without_time(folder: Path) -> dict[str, bytes]:
    "Return the content of a range test's files, without the seconds that it took."
    return {name: re.sub(rb'"seconds": [\d.]+', b"", content) for name, content in files_in(folder).items()}


def lr_find_job(folder: Path) -> int:
    "Kill a range test that replaces another one."
    tests = [
        functools.partial(find_lr, make_params({**SMALL, "lrf_iterations": n, "overwrite": True})) for n in (12, 13)
    ]
    run, names = folder / "run", ("lr_find.csv", "params.yaml", "summary.json", RUN_FILE)
    assert in_child(tests[0]) == 0
    kept = shutil.copytree(run, folder / "kept")
    assert in_child(tests[1]) == 0
    old, wanted = files_in(kept), without_time(run)
    assert old.keys() == wanted.keys() == set(names)

    def before() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(kept, run)

    def check() -> None:
        assert (
            files_in(run) == old or files_in(folder / ".replaced" / "run" / "1") == old or without_time(run) == wanted
        )

    def check_end() -> None:
        assert without_time(run) == wanted

    return kill_everywhere(folder, before, tests[1], check, check_end)


def prepare_run(folder: Path, **values) -> Path:
    "Train a small run that later jobs start from."
    assert in_child(lambda: train_run(make_params({**SMALL, **values}))) == 0
    return folder / "run"


def overwrite_job(folder: Path) -> int:
    "Kill a training run that replaces a finished one of another seed."
    earlier = shutil.copytree(prepare_run(folder, seed=1), folder / "earlier")
    shutil.rmtree(folder / "run")
    return train_job(folder, earlier)


JOBS = {"train": lambda folder: train_job(folder, None), "overwrite": overwrite_job, "lr_find": lr_find_job}
LATER_JOBS = {
    "swa": swa_job,
    "ensemble": ensemble_job,
    "export": export_job,
    "evaluate": evaluate_job,
    "thresholds": thresholds_job,
}


def kill_jobs(folder: Path, jobs: list[str]) -> None:
    "Kill jobs at each of their file operations; what writes nothing is made quick, until this process ends."
    os.environ["RUNS_PATH"] = str(folder)
    data, counts = load_run_data(make_params({**SMALL, "cache": True})), {}  # decoded once, for all jobs
    os.fsync = lambda file: None  # matters when the power fails
    for module in (setup, averaging, exporting):
        patch.object(module, "load_run_data", lambda params: data).start()
    patch.object(training, "describe_split", lambda *_: {}).start()
    patch.object(trackers, "_log_drawings", lambda run, writer: None).start()
    for job in jobs:
        place = folder / job
        place.mkdir()
        os.environ["RUNS_PATH"] = str(place)
        if job in LATER_JOBS:
            prepare_run(place, n_epochs=3, keep="all")
        counts[job] = {**JOBS, **LATER_JOBS}[job](place)
    print(json.dumps(counts))


if __name__ == "__main__":
    kill_jobs(Path(sys.argv[1]).resolve(), sys.argv[2:])
