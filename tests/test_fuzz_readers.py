"""Whatever a file holds, its reader ends, in one line that names the file, and executes nothing of it."""

import random

import pytest

from benchmarks.faults import readers
from rqe_mappo.config import ConfigError

FILES = 40
NAMES = (
    "policy file", "training state", "replayed episodes", "config.json", "latest", "metrics.csv", "eval.json",
    "eval_episodes.npz", "attempts.json", "manifest.json", "results.csv", "curves.csv", "episodes.csv.gz", "game.json",
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


def test_a_page_of_a_manifest_runs_no_script(known, tmp_path):
    """What stands unescaped on the page of a sweep is checked when it is read."""
    reader = known["manifest.json"]
    good = reader.file.read_text()
    for name, text in (("state", '"<script>"'), ("name", '"../elsewhere"'), ("reference", "{}")):
        at = good.index(f'"{name}": ') + len(name) + 4
        reader.file.write_text(good[:at] + text + good[good.index("\n", at) - 1 :])
        with pytest.raises(ConfigError, match=r"manifest\.json is damaged"):
            reader.read(reader.file)
    reader.file.write_text(good)
