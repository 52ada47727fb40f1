"""Jobs on a finished run in several processes: the result of one process, own errors, and nothing left running."""

import os
import signal
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from test_launch import workers
from test_processes import SMALL

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.export.job import export_run
from postergenre.params import CompareParams, EnsembleParams, EvaluateParams, ExportParams, PredictParams, SwaParams
from postergenre.predict import job as predict_job
from postergenre.predict.job import predict_folder
from postergenre.report import predictions
from postergenre.report.evaluation import score_run
from postergenre.train import processes
from postergenre.train.runs import is_finished
from postergenre.train.setup import check_single_process
from postergenre.train.training import train_run

NAME = "shared"


pytestmark = pytest.mark.usefixtures("own_runs")


@pytest.fixture
def run(own_runs, runs) -> Path:
    "A finished run on demo posters."
    if not is_finished(runs / NAME):
        train_run(make_params({**SMALL, "experiment_name": NAME}))
    return runs / NAME


@pytest.fixture
def pictures(run, runs, tmp_path) -> Path:
    "A list of 180 demo posters in an order of their own, and of one that cannot be read."
    names = sorted((runs / "demo_posters_180" / "Images").iterdir(), key=lambda path: path.name[::-1])
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*names[:50], "gone.png", *names[50:]])))
    return tmp_path / "list.txt"


def predict(pictures: Path, output: str, **values):
    given = {"model": f"{NAME}/model.best.pth", "images": str(pictures), "output": str(pictures.with_name(output))}
    return predict_folder(make_params({**given, "shard_size": 16, **values}, PredictParams))


def same_files(folder: Path, other: Path) -> bool:
    files = [sorted(path.name for path in place.glob("[!._]*")) for place in (folder, other)]
    return files[0] == files[1] and all((folder / n).read_bytes() == (other / n).read_bytes() for n in files[0])


def test_several_processes_write_the_table_of_one(pictures):
    alone = predict(pictures, "alone.csv")
    with patch.object(processes, "with_progress", wraps=processes.with_progress) as shown:
        found = predict(pictures, "table.csv", n_processes=2)
    assert found.n_images == 181 and found.n_unreadable == alone.n_unreadable == 1 and found.table.equals(alone.table)
    assert shown.call_args.args[1:] == (181, "images") and not list(shown.call_args.args[0])
    assert pictures.with_name("table.csv").read_bytes() == pictures.with_name("alone.csv").read_bytes()
    assert not workers() and not [path for path in pictures.parent.iterdir() if path.name.startswith(".")]


def test_a_part_of_the_pictures_is_divided_again(pictures):
    output, alone = pictures.with_name("parts.parquet"), pictures.with_name("alone.parquet")
    for part in (1, 2):
        predict(pictures, alone.name, shard=[part, 2])
        found = predict(pictures, output.name, shard=[part, 2], n_processes=part)
        assert str(found).startswith(f"Part {part} of 2: 9")
    assert same_files(output, alone) and len(pd.read_parquet(output)) == 181


def kill_one(folder: Path, shards: int) -> None:
    "Kill a worker once there are some shards."
    while len(list(folder.glob("[!._]*.parquet"))) < shards:
        time.sleep(0.01)
    os.kill(workers()[-1].pid, signal.SIGKILL)


def test_a_process_that_dies_ends_the_job_which_another_number_of_processes_finishes(pictures):
    predict(pictures, "alone.parquet", shard_size=1)
    output = pictures.with_name("table.parquet")
    threading.Thread(target=kill_one, args=(output, 3), daemon=True).start()
    with pytest.raises(RuntimeError, match=r"Process [01] of 2 failed.*signal 9\). Complete shards are kept"):
        predict(pictures, "table.parquet", shard_size=1, n_processes=2)
    assert not workers()
    kept = {path: path.stat().st_mtime_ns for path in output.glob("[!._]*.parquet")}
    assert 3 <= len(kept) < 181
    predict(pictures, "table.parquet", shard_size=1)
    assert same_files(output, pictures.with_name("alone.parquet"))
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept)


def test_the_error_of_a_process_is_told_with_its_number(pictures):
    begin = predict_job.begin

    def in_the_way(shards, *given):
        begin(shards, *given)
        shards.path(1).mkdir()

    message = r"Process 1 of 2 failed, so all were ended \(\w+Error: .*000001.*\). Complete shards are kept"
    with patch.object(predict_job, "begin", in_the_way), pytest.raises(RuntimeError, match=message):
        predict(pictures, "table.csv", n_processes=2)
    assert not workers()


def test_there_are_no_more_processes_than_shards(pictures, capsys):
    with patch.object(predict_job, "launch", side_effect=AssertionError):
        predict(pictures, "one.csv", n_processes=4, shard_size=None)
    with patch.object(predict_job, "launch", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        predict(pictures, "two.csv", n_processes=4, shard_size=100)
    assert "2 processes score 181 pictures." in capsys.readouterr().out


def test_more_processes_than_gpus_are_refused_before_anything_is_written(pictures):
    with patch("torch.accelerator.is_available", lambda: True), patch("torch.accelerator.device_count", lambda: 1):
        with pytest.raises(ConfigError, match="given 2; allowed: at most 1, the number of GPUs here, or auto"):
            predict(pictures, "table.csv", n_processes=2)
    assert [path.name for path in pictures.parent.iterdir()] == [pictures.name]


@pytest.mark.parametrize("schema", [SwaParams, EnsembleParams, ExportParams])
def test_jobs_in_one_process_take_the_params_file_of_a_training_in_several(schema, capsys):
    params = make_params({"n_processes": 2, "n_epochs": 3}, schema)
    check_single_process("swa", params)
    assert "swa runs in one process; only train, lr_find, predict and evaluate" in capsys.readouterr().out
    check_single_process("swa", make_params({"n_epochs": 3}, schema))
    assert not capsys.readouterr().out
    with pytest.raises(ConfigError, match="not a parameter of this job; only train, lr_find, predict"):
        make_params({"n_processes": 2}, CompareParams)


# Evaluation


@pytest.mark.parametrize("weights", ["last", "model.ts"])
def test_several_processes_give_the_metrics_of_one(run, weights, capsys):
    if weights == "model.ts" and not (run / weights).is_file():
        export_run(make_params({"experiment_name": NAME}, ExportParams))
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    asked = {"experiment_name": NAME, "weights": weights, "split": "test", "n_cam": 0}
    alone = score_run(make_params(asked, EvaluateParams))
    assert "processes" not in capsys.readouterr().out
    found = score_run(make_params({**asked, "n_processes": 2}, EvaluateParams))
    assert "2 processes score the posters." in capsys.readouterr().out and not workers()
    for split in ("valid", "shown"):
        scores = [getattr(evaluated, split).scores for evaluated in (alone, found)]
        assert np.allclose(*scores, rtol=0, atol=1e-6) and scores[0].std() > 0, np.abs(scores[0] - scores[1]).max()
    assert found.shown.ids == alone.shown.ids and found.shown.origin == alone.shown.origin
    assert np.allclose(found.metrics["value"], alone.metrics["value"], rtol=0, atol=1e-6, equal_nan=True)
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_stored_scores_need_no_processes(run):
    with patch.object(predictions, "launch", side_effect=AssertionError):
        asked = {"experiment_name": NAME, "weights": "best", "n_cam": 0, "n_processes": 2}
        assert score_run(make_params(asked, EvaluateParams)).valid.origin == "valid_predictions.csv"
