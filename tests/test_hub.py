"""Policies in folders for strangers come back bit by bit; uploads meet a stand-in for the Hub, never the network."""

import contextlib
import json
import random
import sys
from unittest.mock import create_autospec

import huggingface_hub
import numpy as np
import pytest
import torch

from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import from_json
from rqe_mappo.deploy import hub
from rqe_mappo.deploy.policy import Policy
from tests.test_export import ACTORS, invented

EVALUATION = {
    "episodes": 10, "seed": 5, "deterministic": False, "timesteps": 7,
    "metrics": [{"metric": "mean return", "level": "agent", "value": -12.3456, "low": -13.0, "high": None}],
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ACTORS))
def test_round_trip_gives_the_same_policy_bit_by_bit(kind, tmp_path):
    policy = invented(**ACTORS[kind])
    policy.save_pretrained(tmp_path / "policy")
    assert sorted(file.name for file in (tmp_path / "policy").iterdir()) == sorted(hub.FILES)
    back = Policy.from_pretrained(tmp_path / "policy")
    obs, agent = torch.randn(50, 33), torch.randint(0, 3, (50,))
    assert torch.equal(back.choices(obs, agent).logits, policy.choices(obs, agent).logits)
    states = np.random.default_rng(0).normal(size=(5, 7))
    assert torch.equal(back.distribution(states).log_probs, policy.distribution(states).log_probs)
    assert back.spec == policy.spec and back.returns.spec == policy.returns.spec
    assert back.measures == policy.measures
    for name in ("agents", "timesteps", "return_scale", "risk"):
        assert getattr(back, name) == getattr(policy, name)
    assert from_json(back.config_json) == from_json(policy.config_json)


def test_content_makes_the_same_policy():
    policy = invented(shared=False)
    again = Policy(policy.content)
    obs, agent = torch.randn(20, 33), torch.randint(0, 3, (20,))
    assert torch.equal(again.choices(obs, agent).logits, policy.choices(obs, agent).logits)


def test_a_place_on_the_disk_does_not_travel(tmp_path):
    policy = invented()
    policy.config_json = json.dumps(json.loads(policy.config_json) | {"out": "/home/somebody/runs/7"})
    policy.save_pretrained(tmp_path)
    assert "somebody" not in "".join((tmp_path / name).read_text() for name in (hub.CONFIG, hub.CARD))


def test_card_says_what_is_known_and_no_more(tmp_path):
    policy = invented()
    policy.save_pretrained(tmp_path)
    card = (tmp_path / hub.CARD).read_text()
    assert card.startswith("---\nlibrary_name: rqe-mappo\n")
    for row in ("| environment | sumo, scenario default |", "| risk measure | entropic |",
                "| eps | 0.003, weight of the entropy |", "| that std | 2.5 |",
                "| trained for | 7 decisions of single agents, seed 1 |",
                "| agents | veh_0, veh_1, veh_2 |"):  # fmt: skip
        assert row in card
    assert "No evaluation was given" in card
    measured = tmp_path / "eval.json"
    measured.write_text(json.dumps(EVALUATION))
    policy.save_pretrained(tmp_path, evaluation=measured)
    card = (tmp_path / hub.CARD).read_text()
    assert "over 10 episodes, seed 5, drawn actions" in card
    assert "| mean return | agent | -12.35 | -13 to None |" in card
    measured.write_text(json.dumps(EVALUATION | {"timesteps": 8}))
    with pytest.raises(ValueError, match="after 8 decisions, this one has had 7"):
        policy.save_pretrained(tmp_path, evaluation=measured)
    measured.write_text("[]")
    with pytest.raises(ValueError, match=r"no eval\.json of rqe-eval"):
        policy.save_pretrained(tmp_path, evaluation=measured)


