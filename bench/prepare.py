"""The work of all contenders, written once as files: which posters, in which split, the weights, and the settings."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.competitors.work import Work, read_work
from bench.params import BenchParams
from postergenre.config import data_root
from postergenre.data.split import Data, load_data, targets_of
from postergenre.demo.posters import draw_demo_posters
from postergenre.model.classifier import create_model
from postergenre.paths import runs_path, write_json

AUGMENTATION = {  # the recipe `light`, in terms for which every framework has an equivalent
    "flip": 0.5,
    "scale": [0.7, 1.0],
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.1,
    "hue": 0.02,
    "jitter_p": 0.5,
}


def bench_data(
    params: BenchParams,
    folder: Path,  # of the work
) -> Data:
    "Return all posters, or fewer training posters, in the split of a run with default parameters."
    n_demo = 160 if params.n_posters and params.n_posters <= 100 else 1000
    root = data_root(params) or draw_demo_posters(runs_path() / f"demo_posters_{n_demo}", n_demo)
    data = load_data(root, min_positives=params.min_positives, cache=folder / "pictures.npz")
    if params.n_posters and params.n_posters < len(data.train):
        chosen = np.random.default_rng(params.seed).permutation(len(data.train))[: params.n_posters]
        data = dataclasses.replace(data, train=data.train.iloc[np.sort(chosen)].reset_index(drop=True))
    place = folder / "data"  # a data folder with the same split, for this project
    data.save(place)
    if not (place / "Images").exists():
        (place / "Images").symlink_to(Path(data.train["path"].iloc[0]).parent, target_is_directory=True)
    return load_data(place, min_positives=params.min_positives, cache=folder / "pictures.npz")


def prepare_work(
    params: BenchParams,
    folder: Path,  # to write into
) -> Work:
    "Write the work if it is not there yet; raise what `load_data` raises."
    if (folder / "work.json").is_file():
        return read_work(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = bench_data(params, folder)
    torch.manual_seed(params.seed)
    model = create_model(params.model_name, len(data.genres), params.img_size, params.pretrained)
    torch.save(model.backbone.state_dict(), folder / "backbone.pth")
    for part in ("train", "valid"):
        frame = getattr(data, part)
        write_json(folder / f"{part}.json", frame["path"].tolist())
        np.save(folder / f"{part}_targets.npy", targets_of(frame, data.genres))
    everything = pd.concat([data.train, data.valid, data.test])["path"].tolist()
    write_json(folder / "folder.json", everything)
    given = ("model_name", "img_size", "batch_size", "n_epochs", "max_lr_head", "max_lr_full", "weight_decay", "seed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_json(
        folder / "work.json",
        {
            **params.model_dump(include=set(given)),
            "num_workers": None,
            "threads": None,
            "mean": model.mean.flatten().tolist(),
            "std": model.std.flatten().tolist(),
            "n_genres": len(data.genres),
            "genres": data.genres,
            "pretrained": params.pretrained,
            "min_positives": params.min_positives,
            "augmentation": AUGMENTATION,
            "device": device,
            "amp": "bf16" if device == "cuda" else "no",
        },
    )
    return read_work(folder)
