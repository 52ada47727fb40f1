"""Run folders: killed, damaged, full or read-only, a job leaves the old state or the new one and says what to do."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from killing import SMALL, kill_jobs

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.paths import WriteError
from postergenre.train.runs import read_run

# Killed


@pytest.mark.parametrize(
    "jobs", [["train"], ["overwrite", "lr_find"], ["swa", "ensemble", "export", "evaluate", "thresholds"]]
)
def test_a_kill_at_any_file_operation_leaves_the_old_state_or_the_new_one(tmp_path, environment, in_fork, jobs):
    done = in_fork(kill_jobs, tmp_path, jobs, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    moments = json.loads(done.stdout.splitlines()[-1])
    assert list(moments) == jobs and all(count > 3 for count in moments.values())


# Damaged files


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    "A small finished run with an average and an export."
    from postergenre.export.job import export_run
    from postergenre.train.averaging import average_run
    from postergenre.train.training import train_run

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(place))
        patch.delenv("ROOT_PATH", raising=False)
        train_run(make_params({**SMALL, "keep": "all"}))
        average_run(make_params(SMALL))
        export_run(make_params(SMALL))
    return place


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    "A copy of that run, to be damaged."
    monkeypatch.setenv("RUNS_PATH", str(tmp_path))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    monkeypatch.setattr("postergenre.train.training.describe_split", lambda *_: {})  # resamples, which takes long
    os.symlink(trained / "demo_posters_100", tmp_path / "demo_posters_100")
    return shutil.copytree(trained / "run", tmp_path / "run")


def job(name: str, **values):
    "Run a job by name on the run."
    from postergenre.export import job as export_job
    from postergenre.params import EvaluateParams
    from postergenre.report.comparison import results_table
    from postergenre.report.evaluation import score_run
    from postergenre.report.predictions import open_finished
    from postergenre.train import averaging, training

    if name == "evaluate":
        return open_finished("run").meta and score_run(EvaluateParams(experiment_name="run"))
    if name == "report":
        return results_table(["run"])
    jobs = {"train": training.train_run, "swa": averaging.average_run, "export": export_job.export_run}
    return jobs[name](make_params({**SMALL, "keep": "all", **values}))


DAMAGED = [
    ("run.json", ["train", "swa", "export", "evaluate", "report"], "train"),
    ("summary.json", ["train", "report"], "train"),
    ("params.yaml", ["train", "swa", "export", "evaluate"], "train"),
    ("state.pth", ["train"], "train"),
    ("model.best.pth", ["train"], "train"),
    ("model.storage.json", ["swa"], "train"),
    ("swa.json", ["swa", "export", "report"], "swa"),
    ("export.json", ["report"], "export"),
]


@pytest.mark.parametrize("content", ["", "{", None])
@pytest.mark.parametrize(("file", "jobs", "mended_by"), DAMAGED)
def test_a_damaged_file_is_named_and_overwrite_helps(run, file, jobs, mended_by, content, capsys):
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    for name in jobs:
        if content is None and file in ("run.json", "swa.json", "export.json", "state.pth"):
            continue  # nothing says that there should be one, or the others are enough
        with pytest.raises((ConfigError, FileNotFoundError)) as caught:
            job(name)
        said = str(caught.value)
        assert file in said and "run" in said and hasattr(caught.value, "_render_traceback_"), said
        assert "overwrite: true" in said or "again" in said, said
    job(mended_by, overwrite=True)
    job(jobs[0])


def test_parameters_that_were_cut_between_lines_or_changed_are_refused(run):
    written = (run / "params.yaml").read_text()
    middle = written.index("\nn_epochs:") + 1
    for text in (written[:middle], written.replace("\nn_epochs: ", "\nn_epochs: 1"), "null\n", "# nothing\n"):
        (run / "params.yaml").write_text(text)
        for name in ("train", "swa", "export", "evaluate"):
            with pytest.raises(ConfigError, match=r"runs/run/params\.yaml cannot be read: it is incomplete, or was"):
                job(name)
    (run / "params.yaml").write_text(f"# a remark\n{written}")
    job("train")


def test_a_finished_run_is_shown_and_evaluated_without_its_state(run, capsys):
    before = job("train")
    (run / "state.pth").unlink()
    shown, evaluated = job("train"), job("evaluate")
    assert "is finished; its results are shown" in capsys.readouterr().out and shown.epoch == before.epoch
    pd.testing.assert_frame_equal(pd.DataFrame(shown.history), pd.DataFrame(before.history))
    assert len(evaluated.shown.ids) and shown.start == before.start
    (run / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match=r"runs/run/metrics\.csv is missing.*overwrite: true"):
        job("train")


def test_missing_checkpoints_are_named_and_overwrite_helps(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="runs/run has no checkpoints to average.*overwrite: true"):
        job("swa", overwrite=True)
    job("train", overwrite=True)
    job("swa")


def test_an_export_of_a_checkpoint_that_has_changed_is_made_again(run):
    from postergenre.export.files import read_notes

    made_from = json.loads((run / "export.json").read_text())["made_from"]
    best = run / made_from["weights"]
    stored = sorted((run / "checkpoints").glob("epoch_*.pth"))
    shutil.copy(next(path for path in stored if path.read_bytes() != best.read_bytes()), best)
    assert job("export").summary["made_from"]["sha256"] != made_from["sha256"]
    notes = read_notes(run / "model.ts")["postergenre"]
    assert notes["weights_sha256"] == job("export").summary["made_from"]["sha256"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"path,stamp\n"])
def test_what_the_audit_remembers_of_pictures_is_made_again_if_damaged(run, content):
    from postergenre.data.experiment import load_run_data

    before = load_run_data(make_params(SMALL)).data_hash
    (remembered,) = run.parent.glob("pictures/*.npz")
    whole = remembered.stat().st_size
    remembered.write_bytes(content)
    assert load_run_data(make_params(SMALL)).data_hash == before and remembered.stat().st_size > whole / 2


def test_a_folder_in_the_place_of_a_file_is_told(run):
    from postergenre.data.experiment import load_run_data

    load_run_data(make_params(SMALL))
    (remembered,) = run.parent.glob("pictures/*.npz")
    remembered.unlink()
    (remembered / "other").mkdir(parents=True)
    with pytest.raises(WriteError, match=f"Cannot write {remembered.name} to .*: a folder has that name") as caught:
        load_run_data(make_params(SMALL))
    assert hasattr(caught.value, "_render_traceback_")


# Full disks, and folders that may not be written to


@pytest.fixture
def disk(run, monkeypatch):
    "A small file system with the demo posters, as the runs folder; a function that changes its options comes with it."
    place = run.parent / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system can be mounted by root alone")
    os.symlink(run.parent / "demo_posters_100", place / "demo_posters_100")
    monkeypatch.setenv("RUNS_PATH", str(place))
    yield place, lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_told_and_leaves_no_half_file(disk):
    place, change = disk
    with pytest.raises(WriteError, match=f"no space left in {place}/run") as caught:
        job("train")
    assert hasattr(caught.value, "_render_traceback_") and "unexpected pos" not in str(caught.value)
    assert not [path for path in place.rglob("*") if path.name.endswith(".tmp")]
    assert read_run(place / "run")[1] in ("begun", "resumable")
    change("size=20m")
    assert job("train").is_finished


def test_a_read_only_folder_is_told_and_left_as_it_is(disk, run):
    place, change = disk
    change("size=20m")
    shutil.copytree(run, place / "run")
    change("ro")
    for name in ("train", "swa", "export"):
        with pytest.raises(WriteError, match=f"Cannot write .* to {place}.*Read-only file system.*RUNS_PATH") as caught:
            job(name, overwrite=True)
        assert hasattr(caught.value, "_render_traceback_")
    change("rw")
    assert {path.name for path in (place / "run").iterdir()} == {path.name for path in run.iterdir()}
    with pytest.raises(WriteError, match="Cannot write "):  # a file where a folder should be
        (place / "a_file").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNS_PATH", str(place / "a_file"))
            job("train", root_path=str(place / "demo_posters_100"))


def test_a_lock_leaves_the_unfinished_shards_of_a_prediction_alone(tmp_path):
    from postergenre.train.runs import locked_run

    at_work = tmp_path / "run" / ".predictions.csv.shards" / ".00001-of-00001-000000.parquet.tmp"
    killed = [tmp_path / "run" / ".report.html.0.tmp", tmp_path / "run" / "checkpoints" / ".epoch_0001.pth.0.tmp"]
    for file in (at_work, *killed):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with locked_run(tmp_path / "run"):
        assert at_work.exists() and not any(file.exists() for file in killed)


def test_a_lock_that_is_taken_twice_is_free_after_both(tmp_path):
    from filelock import FileLock, Timeout

    from postergenre.train.runs import lock_file, lock_run, locked_run, release

    folder = tmp_path / "run"
    other = FileLock(lock_file(folder), is_singleton=False)
    own = lock_run(folder)
    with locked_run(folder), pytest.raises(Timeout):
        other.acquire(timeout=0)
    with pytest.raises(Timeout):  # still that of this process
        other.acquire(timeout=0)
    release(own)
    with locked_run(folder):
        pass
    with other.acquire(timeout=0):
        assert other.is_locked
