"""Whatever a file holds, its reader ends, in one line that names the file, and executes nothing of it."""

import random

import pytest

from benchmarks.faults import readers

FILES = 40
NAMES = (
    "policy file", "training state", "config.json", "latest", "metrics.csv", "eval.json", "eval_episodes.npz",
    "attempts.json", "manifest.json", "results.csv", "curves.csv", "episodes.csv.gz", "game.json",
    "the Hub's config.json", "the Hub's model.safetensors",
    "a network", "a network, gzipped", "a network with lights",
)  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return {reader.name: reader for reader in readers.readers(tmp_path_factory.mktemp("good"))}


def test_every_reader_is_attacked(known):
    assert set(known) <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_end_in_one_line_and_execute_nothing(known, name, tmp_path):
    if name not in known:
        pytest.skip("needs an extra that is not installed")
    seen, faults = readers.attack(known[name], FILES, random.Random(name), tmp_path / "executed")
    assert not faults
    assert seen["refused"] > 0
