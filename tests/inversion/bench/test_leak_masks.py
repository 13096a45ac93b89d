"""Masks that come from a file: where it may be, in which forms, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.protected import Protected, load_mask, protection_of, protections_of
from attacks.inversion.bench.scene import Scene
from attacks.inversion.bench.sweep import Sweep
from secagg.errors import Code, ConfigError
from secagg.selection import Mask


@pytest.fixture(scope="module")
def sweep():
    return Sweep.planned(
        SweepConfig(
            victim=("lenet-sigmoid",),
            dataset="digits",
            significance=("random",),
            ratio=(0.5,),
            attacker=("gauss-newton",),
            samples=1,
        )
    )


@pytest.fixture(scope="module")
def scene(sweep):
    return Scene.load(sweep.setting, "lenet-sigmoid", None, updates=1)


def test_a_mask_from_a_file_hides_exactly_these_entries(sweep, scene, tmp_path):
    """In the form in which it travels, or as a .npy of bool; its ratio is its own."""
    size = scene.victim.size
    hidden = np.zeros(size, dtype=bool)
    hidden[::4] = True
    np.save(tmp_path / "mask.npy", hidden)
    (tmp_path / "mask.bin").write_bytes(Mask(hidden).to_bytes())
    for name in ("mask.npy", "mask.bin"):
        assert load_mask(tmp_path / name, size) == Mask(hidden)
        text = f"file={tmp_path / name}"
        (one,) = protections_of([text], [0.1, 0.9], [], sweep.setting, scene.victim.manifest)
        assert one.significance == text and one.ratio == pytest.approx(0.25, abs=1e-3)
        cell = replace(sweep.cells[0], significance=text, ratio=one.ratio)
        assert np.array_equal(scene.exposure(cell).hidden.numpy(), hidden)


@pytest.mark.parametrize("steps", ["", "+noise:0.1+clip:1"])
@pytest.mark.parametrize("name", ["a+b.npy", "c.NPY", "d+noise:0.1.npy", "~/e.npy"])
def test_a_mask_may_have_any_path(sweep, scene, tmp_path, monkeypatch, name, steps):
    """Plus signs, also in the place of a step, letters of either case, and the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / name.removeprefix("~/")
    with path.open("wb") as file:
        np.save(file, np.arange(scene.victim.size) % 4 == 0)
    given = name if name.startswith("~") else path
    (one,) = protections_of([f"file={given}{steps}"], [0.1], [], sweep.setting, scene.victim.manifest)
    assert one == Protected(significance=f"file={path}", ratio=0.2501, perturb=steps.removeprefix("+"))
    protection = protection_of(replace(sweep.cells[0], significance=one.significance), scene.victim.manifest)
    assert protection.mask.hidden_count == -(-scene.victim.size // 4)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04no archive", b"\x93NUMPY\x01\x00\x04\x00{'a("])
def test_a_mask_that_is_no_array_is_refused(tmp_path, content):
    (tmp_path / "mask.npy").write_bytes(content)
    with pytest.raises(ConfigError, match=r"is no \.npy file") as refused:
        load_mask(tmp_path / "mask.npy", 10)
    assert refused.value.code is Code.DATA_MALFORMED
