"""Real federations on disk for the custody tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import defenses
from secagg.config import FederationConfig
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import FederationFolder, init_federation
from secagg.model_file import save_model

INITIAL_MODEL = {
    "hidden.weight": np.ones((3, 4), np.float32),
    "out.weight": np.full((2, 3), 0.5, np.float32),
    "out.bias": np.zeros(2, np.float32),
}


def make_federation(directory: Path, **settings: object) -> FederationFolder:
    """A federation with an initial model, not yet dealt."""
    folder = init_federation(directory, FederationConfig.model_validate({"name": "hospitals", **settings}))
    save_model(folder.root / "initial_model.npz", INITIAL_MODEL)
    return folder


@pytest.fixture(scope="session")
def _dealt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_federation(tmp_path_factory.mktemp("dealt") / "federation", rule="ddfed")
    for name in ("alice", "bob"):
        enroll_local(folder.root, name)
    deal(folder.root, rules=defenses.load_rule)
    return folder.root


@pytest.fixture
def federation(_dealt: Path, tmp_path: Path) -> FederationFolder:
    """A dealt federation with alice and bob; each test gets its own copy."""
    shutil.copytree(_dealt, tmp_path / "federation")
    return FederationFolder.open(tmp_path / "federation")


@pytest.fixture
def new_federation(tmp_path: Path) -> FederationFolder:
    """A federation without clients and keys."""
    return make_federation(tmp_path / "new")