def test_a_runs_settings_are_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"env": "sumo"}')
    with pytest.raises(ValueError, match="a folder of its own"):
        invented().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def damaged(folder, name, content):
    invented().save_pretrained(folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


def without_checksum(folder) -> None:
    """As an earlier version wrote it."""
    known = json.loads((folder / hub.CONFIG).read_text())
    del known[hub.CHECKSUM]
    (folder / hub.CONFIG).write_text(json.dumps(known))


@pytest.mark.parametrize("name", [hub.CONFIG, hub.WEIGHTS])
def test_no_flipped_bit_is_taken_for_the_policy_that_was_saved(name, tmp_path):
    invented().save_pretrained(tmp_path)
    whole, flips = (tmp_path / name).read_bytes(), random.Random(0)
    for _ in range(100):
        bits = bytearray(whole)
        bits[flips.randrange(len(bits))] ^= 1 << flips.randrange(8)
        (tmp_path / name).write_bytes(bits)
        with contextlib.suppress(CheckpointError):
            Policy.from_pretrained(tmp_path)
            assert json.loads(bits) == json.loads(whole)  # a flip in what lies between the entries


def test_a_folder_without_checksum_loads(tmp_path):
    invented().save_pretrained(tmp_path)
    without_checksum(tmp_path)
    assert Policy.from_pretrained(tmp_path).timesteps == 7


@pytest.mark.parametrize("name", [hub.CONFIG, hub.WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\x80\x02cos\nsystem\n"])
def test_damage_is_one_line(name, content, tmp_path):
    damaged(tmp_path, name, content)
    with pytest.raises(CheckpointError) as found:
        Policy.from_pretrained(tmp_path)
    assert str(tmp_path) in str(found.value) and "\n" not in str(found.value)


def test_weights_that_do_not_fit_are_one_line(tmp_path):
    invented(hidden=(8,)).save_pretrained(tmp_path / "other")
    damaged(tmp_path, hub.WEIGHTS, (tmp_path / "other" / hub.WEIGHTS).read_bytes())
    without_checksum(tmp_path)
    with pytest.raises(CheckpointError, match="does not hold a whole policy"):
        Policy.from_pretrained(tmp_path)


def test_neither_folder_nor_repository(tmp_path):
    for name in (tmp_path / "missing", "missing", "https://example.org/a/b"):
        with pytest.raises(CheckpointError, match="neither a folder nor a repository"):
            Policy.from_pretrained(name)


def test_download_takes_our_files_alone_and_refusals_are_one_line(tmp_path, monkeypatch):
    policy = invented()
    policy.save_pretrained(tmp_path)
    asked = create_autospec(huggingface_hub.snapshot_download, return_value=str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    assert Policy.from_pretrained("somebody/crossing", revision="v1").timesteps == policy.timesteps
    asked.assert_called_once_with(repo_id="somebody/crossing", revision="v1", allow_patterns=list(hub.FILES))
    asked.side_effect = OSError("404 Client Error.\nRepository Not Found")
    with pytest.raises(CheckpointError, match=r"somebody/crossing could not be downloaded .*: 404 Client Error\.$"):
        Policy.from_pretrained("somebody/crossing")


def test_upload_is_what_save_pretrained_writes(tmp_path, monkeypatch):
    policy = invented()
    policy.save_pretrained(tmp_path)
    api, sent = create_autospec(huggingface_hub.HfApi, instance=True), {}

    def upload(*, folder_path, **settings):
        sent.update(
            {name: (tmp_path.__class__(folder_path) / name).read_bytes() for name in settings["allow_patterns"]}
        )

    api.upload_folder.side_effect = upload
    made = create_autospec(huggingface_hub.HfApi, return_value=api)
    monkeypatch.setattr(huggingface_hub, "HfApi", made)
    assert policy.push_to_hub("somebody/crossing", token="secret") == "https://huggingface.co/somebody/crossing"
    made.assert_called_once_with(token="secret")
    api.create_repo.assert_called_once_with(repo_id="somebody/crossing", private=True, exist_ok=True)
    assert api.upload_folder.call_args.kwargs["repo_id"] == "somebody/crossing"
    assert sent == {name: (tmp_path / name).read_bytes() for name in hub.FILES}
    with pytest.raises(ValueError, match="give owner/name"):
        policy.push_to_hub("crossing")
    assert api.upload_folder.call_count == 1


@pytest.mark.parametrize("name", ["safetensors.torch", "huggingface_hub"])
def test_missing_package_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"is not installed: pip install 'rqe-mappo\[hub\]'"):
        invented().push_to_hub("somebody/crossing")
