"""Three networks of `any_network.py` through every stage: one resampled, one refused at another size, one in 3-d."""

import pytest
from any_network import in_own_process

STAGES = ("range test", "head", "full", "swa", "export", "predict", "openvino")
MAPS = {
    "test_vit": "ok 4 x 3",
    "lambda_resnet26t": "ok 2 x 2",
    "levit_128s": "ok 2 x 2",
}


@pytest.mark.parametrize("network", ["test_vit", "levit_128s", "lambda_resnet26t"])
def test_a_network_goes_through_every_stage(network, tmp_path):
    said = in_own_process(network, tmp_path / "runs")
    assert all(said[stage].startswith("ok") for stage in STAGES), said
    if network == "levit_128s":
        assert said["larger"].startswith("refused") and "Give img_size [64, 48]" in said["larger"], said
    else:
        assert said["larger"].startswith("ok 1 resampled" if network == "test_vit" else "ok ("), said
    assert said["map"].startswith(MAPS[network]), said
