"""A folder of IDX files as a data set: which file is what follows from its header and its name."""

from __future__ import annotations

from pathlib import Path

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets.dataset import Dataset, dataset_of, malformed
from secagg.simulation.datasets.idx import read_idx, read_idx_header

FASHION_MNIST = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
FASHION_MNIST_SOURCE = "https://github.com/zalandoresearch/fashion-mnist (folder data/fashion)"
MAX_FILES = 1_000


def load_fashion_mnist(folder: Path) -> Dataset:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747) from its four files, gzip-compressed or not.

    Raises:
        ConfigError: DATA_MISSING names the files that are missing and their source; DATA_MALFORMED.
    """
    found = {name: _either(folder, name) for name in FASHION_MNIST}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise ConfigError(
            Code.DATA_MISSING,
            f"fashion-mnist: {folder} lacks {', '.join(missing)}; they come from {FASHION_MNIST_SOURCE}; "
            "name the folder above it with --data or SECAGG_DATA",
        )
    arrays = [read_idx(path) for path in found.values() if path]
    return dataset_of("fashion-mnist", arrays[0], arrays[1], (arrays[2], arrays[3]))


def load_idx_folder(folder: Path) -> Dataset:
    """Any folder with one pair of IDX files, or a train and a test pair.

    A file of one dimension holds labels, one of more holds samples. ``train`` in a file's name makes it
    part of the train pair, ``t10k``, ``test`` or ``val`` of the test pair. A single pair is split.

    Raises:
        ConfigError: DATA_MISSING if a pair lacks a file or is there twice; DATA_MALFORMED.
    """
    roles: dict[str, dict[str, Path]] = {}
    for path in _idx_files(folder):
        kind = "labels" if len(read_idx_header(path).shape) == 1 else "samples"
        pair = roles.setdefault(_role(path.name), {})
        if kind in pair:
            raise ConfigError(
                Code.DATA_MISSING,
                f"{folder}: both {pair[kind].name} and {path.name} could be the {kind}; "
                "put 'train' and 'test' into the names of two pairs, or keep one pair",
            )
        pair[kind] = path
    if "" in roles and len(roles) > 1 and "train" not in roles:
        roles["train"] = roles.pop("")
    for role, pair in roles.items():
        if len(pair) < 2:
            there = next(iter(pair.values())).name
            lacking = "labels" if "samples" in pair else "samples"
            raise ConfigError(
                Code.DATA_MISSING,
                f"{folder}: {there} is there, the {lacking} of the {role or 'only'} pair are not",
            )
    main = roles.get("train") or roles.get("") or roles.get("test")
    if main is None:
        raise ConfigError(
            Code.DATA_MISSING,
            f"{folder} has no IDX files; a data set is a file of samples and a file of labels, such as "
            "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
        )
    if set(roles) - {"train", "test"} and len(roles) > 1:
        raise malformed(str(folder), "it has more than a train and a test pair of IDX files")
    test = roles.get("test") if main is not roles.get("test") else None
    return dataset_of(
        folder.name,
        read_idx(main["samples"]),
        read_idx(main["labels"]),
        (read_idx(test["samples"]), read_idx(test["labels"])) if test else None,
    )


def _idx_files(folder: Path) -> list[Path]:
    """Files that are IDX by their first bytes, or call themselves so and must be refused if they are not."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    if len(paths) > MAX_FILES:
        raise malformed(str(folder), f"it has {len(paths)} files; a folder of IDX files has a few")
    chosen = []
    for path in paths:
        named = "idx" in path.name.lower() or "ubyte" in path.name.lower()
        with path.open("rb") as file:
            start = file.read(2)
        if named or start == b"\0\0":
            chosen.append(path)
        elif start == b"\x1f\x8b":
            try:
                read_idx_header(path)
            except ConfigError:
                continue  # some other compressed file that lies beside the data
            chosen.append(path)
    return chosen


def _role(name: str) -> str:
    lower = name.lower()
    if "train" in lower:
        return "train"
    return "test" if any(word in lower for word in ("t10k", "test", "val")) else ""


def _either(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / name.removesuffix(".gz")):
        if candidate.is_file():
            return candidate
    return None
