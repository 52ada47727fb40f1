"""The parameters of the benchmark."""

from typing import Literal

from pydantic import field_validator

from postergenre.params import LARGEST_SEED, RUN_NAME, Schema, free_name, parameter
from postergenre.values import Flag, Number


class BenchParams(Schema):
    "Parameters of the job `bench`."

    experiment_name: str = parameter("smoke_bench", "folder of the results below runs/", pattern=RUN_NAME)
    root_path: str | None = parameter(
        None, "data folder; none: the environment variable ROOT_PATH, or demo posters", min_length=1
    )
    n_posters: int | None = parameter(64, "number of training posters; none: all", "posters", ge=16)
    img_size: list[int] = parameter(
        [64, 48], "height and width of the model's input", "pixels", min_length=2, max_length=2
    )
    batch_size: int = parameter(16, "size of a batch", "posters", ge=1)
    n_epochs: int = parameter(2, "length of the head stage", "epochs", ge=1)
    max_lr_head: Number = parameter(1e-3, "peak rate of the head stage", "learning rate", gt=0)
    max_lr_full: Number = parameter(3e-4, "peak rate of fine-tuning", "learning rate", gt=0)
    weight_decay: Number = parameter(0.05, "weight decay of AdamW", ge=0)
    model_name: str = parameter("test_efficientnet", "name of any timm model")
    pretrained: Flag = parameter(False, "start from ImageNet weights")
    min_positives: int = parameter(2, "positives that a genre needs to count in the macro AP", "posters", ge=1)
    seed: int = parameter(42, "random seed of everything", ge=0, le=LARGEST_SEED)
    repeats: int = parameter(1, "repetitions of fine-tuning, prediction and decoding", ge=1)
    head_repeats: int = parameter(1, "repetitions of the head stage, which takes by far the longest", ge=1)
    jobs: list[Literal["head", "finetune", "predict"]] = parameter(["head", "finetune", "predict"], "jobs to measure")
    contenders: list[Literal["postergenre", "compiled", "fastai", "torch", "timm", "lightning"]] = parameter(
        ["postergenre", "torch"], "programs to measure; compiled: fine-tuning with `compile`"
    )
    peers_python: str | None = parameter(
        None, "Python of the environment with bench/peers.txt, for fastai and lightning", min_length=1
    )
    readme: str | None = parameter(None, "Markdown file whose table of results is replaced", min_length=1)
    overwrite: Flag = parameter(False, "start again if there are results of other parameters, code or machine")

    _free_name = field_validator("experiment_name")(free_name)
