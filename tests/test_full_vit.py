"""`params/full_vit.yaml`: the tower exists, keeps its size and normalization, and is trained with layer decay."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from postergenre.config import make_params, read_params_file
from postergenre.model import backbone
from postergenre.model.classifier import create_model
from postergenre.paths import project_root

FULL_VIT = read_params_file(project_root() / "params" / "full_vit.yaml")
TOWERS = {
    "vit_base_patch16_siglip_224.v2_webli": (224, 0.5),
    "vit_base_patch16_clip_224.openai": (224, 0.48145466),
    "vit_base_patch16_dinov3.lvd1689m": (256, 0.485),
}
MEAN_MAPS = "Mean Grad-CAM over the posters of each genre that score highest"
SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "drop_path_rate": 0.1}


@pytest.mark.parametrize("name", TOWERS)
def test_the_towers_have_weights_in_timm_and_keep_their_normalization(name):
    size, mean = TOWERS[name]
    assert name in timm.list_pretrained("vit_*")
    assert f"{name}" in (project_root() / "params" / "full_vit.yaml").read_text(encoding="utf-8")
    config = timm.get_pretrained_cfg(name)
    assert config.input_size == (3, size, size)
    model = create_model(name, 2, (64, 48), pretrained=False, model_kwargs=SMALL)
    assert torch.allclose(model.mean.flatten(), torch.tensor(config.mean)) and config.mean[0] == mean
    assert torch.allclose(model.std.flatten(), torch.tensor(config.std))


def test_the_file_names_the_size_of_its_tower():
    assert FULL_VIT.img_size == list(timm.get_pretrained_cfg(FULL_VIT.model_name).input_size[1:])


def test_it_trains_with_layer_decay_and_random_weights(tmp_path, monkeypatch):
    from postergenre.params import EvaluateParams
    from postergenre.report.evaluation import evaluate_run
    from postergenre.train.loop import fit
    from postergenre.train.setup import prepare
    from postergenre.train.training import finalize

    monkeypatch.setenv("RUNS_PATH", str(tmp_path))
    small = {"pretrained": False, "img_size": [64, 48], "batch_size": 16, "num_iteration_on_epoch": 2, "n_epochs": 2}
    small |= {
        "n_demo_posters": 200,
        "num_workers": 0,
        "min_positives": 3,
        "split_fractions": [0.6, 0.2, 0.2],
        "model_kwargs": {**SMALL, "drop_rate": 0.2},
    }
    run = prepare(make_params({**FULL_VIT.model_dump(exclude_unset=True), **small}))
    before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    scales = {group["name"].partition(",")[0]: group["lr_scale"] for group in run.optimizer.param_groups}
    rates = [scales[f"backbone layer {layer}"] for layer in range(len(scales) - 1)]
    assert scales["head"] == 1 and len(rates) == SMALL["depth"] + 2  # patch embedding, blocks, norm and pooling
    assert rates == pytest.approx([0.7 ** (len(rates) - layer) for layer in range(len(rates))])
    fit(run)
    assert all(not torch.equal(before[name], value) for name, value in run.model.named_parameters() if value.ndim > 1)
    finalize(run)
    assert (tmp_path / "full_vit" / "summary.json").is_file()

    evaluated = evaluate_run(make_params({"experiment_name": "full_vit", "n_cam": 2}, EvaluateParams))
    assert {"Grad-CAM: where the network saw the genre", MEAN_MAPS} <= set(evaluated.pictures)
    assert not any("Grad-CAM needs" in note for note in evaluated.notes)


def test_position_embeddings_are_resampled_for_a_poster(tmp_path, monkeypatch):
    trained = timm.create_model("test_vit", num_classes=1000)  # 160 x 160 pixels, 10 x 10 patches, and a class token
    rows = torch.arange(10.0).repeat_interleave(10)
    columns = torch.arange(10.0).repeat(10)
    with torch.no_grad():
        trained.pos_embed[0, 1:, 0], trained.pos_embed[0, 1:, 1] = rows, columns
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(backbone, "_cached_weights", lambda *given: tmp_path / "model.safetensors")
    model = create_model("test_vit.r160_in1k", 2, (288, 192))
    grid = model.backbone.pos_embed[0, 1:].detach().unflatten(0, (18, 12))
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all() and (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
    assert torch.allclose(grid[:, :, 0], grid[:, :1, 0].expand(18, 12), atol=1e-4)  # nothing is transposed
