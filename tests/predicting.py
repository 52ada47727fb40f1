"""A prediction job with a quick stand-in for the model, run in forked processes that may be killed at any moment.

python tests/predicting.py everywhere FOLDER     kills jobs at each of their file operations, and runs them again
python tests/predicting.py memory FOLDER N M     peak memory of a job on N images, and on M
python tests/predicting.py slowly FOLDER VALUES  a job to be killed from outside
"""

import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from moments import in_child, moments_of, put_back
from PIL import Image

from postergenre.params import PredictParams
from postergenre.predict import job as predict_job
from postergenre.predict import scorer
from postergenre.predict.job import FolderPredictions, predict_folder
from postergenre.predict.scorer import Predictor, score_batch

GENRES = ["Drama", "War", "News"]
MODEL = "stand-in.pth"
SCORE_BATCH = score_batch
BEFORE = b"what was there before\n"
WRITERS = ((pq, "write_table"), (pd.DataFrame, "to_csv"))


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


def table_in(output: Path) -> bytes:
    "Return the bytes of a table, those of all of its shards if it is a folder."
    files = sorted(output.glob("[!_.]*")) if output.is_dir() else [output]
    return b"".join(file.name.encode() + file.read_bytes() for file in files)


def everywhere(folder: Path) -> None:
    "Kill jobs at each file operation, run them again, and print at how many moments each could be killed."
    draw(folder / "images", 6)
    counts = {}
    for name, overwrite in (("a.csv", False), ("a.parquet", False), ("b.csv", True), ("b.parquet", True)):
        output, values = folder / name, {"shard_size": 4, "overwrite": overwrite, "output": str(folder / name)}
        again = partial(job, folder, **values)
        assert in_child(again) == 0
        wanted = table_in(output)

        def before(output=output, overwrite=overwrite, again=again) -> None:
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
            if overwrite and output.suffix == ".csv":
                output.write_bytes(BEFORE)
            elif overwrite:  # shards of another model
                (folder / MODEL).write_bytes(b"others")
                assert in_child(again) == 0
                (folder / MODEL).write_bytes(b"weights")

        with moments_of(folder, before, again, WRITERS) as states:
            for number, state in enumerate(states):
                put_back(state, folder)
                if name.endswith(".csv") and output.exists():
                    assert table_in(output) in (wanted, name.encode() + BEFORE), (name, number)
                status = in_child(again)
                assert status == 0 or (status == 3 and not overwrite), (name, number, status)
                assert table_in(output) == wanted, (name, number)
                left = [path.name for path in folder.iterdir() if path.name.startswith(".") and name in path.name]
                assert not left or status == 3, (name, number, left)
            counts[name] = len(states)
    print(json.dumps(counts))


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
