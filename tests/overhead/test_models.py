"""The models' shapes are those of the real ones: nobody compares figures of a model that doesn't exist."""

import numpy as np
import pytest

from secagg.adapters.pytorch import tensors_from
from secagg.errors import Code, ConfigError
from secagg.overhead.models import MODELS, manifest_of, values_of
from secagg.simulation.config import ModelName
from secagg.simulation.models import build_model

PUBLISHED = {
    "lenet": 61_706,
    "lenet-dlg": 88_648,
    "cnn": 225_034,
    # torchvision's 11,689,512 parameters and two running statistics for each of 4,800 channels
    "resnet18": 11_689_512 + 2 * 4_800,
    "bert-base": 109_482_240,
    "gpt2": 124_439_808,
}


def test_models_have_the_published_number_of_values():
    assert {name: values_of(name) for name in MODELS} == PUBLISHED
    assert {name: manifest_of(name).size for name in MODELS} == PUBLISHED


def test_models_come_smallest_first():
    assert sorted(MODELS, key=values_of) == list(MODELS)


def test_resnet_has_the_tensors_that_travel():
    """torchvision's state_dict has 122 entries, 20 of them integer counters, which clients keep."""
    names = [name for name, _ in MODELS["resnet18"]]
    assert len(names) == 122 - 20
    assert dict(MODELS["resnet18"])["layer4.0.downsample.0.weight"] == (512, 256, 1, 1)


def test_cnn_is_the_one_that_secagg_run_trains():
    tensors = tensors_from(build_model(ModelName.CNN, (1, 28, 28), 10, seed=0))
    assert [(name, np.shape(tensor)) for name, tensor in tensors.items()] == list(MODELS["cnn"])


def test_an_unknown_model_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"'resnet' is unknown; choose from lenet, .*gpt2") as caught:
        manifest_of("resnet")
    assert caught.value.code is Code.CONFIG_INVALID
