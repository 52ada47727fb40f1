"""A prediction job with a quick stand-in for the model, run in forked processes that may be killed at any moment.

python tests/predicting.py everywhere FOLDER     kills jobs at each of their file operations, and runs them again
python tests/predicting.py memory FOLDER N M     peak memory of a job on N images, and on M
python tests/predicting.py slowly FOLDER VALUES  a job to be killed from outside
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image

from postergenre.errors import ConfigError
from postergenre.params import PredictParams
from postergenre.predict import job as predict_job
from postergenre.predict import scorer
from postergenre.predict.job import FolderPredictions, predict_folder
from postergenre.predict.scorer import Predictor, score_batch

GENRES = ["Drama", "War", "News"]
MODEL = "stand-in.pth"
SCORE_BATCH = score_batch
BEFORE = b"what was there before\n"


class MeanColours:
    "Scores an image by the mean of each of its colours."

    threads = 2

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3)) / 255

    def compile(self) -> None:
        "Nothing to prepare for many images."


def stand_in(*_, **__) -> Predictor:
    "In place of `load_predictor`."
    return Predictor(MeanColours(), GENRES, np.full(3, 0.5), (24, 16), False, torch.device("cpu"))


def slowly(*given):
    "In place of `score_batch`."
    time.sleep(0.05)
    return SCORE_BATCH(*given)


def draw(folder: Path, n: int) -> Path:
    "Draw small images in random colours."
    folder.mkdir(parents=True)
    for number, colour in enumerate(np.random.default_rng(0).integers(0, 256, (n, 3))):
        Image.new("RGB", (32, 48), tuple(map(int, colour))).save(folder / f"{number:04d}.png")
    return folder


def job(folder: Path, **values) -> FolderPredictions:
    "Predict with the stand-in; the model file, images and output are in `folder`."
    model = folder / MODEL
    if not model.exists():
        model.write_bytes(b"weights")
    given = {"model": str(model), "images": str(folder / "images"), "output": str(folder / "predictions.csv")}
    with patch.object(predict_job, "load_predictor", stand_in):
        return predict_folder(PredictParams(**{**given, **values}))


def in_child(function) -> int:
    "Run a function in a forked process; returns its exit status, 3 if it refused to replace what is there."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except ConfigError as error:
            status = 3 if "is there already" in str(error) else 1
            if status == 1:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(moment: int, folder: Path, values: dict) -> None:
    "Run a job that is killed just before its file operation of this number."
    left = [moment]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            if str(folder) in os.fsdecode(arguments[0]):
                count()

    def counted(function):
        def call(*given, **options):
            count()
            return function(*given, **options)

        return call

    sys.addaudithook(watch)  # sees files that are opened, renamed and removed, but not what is written into them
    for place, name in ((os, "fsync"), (pq, "write_table"), (pd.DataFrame, "to_csv")):
        setattr(place, name, counted(getattr(place, name)))
    job(folder, **values)


def table_in(output: Path) -> bytes:
    "Return the bytes of a table, those of all of its shards if it is a folder."
    files = sorted(output.glob("[!_.]*")) if output.is_dir() else [output]
    return b"".join(file.name.encode() + file.read_bytes() for file in files)


def everywhere(folder: Path) -> None:
    "Kill jobs at each file operation, run them again, and print how many operations there are."
    draw(folder / "images", 6)
    moments = {}
    for name, overwrite in (("a.csv", False), ("a.parquet", False), ("b.csv", True), ("b.parquet", True)):
        output, values = folder / name, {"shard_size": 4, "overwrite": overwrite, "output": str(folder / name)}
        assert in_child(partial(job, folder, **values)) == 0
        wanted, kills = table_in(output), 0
        while True:
            shutil.rmtree(output) if output.is_dir() else output.unlink()
            if overwrite and name.endswith(".csv"):
                output.write_bytes(BEFORE)
            elif overwrite:  # shards of another model
                (folder / MODEL).write_bytes(b"others")
                assert in_child(partial(job, folder, **values)) == 0
                (folder / MODEL).write_bytes(b"weights")
            status = in_child(partial(killed_at, kills, folder, values))
            if status == 0:
                break
            assert status == -signal.SIGKILL, status
            if name.endswith(".csv") and output.exists():
                assert table_in(output) in (wanted, name.encode() + BEFORE), (name, kills)
            status = in_child(partial(job, folder, **values))
            assert status == 0 or (status == 3 and not overwrite), (name, kills, status)
            assert table_in(output) == wanted, (name, kills)
            kills += 1
        left = [path.name for path in folder.iterdir() if path.name.startswith(".") and name in path.name]
        assert table_in(output) == wanted and not left, (name, left)
        moments[name] = kills
    print(json.dumps(moments))


def peak() -> int:
    "Return the largest resident memory of this process so far, in kB."
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def memory(folder: Path, counts: tuple[int, ...]) -> list[int]:
    "Return the peak memory of a job for each number of images, links to 200 files, in kB."
    files = sorted(draw(folder / "files", 200).iterdir())
    peaks = []
    for n in counts:
        images = folder / f"images{n}"
        images.mkdir()
        for number in range(n):
            (images / f"image_{number:06d}.png").symlink_to(files[number % len(files)])
        note = folder / f"peak{n}"

        def measure(images=images, note=note) -> None:
            job(folder, images=str(images), output=str(note) + ".csv", shard_size=1000)
            note.write_text(str(peak()))

        assert in_child(measure) == 0
        peaks.append(int(note.read_text()))
    return peaks


if __name__ == "__main__":
    task, place = sys.argv[1], Path(sys.argv[2])
    if task == "everywhere":
        everywhere(place)
    elif task == "memory":
        print(json.dumps(memory(place, tuple(map(int, sys.argv[3:])))))
    elif task == "slowly":
        with patch.object(scorer, "score_batch", slowly):
            job(place, **json.loads(sys.argv[3]))
