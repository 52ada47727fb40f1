"""The head stage on stored features: what it gives, and what it does when something is wrong with them."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL

from postergenre.config import make_params
from postergenre.data import cache
from postergenre.data.dataset import load_poster
from postergenre.data.images import PosterError
from postergenre.demo.posters import draw_demo_posters
from postergenre.train.finder import find_lr
from postergenre.train.loop import fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare
from postergenre.train.training import train_run

HEAD = {
    **SMALL,
    "model_name": "test_efficientnet",
    "pretrained": False,
    "callbacks": [{"freeze": {"parts": ["backbone"]}}],
    "optimizer": "AdamW",
    "optimizer_kwargs": {"lr": 0.01},
}


@pytest.fixture
def head(tmp_path, monkeypatch):
    "Parameters of a small head stage on posters of its own, in a runs folder of its own."
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "posters", 200)
    return lambda **values: make_params({**HEAD, "experiment_name": "head", "root_path": str(root), **values})


def stored_of(params) -> object:
    "The features of a run that is prepared and given up again."
    run = prepare(params)
    release(run.lock)
    return run.feature_cache


def stored_without(bad: str, params, monkeypatch) -> object:
    "The same, while one picture cannot be read."
    load = load_poster

    def failing(path, *arguments):
        if path == bad:
            raise PosterError(f"{path} cannot be read just now.")
        return load(path, *arguments)

    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(cache, "load_poster", failing)
        return stored_of(params)


def end_of(params) -> np.ndarray:
    "The head's weights after training."
    run = prepare(params)
    fit(run)
    release(run.lock)
    return run.model.head.linear.weight.detach().numpy()


def test_features_and_pictures_make_the_same_files_and_about_the_same_head(head):
    length = {"n_epochs": 6, "num_iteration_on_epoch": 12, "feature_views": 4}
    runs = {name: train_run(head(**{**length, "experiment_name": name, **values}))
            for name, values in (("features", {}), ("images", {"feature_views": 0}))}  # fmt: skip
    assert runs["features"].feature_cache and runs["images"].feature_cache is None
    files = {
        name: sorted(
            path.relative_to(run.folder).parts[0] if "tensorboard" in path.parts else str(path.relative_to(run.folder))
            for path in run.folder.rglob("*")
            if path.is_file() and "checkpoints" not in path.parts  # the best epochs are not the same ones
        )
        for name, run in runs.items()
    }
    assert files["features"] == files["images"]
    best = {name: pd.DataFrame(run.history)["macro_ap"].max() for name, run in runs.items()}
    assert best["features"] > best["images"] - 0.05, best  # 40 validation posters; the real ones are held to 0.005


def test_the_range_test_for_the_head_takes_the_same_features(head):
    found = stored_of(head())
    values = {"experiment_name": "lrf", "lrf_iterations": 12, "optimizer_kwargs": {"lr": 1e-5}}
    find_lr(head(**values))
    entries = list((Path(os.environ["RUNS_PATH"]) / "cache").glob("features_train_*"))
    assert [entry.name for entry in entries if entry.is_dir()] == [found.train.rows.folder.name]


def test_damaged_features_are_told_and_computed_again(head, capsys):
    wanted = end_of(head())
    folder = stored_of(head()).train.rows.folder
    content = bytearray((folder / "rows.npy").read_bytes())
    content[-3] ^= 1
    (folder / "rows.npy").write_bytes(content)
    capsys.readouterr()
    assert np.array_equal(end_of(head(overwrite=True)), wanted)
    assert "is damaged; it is made again" in capsys.readouterr().out


def test_features_of_a_picture_that_could_not_be_read_serve_one_run(head, monkeypatch):
    sound = prepare(head(experiment_name="sound"))
    release(sound.lock)
    bad = sound.data.train["path"].iloc[5]
    wanted = end_of(head(experiment_name="sound"))
    shutil.rmtree(Path(os.environ["RUNS_PATH"]) / "cache")

    grey = stored_without(bad, head(), monkeypatch)
    again = stored_of(head())
    assert not grey.train.rows.reusable and again.train.rows.reusable
    assert grey.train.rows.folder == again.train.rows.folder  # the files look alike, so only the mark tells them apart
    assert np.array_equal(end_of(head(experiment_name="later")), wanted)


def test_features_serve_one_run_where_a_poster_was_lost_while_they_were_computed(head, monkeypatch):
    run = prepare(head(experiment_name="decoded", feature_views=0))
    release(run.lock)
    rows, bad = run.data.posters.rows, run.data.train["path"].iloc[5]
    place = rows.start + run.data.posters.row_of(bad) * rows.row_bytes
    with (rows.folder / "rows.npy").open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))

    grey = stored_without(bad, head(), monkeypatch)
    assert not grey.train.rows.reusable
    assert stored_of(head()).train.rows.reusable


def test_features_of_posters_that_are_not_kept_serve_one_run(head, capsys):
    small = {"cache_limit": 0.0012}  # GB: less than the posters take, more than their features
    first = stored_of(head(**small))
    assert "posters" in capsys.readouterr().out
    assert first and not first.train.rows.reusable
    assert not [path for path in first.train.rows.folder.parent.glob("posters_*") if path.is_dir()]


def test_no_room_for_features_means_pictures(head, monkeypatch, capsys):
    pwrite, written = os.pwrite, []

    def filling_up(file, content, place):
        written.append(len(content))
        if len(content) < 64 * 48 * 3 and len(written) > 250:  # rows of features; the posters are decoded by then
            raise OSError(28, "No space left on device")
        return pwrite(file, content, place)

    monkeypatch.setattr(os, "pwrite", filling_up)
    run = prepare(head())
    assert run.feature_cache is None and "No space left on device" in capsys.readouterr().out
    left = [path.name for path in (run.folder.parent / "cache").iterdir() if path.is_dir()]
    assert len(left) == 1 and left[0].startswith("posters_")
    fit(run)
    release(run.lock)
    assert run.epoch == HEAD["n_epochs"]
