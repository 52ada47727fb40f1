"""What of the cache needs processes of its own, or a disk that is full."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, SMALL
from PIL import Image

from postergenre.config import make_params
from postergenre.data import cache
from postergenre.data.cache import GREY, ArrayStore, cached_posters, write_array
from postergenre.data.dataset import load_poster
from postergenre.demo.posters import draw_demo_posters
from postergenre.train.loop import fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = draw_demo_posters(tmp_path_factory.mktemp("posters") / "posters", 120)
    return sorted(str(path) for path in (root / "Images").iterdir())


BUILD = """
import sys, time
from pathlib import Path
from postergenre.data import cache
folder, seconds, *paths = sys.argv[1:]
load = cache.load_with_retry
def slow(*arguments, **others):
    time.sleep(float(seconds))
    return load(*arguments, **others)
cache.load_with_retry = slow
print("ready", flush=True)
posters = cache.cached_posters(Path(folder), paths, (64, 48), threads=1)
print(sum(int(posters.load(path).sum()) for path in paths))
"""


def build(folder, paths, seconds: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILD, str(folder), str(seconds), *paths]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_nothing_that_is_taken_for_one(tmp_path, pictures):
    process = build(tmp_path, pictures, seconds=0.05)
    while not list(tmp_path.glob(".posters_*.tmp")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("posters_*"))
    posters = cached_posters(tmp_path, pictures, (64, 48))
    assert np.array_equal(posters.load(pictures[7]), load_poster(pictures[7], (64, 48)))
    assert not list(tmp_path.glob(".posters_*.tmp"))  # what the killed one left is gone


def test_two_builders_make_one_entry(tmp_path, pictures):
    pair = [build(tmp_path, pictures, seconds=0.01) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    said = [output.splitlines() for output, _ in outputs]
    assert said[0][-1] == said[1][-1]  # both read the same
    assert sum("posters decoded" in line for lines in said for line in lines) == 1  # and one of them made it
    assert len(list(tmp_path.glob("posters_*"))) == 1


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path, pictures, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("posix_fallocate", "pwrite"):  # before the first row, and in the middle
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            assert cached_posters(tmp_path, pictures, (64, 48)) is None
        assert "No space left on device" in capsys.readouterr().out
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_picture_that_breaks_while_the_cache_is_built_does_not_stop_it(tmp_path, pictures):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"being replaced")
    with pytest.warns(UserWarning, match="replaced by grey"):
        posters = cached_posters(tmp_path / "cache", [*pictures[:3], str(broken)], (64, 48))
    assert (posters.load(str(broken)) == GREY).all()
    assert not posters.rows.reusable  # grey is for this run alone
    shutil.copyfile(pictures[5], broken)
    os.utime(broken, ns=(0, 0))
    again = cached_posters(tmp_path / "cache", [*pictures[:3], str(broken)], (64, 48))
    assert again.rows.reusable and np.array_equal(again.load(str(broken)), load_poster(pictures[5], (64, 48)))


def test_a_picture_that_is_replaced_while_the_cache_is_built_serves_one_run(tmp_path, pictures, monkeypatch, capsys):
    mine = [shutil.copy(path, tmp_path) for path in pictures[:6]]
    load = load_poster

    def replacing(path, *arguments):
        image = load(path, *arguments)
        if path == mine[2]:
            os.replace(shutil.copy(mine[4], tmp_path / "new"), mine[2])
        return image

    with monkeypatch.context() as patch:
        patch.setattr(cache, "load_poster", replacing)
        first = cached_posters(tmp_path / "cache", mine, (64, 48), threads=1)
    assert "is used by this run only" in capsys.readouterr().out and not first.rows.reusable
    second = cached_posters(tmp_path / "cache", mine, (64, 48))
    assert second.rows.reusable and np.array_equal(second.load(mine[2]), second.load(mine[4]))


def test_a_picture_that_is_just_grey_is_no_fault(tmp_path):
    Image.new("RGB", (48, 64), (GREY,) * 3).save(tmp_path / "grey.png")
    assert cached_posters(tmp_path / "cache", [str(tmp_path / "grey.png")], (64, 48)).rows.reusable


def test_a_cache_in_a_folder_of_other_things_leaves_them_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "posters", 200)
    values = {**SMALL, "root_path": str(root), "cache_path": str(root), "cache_limit": 0.003}
    run = prepare(make_params({**values, "experiment_name": "beside"}))
    release(run.lock)
    assert run.data.posters.rows.folder.parent == root / "postergenre_cache"
    assert len(list((root / "Images").iterdir())) == 200


@pytest.mark.parametrize("kept", [True, False])
def test_a_picture_that_breaks_while_a_run_reads_it_does_not_stop_the_run(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "posters", 200)
    run = prepare(make_params({**SMALL, "experiment_name": "broken", "root_path": str(root), "cache": kept}))
    for path in run.data.train["path"].iloc[:2]:
        Path(path).write_bytes(b"half a file")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(run)
    release(run.lock)
    assert run.epoch == SMALL["n_epochs"]
    assert any("is replaced by grey" in str(warning.message) for warning in said) != kept  # the cache has them all


def test_names_that_are_no_utf8_are_found(tmp_path, pictures):
    names = [os.fsdecode(name) for name in (b"caf\xe9.jpg", "caf\u00e9.jpg".encode(), b"\x80.jpg", b"z.jpg")]
    for name, source in zip(names, pictures, strict=False):
        os.link(source, tmp_path / name)
    paths = [str(tmp_path / name) for name in names]
    posters = cached_posters(tmp_path / "cache", paths, (64, 48))
    for path, source in zip(paths, pictures, strict=False):
        assert np.array_equal(posters.load(path), load_poster(source, (64, 48)))


def test_ten_times_the_posters_stay_on_disk(tmp_path):
    "Rows of 288 x 192 pixels, all read twice: what a process holds does not grow with them."
    grown = []
    for n in (150, 1500):
        with write_array(tmp_path / str(n), (n, 288, 192, 3), np.uint8) as writer:
            for row in range(n):
                writer[row] = np.full((288, 192, 3), row % 256, dtype=np.uint8)
        rows = ArrayStore(tmp_path / str(n))
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            for row in range(n):
                assert rows[row][0, 0, 0] == row % 256
        grown.append((psutil.Process().memory_info().rss - before) / 2**20)
    assert grown[1] - grown[0] < 100, grown
    assert grown[1] < 100, grown
