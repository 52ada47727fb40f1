"""What all four competitors start from: seeds, a device, and a timm backbone with the given weights."""

import random
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from bench.competitors.work import Work, WorkError


def set_up(work: Work) -> torch.device:
    "Set seeds and threads and return the device; raise `WorkError` if there is none."
    if work.device == "cuda" and not torch.cuda.is_available():
        raise WorkError("device is 'cuda', but torch finds no GPU here.")
    random.seed(work.seed)
    np.random.seed(work.seed)
    torch.manual_seed(work.seed)
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    return torch.device(work.device)


def backbone_weights(work: Work) -> dict[str, Any]:
    "Return the state dict of `backbone.pth`; raise `WorkError` if it is missing."
    try:
        return torch.load(work.folder / "backbone.pth", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WorkError(f"{work.folder / 'backbone.pth'} does not exist.") from None


def load_backbone(
    work: Work,
    model: nn.Module,  # a timm network, with or without its classifier
) -> None:
    "Load the weights of `backbone.pth`, which has no classifier; raise `WorkError` if they do not fit."
    state = backbone_weights(work)
    wanted = model.state_dict()
    classifier = f"{model.default_cfg['classifier']}."
    wrong = [name for name in wanted if name not in state and not name.startswith(classifier)]
    wrong += [name for name in state if name not in wanted or state[name].shape != wanted[name].shape]
    if wrong:
        raise WorkError(f"backbone.pth does not fit {work.model_name}: {', '.join(wrong[:5])}.")
    model.load_state_dict(state, strict=False)


def create_model(work: Work) -> tuple[nn.Module, nn.Module]:
    "Return the timm network with the given weights, and its new classifier; raise `WorkError` if they do not fit."
    if not timm.is_model(work.model_name):
        raise WorkError(f"model_name is {work.model_name!r}, which timm {timm.__version__} does not know.")
    model = timm.create_model(work.model_name, pretrained=False)
    load_backbone(work, model)
    # `create_model(num_classes=...)` would start an EfficientNet's classifier with weights some ten times as large
    model.reset_classifier(work.n_genres)
    return model, model.get_classifier()


def changed_weights(
    work: Work,
    backbone: nn.Module,  # a trained network under timm's names
) -> list[str]:
    "Return the names of the tensors that differ from `backbone.pth`."
    before, after = backbone_weights(work), backbone.state_dict()
    return [name for name in before if name in after and not torch.equal(before[name], after[name].cpu())]
