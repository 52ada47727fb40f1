"""What of the dataset and the sampler needs processes of its own: workers that start anew, and a run that goes on."""

import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from postergenre.data.augmentation import build_augmentation
from postergenre.data.dataset import PosterDataset, make_loader, start_worker
from postergenre.data.images import PosterError
from postergenre.data.sampler import IterationSampler
from postergenre.demo.posters import draw_poster
from postergenre.demo.things import DEMO_GENRES

SIZE = (72, 48)
RECIPE = [
    "HorizontalFlip",
    "RandomResizedCrop",
    {"OneOf": ["ColorJitter", "GaussNoise"]},
    {"CoarseDropout": {"p": 0.5}},
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    "Six demo posters; one of them under a name that is no ASCII."
    folder = tmp_path_factory.mktemp("posters")
    names = [f"{number}.jpg" for number in range(5)] + ["Fünf Minuten – 五.jpg"]
    for number, name in enumerate(names):
        draw_poster([DEMO_GENRES[number]], np.random.default_rng(number)).save(folder / name)
    return [str(folder / name) for name in names]


def dataset_of(paths: list[str], seed: int = 0) -> PosterDataset:
    return PosterDataset(paths, np.eye(len(paths)), SIZE, augmentation=build_augmentation(RECIPE, SIZE), seed=seed)


def views(loader) -> torch.Tensor:
    return torch.cat([images for images, _, _ in loader])


def test_spawned_workers_give_the_same_bytes(paths):
    "Workers are forked on Linux and spawned on macOS and Windows: there all that they use must be pickled."
    dataset = dataset_of(paths)
    wanted = views(make_loader(dataset, batch_sampler=IterationSampler(6, 4, 3), num_workers=0))
    spawned = DataLoader(
        pickle.loads(pickle.dumps(dataset)),
        batch_sampler=IterationSampler(6, 4, 3),
        num_workers=2,
        worker_init_fn=start_worker,
        multiprocessing_context=multiprocessing.get_context("spawn"),
    )
    assert torch.equal(views(spawned), wanted)


def test_another_process_gives_the_same_bytes(paths):
    "The stream is a function of the seed and the draw: it knows neither the process nor Python's hash seed."
    code = f"""
import hashlib, numpy as np
from postergenre.data.augmentation import build_augmentation
from postergenre.data.dataset import PosterDataset
dataset = PosterDataset({paths!r}, np.eye({len(paths)}), {SIZE}, augmentation=build_augmentation({RECIPE!r}, {SIZE}))
print(hashlib.sha256(b"".join(dataset[i, 100 + i][0].numpy().tobytes() for i in (5, 0, 3))).hexdigest())
"""
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(outputs) == 1 and len(outputs.pop().strip()) == 64


def test_a_run_goes_on_with_the_same_pictures(paths):
    "An epoch, a saved draw, and an epoch by another sampler with other workers: as two epochs in one go."
    dataset, whole = dataset_of(paths), IterationSampler(6, 4, 3, seed=1)
    first, second = (views(make_loader(dataset, batch_sampler=whole, num_workers=0)) for _ in range(2))
    assert not torch.equal(first, second)
    begun = IterationSampler(6, 4, 3, seed=1)
    assert torch.equal(views(make_loader(dataset, batch_sampler=begun, num_workers=2)), first)
    resumed = IterationSampler(6, 4, 3, seed=1)
    resumed.load_state_dict(begun.state_dict())
    assert torch.equal(views(make_loader(dataset_of(paths), batch_sampler=resumed, num_workers=1)), second)


def test_accelerate_hands_the_batches_on_unchanged(paths):
    "`prepare` wraps loader and sampler; epochs, order and bytes stay."
    from accelerate import Accelerator

    dataset = dataset_of(paths)
    plain, prepared = IterationSampler(6, 4, 3), IterationSampler(6, 4, 3)
    loader = Accelerator(cpu=True).prepare(make_loader(dataset, batch_sampler=prepared, num_workers=1))
    for _ in range(2):
        assert torch.equal(views(loader), views(make_loader(dataset, batch_sampler=plain, num_workers=0)))
        assert prepared.state_dict() == plain.state_dict()


def test_a_worker_tells_which_picture_is_broken(paths, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    loader = make_loader(dataset_of([*paths, str(broken)]), batch_size=4, num_workers=2)
    with pytest.raises(PosterError, match="broken.jpg is empty or not a picture"):
        list(loader)


def test_paths_cost_their_own_length(tmp_path):
    "A worker shares one block with its parent; a list of strings it would copy."
    paths = [f"/data/posters/Images/tt{number:07}.jpg" for number in range(10_000)]
    dataset = PosterDataset(paths, np.zeros((len(paths), 20)), SIZE)
    assert dataset.paths.nbytes == sum(map(len, paths)) and dataset.paths.dtype.kind == "S"
    with pytest.raises(PosterError, match="tt0000007.jpg does not exist"):
        dataset[7]
