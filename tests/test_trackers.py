"""TensorBoard and other trackers: what they hold, resuming, and a tracker that is missing or fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browsing import free_port
from killing import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from postergenre.config import make_params, params_digest, run_folder, write_params_file
from postergenre.data.split import targets_of
from postergenre.errors import ConfigError
from postergenre.train import loop, trackers
from postergenre.train.runs import read_json
from postergenre.train.training import train_run

RATES = {"scheduler": "one_cycle", "scheduler_kwargs": {"max_lr": 1e-2}}
VALUES = {**SMALL, **RATES, "n_epochs": 3, "num_iteration_on_epoch": 3}
EVERYTHING = {"scalars": 0, "tensors": 0, "images": 0}


@pytest.fixture(scope="module", autouse=True)
def own_runs(tmp_path_factory):
    "A runs folder of this module."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(tmp_path_factory.mktemp("tracked")))
        patch.delenv("ROOT_PATH", raising=False)
        yield


def logged(folder) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=EVERYTHING).Reload()


@pytest.fixture(scope="module")
def run():
    return train_run(make_params(VALUES))


@pytest.fixture(scope="module")
def events(run) -> EventAccumulator:
    return logged(run.folder)


def test_tensorboard_has_the_metrics_of_every_epoch_and_the_rate_of_every_step(run, events):
    for name in ("macro_ap", "macro_ap_floor", "valid_loss", "train_loss"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [3, 6, 9]
        assert np.allclose([value for _, value in found], [row[name] for row in run.history])
    rates = [(event.step, event.value) for event in events.Scalars("lr")]
    assert [step for step, _ in rates] == list(range(1, 10))
    assert np.allclose([rate for _, rate in rates], [run.schedule.lr(step) for step in range(9)])


def test_tensorboard_has_pictures_of_validation_posters(events):
    first = events.Images("validation_posters")[0]
    assert first.step == 3 and first.encoded_image_string.startswith(b"\xff\xd8") and first.width > 600
    steps = [image.step for image in events.Images("validation_posters")]
    values = [event.value for event in events.Scalars("macro_ap")]
    assert set(steps) <= {3 * (n + 1) for n, value in enumerate(values) if value > max(values[:n], default=-1)}


def test_pictures_take_a_small_part_of_the_time(run, monkeypatch):
    board, drawn, now = trackers.TensorBoard(), [], 0.0
    board.writer = SimpleNamespace(add_scalar=lambda *_: None, flush=lambda: None)
    monkeypatch.setattr(trackers, "_is_best", lambda run: True)
    monkeypatch.setattr(trackers, "time", SimpleNamespace(monotonic=lambda: now))

    def draw(run, writer):
        nonlocal now
        drawn.append(now)
        now += 2

    monkeypatch.setattr(trackers, "_log_drawings", draw)
    for _ in range(40):  # epochs of 10 seconds, and drawings of 2
        now += 10
        board.on_epoch_end(run)
    assert drawn == [10, 112, 214, 316]


def test_the_picture_shows_predicted_and_true_genres(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(trackers, "prediction_grid", lambda *given, **more: drawn.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trackers._log_drawings(run, None)
    paths, scores, genres, thresholds, true = drawn[0]
    assert paths == run.data.valid["path"].tolist()[:8] and genres == run.data.genres
    assert np.array_equal(scores, run.validation.scores[:8]) and np.array_equal(thresholds, run.thresholds)
    assert np.array_equal(true, targets_of(run.data.valid, genres)[:8])


def test_tensorboard_has_a_precision_recall_curve_of_each_genre(run, events):
    tags = events.PluginTagToContent("pr_curves")
    targets = targets_of(run.data.valid, run.data.genres)
    names = [genre for genre, n in zip(run.data.genres, targets.sum(axis=0), strict=True) if n >= 1]
    assert sorted(tags) == sorted(f"precision_recall/{genre}" for genre in names) and len(names) > 3
    true, false_positive, _, missed, precision, recall = tensor_util.make_ndarray(
        events.Tensors(f"precision_recall/{names[0]}")[0].tensor_proto
    )
    positives = targets[:, run.data.genres.index(names[0])].sum()
    assert true[0] == positives and missed[0] == 0 and recall[0] == 1  # everything is predicted at threshold 0
    assert np.isclose(precision[0], positives / len(targets)) and true[0] + false_positive[0] == len(targets)


def test_tensorboard_has_the_parameters_with_metrics(events):
    content = events.PluginTagToContent("hparams")
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    given = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert given["batch_size"].number_value == 8 and given["model_name"].string_value == "test_efficientnet"
    assert given["optimizer_kwargs"].string_value == json.dumps(make_params(VALUES).optimizer_kwargs)
    assert "root_path" not in given and not any(name.startswith(("lrf_", "export_")) for name in given)
    metrics = [metric.name.tag for metric in experiment.metric_infos]
    assert metrics == ["best_macro_ap", "macro_ap", "valid_loss"] and set(metrics) <= set(events.Tags()["scalars"])
    best = max(event.value for event in events.Scalars("macro_ap"))
    assert events.Scalars("best_macro_ap")[-1].value == pytest.approx(best)
    assert HParamsPluginData.FromString(content["_hparams_/session_end_info"]).session_end_info.status == 1


def killed_and_resumed(values, monkeypatch):
    "Trains a run that is interrupted when its second epoch is logged but not yet stored, and goes on."
    store, calls = loop.save_state, []

    def interrupt(run):
        calls.append(run.epoch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        store(run)

    monkeypatch.setattr(loop, "save_state", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_run(make_params(values))
    run = train_run(make_params(values))
    assert calls == [1, 2, 2, 3]
    return run


def test_a_killed_run_leaves_no_step_twice(monkeypatch):
    run = killed_and_resumed({**VALUES, "experiment_name": "killed"}, monkeypatch)
    events = logged(run.folder)
    assert [event.step for event in events.Scalars("lr")] == list(range(1, 10))
    assert [event.step for event in events.Scalars("macro_ap")] == [3, 6, 9]
    steps = [image.step for image in events.Images("validation_posters")]
    assert steps == sorted(set(steps))


def test_steps_that_are_logged_go_on_when_epochs_get_shorter(monkeypatch):
    given = {**VALUES, "experiment_name": "shorter", "num_iteration_on_epoch": 6}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trackers.TensorBoard, "on_epoch_start", interrupt_in_epoch(3), raising=False)
        train_run(make_params(given))
    params = make_params({**given, "num_iteration_on_epoch": 2})  # as if three times as many processes shared an epoch
    write_params_file(run_folder(params) / "params.yaml", params)
    begun = run_folder(params) / "run.json"
    digest = params_digest(begun.with_name("params.yaml"))
    begun.write_text(json.dumps({**json.loads(begun.read_text()), "params_sha256": digest}))
    run = train_run(params)
    assert (run.step, run.steps_taken) == (6, 14)
    events = logged(run.folder)
    assert [event.step for event in events.Scalars("macro_ap")] == [6, 12, 14]
    rates = [(event.step, event.value) for event in events.Scalars("lr")]
    assert [step for step, _ in rates] == list(range(1, 15))
    assert np.allclose([rate for _, rate in rates[12:]], [run.schedule.lr(4), run.schedule.lr(5)])


def interrupt_in_epoch(number):
    "Returns a method of a callback."

    def on_epoch_start(self, run):
        if run.epoch + 1 == number:
            raise KeyboardInterrupt

    return on_epoch_start


def test_no_tracker_is_needed():
    run = train_run(make_params({**VALUES, "experiment_name": "silent", "trackers": [], "n_epochs": 1}))
    assert not (run.folder / "tensorboard").exists() and (run.folder / "metrics.csv").exists()


def test_a_missing_package_is_named_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    params = make_params({**VALUES, "experiment_name": "missing", "trackers": ["tensorboard", "wandb"]})
    with pytest.raises(ConfigError, match=r'needs the package wandb.*pip install "postergenre\[wandb\]"'):
        train_run(params)
    assert not Path(os.environ["RUNS_PATH"], "missing").exists()


def test_every_tracker_has_an_extra():
    settings = Path(__file__).parents[1].joinpath("settings.ini").read_text(encoding="utf-8")
    setup = Path(__file__).parents[1].joinpath("setup.py").read_text(encoding="utf-8")
    for name in trackers._RUN_IDS:
        assert f"\n{name}_requirements = {name}" in settings and f'"{name}"' in setup


class Tracker:
    "Count what is logged, and fail from some call on."

    def __init__(self, name: str, fails_at: int):
        self.name, self.fails_at, self.calls, self.finished = name, fails_at, [], False

    def log(self, values, step):
        if len(self.calls) == self.fails_at:
            raise ConnectionError("the server is gone\nwith a long trace")
        self.calls.append((step, values))

    def finish(self):
        self.finished = True


def test_a_tracker_that_fails_is_dropped_with_one_line(capsys):
    broken, working = Tracker("broken", 1), Tracker("working", 99)
    run = SimpleNamespace(accelerator=SimpleNamespace(trackers=[broken, working]), history=[], epoch=0, steps_taken=0)
    callback = trackers.Trackers()
    for epoch in (1, 2, 3):
        run.epoch, run.steps_taken = epoch, 4 * epoch
        run.history.append({"epoch": epoch, "loss": 0.1, "macro_ap": None})
        callback.on_state_saved(run)
        callback.on_state_saved(run)  # no epoch is logged twice
    assert [step for step, _ in working.calls] == [4, 8, 12] and working.calls[0][1] == {"epoch": 1, "loss": 0.1}
    said = capsys.readouterr().out.splitlines()
    assert said == ["broken failed, so the run goes on without it (ConnectionError: the server is gone)"]
    callback.on_results(run, {"best_epoch": 2, "valid": {"not_measured": "no"}})
    assert working.finished and not broken.finished and working.calls[-1][1] == {"best_epoch": 2}


MLFLOW_PYTHON = os.environ.get("MLFLOW_PYTHON")


@pytest.mark.skipif(
    not MLFLOW_PYTHON, reason="MLFLOW_PYTHON names no Python that has mlflow next to the project's packages"
)
def test_the_tests_with_mlflow_pass_in_an_environment_of_their_own():
    "MLflow needs other versions of some packages, so it may be in an environment that adds to this one."
    line = [MLFLOW_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "mlflow_gets or goes_away"]
    env = {**os.environ, "MLFLOW_PYTHON": ""}
    root = Path(__file__).parents[1]
    done = subprocess.run(line, cwd=root, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "A real MLflow server on this machine: its address, and its process."
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="an MLflow server needs SQLAlchemy")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    options = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    options += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def test_mlflow_gets_parameters_metrics_and_results_and_a_resumed_run_goes_on(server, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    mlflow.set_tracking_uri(server[0])
    run = killed_and_resumed({**VALUES, "experiment_name": "flow", "trackers": ["tensorboard", "mlflow"]}, monkeypatch)
    client = mlflow.MlflowClient(server[0])
    (experiment,) = client.search_experiments(filter_string="name = 'postergenre'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "flow" and found.info.status == "FINISHED"
    assert found.data.params["batch_size"] == "8" and "num_workers" not in found.data.params
    metrics = client.get_metric_history(found.info.run_id, "macro_ap")
    assert sorted(metric.step for metric in metrics) == [3, 6, 9]
    assert np.allclose([metric.value for metric in metrics], [row["macro_ap"] for row in run.history])
    summary = read_json(run.folder / "summary.json", "test")
    assert found.data.metrics["best_test_macro_ap"] == pytest.approx(summary["test"]["macro_ap"])
    assert (run.folder / "tensorboard").is_dir()


def test_a_server_that_goes_away_does_not_end_the_training(server, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store, calls = loop.save_state, []

    def stop_server(run):
        calls.append(run.epoch)
        if len(calls) == 2:
            os.killpg(server[1].pid, signal.SIGKILL)
        store(run)

    monkeypatch.setattr(loop, "save_state", stop_server)
    run = train_run(make_params({**VALUES, "experiment_name": "gone", "trackers": ["mlflow"]}))
    assert run.epoch == 3 and run.is_finished and len(run.history) == 3
    lines = [line for line in capfd.readouterr().out.splitlines() if "goes on without it" in line]
    assert len(lines) == 1 and lines[0].startswith("mlflow failed")
    shutil.rmtree(run.folder)
    with pytest.raises(ConfigError, match="mlflow could not be started.*No epoch was trained"):
        train_run(make_params({**VALUES, "experiment_name": "unreachable", "trackers": ["mlflow"]}))
