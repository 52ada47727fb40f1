"""Three networks of `any_network.py` through every stage: one resampled, one refused at another size, one in 3-d."""

import json

import pytest
from any_network import write_what_is_said

STAGES = ("range test", "head", "full", "swa", "export", "predict", "openvino")
MAPS = {
    "test_vit": "ok 4 x 3",
    "lambda_resnet26t": "ok 2 x 2",
    "levit_128s": "ok 2 x 2",
}


@pytest.mark.parametrize("network", ["test_vit", "levit_128s", "lambda_resnet26t"])
def test_a_network_goes_through_every_stage(network, tmp_path, environment, in_fork):
    done = in_fork(write_what_is_said, network, tmp_path, environment={**environment, "RUNS_PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert all(said[stage].startswith("ok") for stage in STAGES), said
    if network == "levit_128s":
        assert said["larger"].startswith("refused") and "Give img_size [64, 48]" in said["larger"], said
    else:
        assert said["larger"].startswith("ok 1 resampled" if network == "test_vit" else "ok ("), said
    assert said["map"].startswith(MAPS[network]), said
