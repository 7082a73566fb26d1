"""Files that are damaged or forged: refused in one line, at once, and without memory for what they claim to hold."""

import json
import os
import random
import resource
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rqe_mappo import checkpoint, cli, files, nets
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import ConfigError, default_config, from_file
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests.small_tasks import small_config
from tests.test_bad_input import SMALL, complaint

SECONDS, MEGABYTES = 5.0, 200  # within which a forged file is refused, on a busy machine too


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run, of which three checkpoints are left."""
    config = default_config("cartpole").replace(**SMALL, save_interval=1, actor_hidden=(4,), critic_hidden=(4,))
    return train(config.replace(out=str(tmp_path_factory.mktemp("runs") / "run")), quiet=True)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run's folder, which may be written to."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.parametrize("kind", [0, 1], ids=["policy", "training"])
def test_no_flipped_bit_is_loaded(run, tmp_path, kind):
    whole, path = checkpoint.newest(run)[kind].read_bytes(), tmp_path / "flipped.pt"
    load, flips = (checkpoint.load_policy_file, checkpoint.load_training_file)[kind], random.Random(0)
    path.write_bytes(whole)
    load(path)
    for _ in range(300):
        bits = bytearray(whole)
        bits[flips.randrange(len(bits))] ^= 1 << flips.randrange(8)
        path.write_bytes(bits)
        with pytest.raises(CheckpointError, match="damaged"):
            load(path)


def test_a_flipped_bit_in_weights_of_a_file_without_checksum_is_not_loaded(run, tmp_path):
    """As earlier versions wrote them: each part of the archive has a checksum of its own."""
    path = tmp_path / "old.pt"
    torch.save(checkpoint.load_policy_file(run) | {"format": checkpoint.POLICY_FORMAT}, path)
    Policy.load(path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data/0"))
        weights = archive.read(name)
    content = path.read_bytes()
    at = content.index(weights)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(CheckpointError, match="damaged"):
        Policy.load(path)


def test_resuming_from_a_damaged_checkpoint_names_one_that_is_whole(capsys, copy):
    training = checkpoint.newest(copy)[1]
    training.write_bytes(training.read_bytes()[:-100])
    said = complaint(capsys, cli.train, "--resume", str(copy), "--total-timesteps", "1000")
    before = checkpoint.complete(copy)[-2]
    assert str(training) in said and before in said and str(copy / "latest") in said
    (copy / "latest").write_text(before)
    cli.train(["--resume", str(copy), "--total-timesteps", "512"])
    assert Policy.load(copy).timesteps == 512


def forged(kind: str, content: dict[str, Any]) -> None:
    """Make the contents of a policy file ask for more than they hold."""
    actor, weights = content["networks"]["actor"], content["modules"]["actor"]
    if kind == "wide layers":
        actor["hidden"] = [20_000, 20_000]
    elif kind == "wide layers of tensors without memory":
        actor["hidden"] = [20_000, 20_000]
        for name, shape in {"0": (20_000, 6), "2": (20_000, 20_000), "4": (2, 20_000)}.items():
            weights[f"nets.0.{name}.weight"] = torch.zeros(1, 1).expand(shape)
            weights[f"nets.0.{name}.bias"] = torch.zeros(1).expand(shape[0])
    elif kind == "sparse weights":
        empty = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0)
        weights["nets.0.0.weight"] = torch.sparse_coo_tensor(*empty, (10**5, 10**5), check_invariants=True)
    elif kind == "a million actors":
        actor |= {"n_agents": 10**6, "shared": False}
        content["networks"]["critic"]["n_agents"] = 10**6
    elif kind == "many named actors":
        content["agents"] = [f"{number:x}" for number in range(30_000)]
        content["networks"]["actor"] |= {"n_agents": 30_000, "shared": False}
        content["networks"]["critic"]["n_agents"] = 30_000
    elif kind == "many layers":
        actor["hidden"] = [4] * 10**5
    elif kind == "many actions of each of many agents":
        content["agents"] = [f"{number:x}" for number in range(30_000)]
        actor |= {"n_agents": 30_000, "hidden": [], "actions": {"kind": "discrete", "sizes": [30_000]}}
        actor["actions"]["counts"] = [1] * 30_000
        content["modules"]["actor"] = {"nets.0.0.weight": torch.zeros(30_000, 6), "nets.0.0.bias": torch.zeros(30_000)}
        content |= {"networks": {"actor": actor}, "returns": None}
    elif kind == "atoms":
        content["networks"]["critic"]["n_atoms"] = 10**9
    elif kind == "memory":
        actor["memory"] = 50_000


FORGED = [
    "wide layers", "wide layers of tensors without memory", "sparse weights", "a million actors", "many layers",
    "many named actors", "many actions of each of many agents", "atoms", "memory",
]  # fmt: skip


def refused_at_once(path: Path) -> None:
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as found:
        Policy.load(path)
    assert time.monotonic() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000 * MEGABYTES
    assert str(path) in str(found.value) and "\n" not in str(found.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORGED)
def test_a_policy_that_asks_for_more_than_it_holds_is_refused_at_once(run, tmp_path, kind):
    content, path = checkpoint.load_policy_file(run), tmp_path / "forged.policy.pt"
    forged(kind, content)
    torch.save(content, path)
    refused_at_once(path)


def lists_of_lists() -> list:
    nested: list = []
    for _ in range(40):
        nested = [nested] * 10
    return nested


def list_that_holds_itself() -> list:
    endless: list = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize("endless", [lists_of_lists, list_that_holds_itself])
def test_a_training_state_without_end_is_refused_at_once(run, tmp_path, endless):
    path = tmp_path / "forged.training.pt"
    content = checkpoint.load_training_file(checkpoint.newest(run)[1])
    content["algorithm"]["more"] = endless()
    torch.save(content, path)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_training_file(path)
    assert time.monotonic() - began < SECONDS


def test_a_compressed_archive_is_refused_before_it_is_unpacked(run, tmp_path, monkeypatch):
    content, plain, path = checkpoint.load_policy_file(run), tmp_path / "plain.pt", tmp_path / "bomb.policy.pt"
    content["modules"]["more"] = {"weight": torch.zeros(10**8, dtype=torch.uint8)}
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for part in archive.infolist():
            small.writestr(part.filename, archive.read(part))
    plain.unlink()
    assert path.stat().st_size < 10**6
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("it was unpacked"))
    refused_at_once(path)


def test_a_policy_beyond_the_stated_limit_is_not_opened(tmp_path):
    path = tmp_path / "large.policy.pt"
    path.touch()
    os.truncate(path, checkpoint.LARGEST_POLICY + 1)
    with pytest.raises(CheckpointError, match="larger than 2 GiB"):
        Policy.load(path)


def test_a_run_whose_policy_could_not_be_loaded_does_not_begin(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(checkpoint, "LARGEST_POLICY", 1000)
    said = complaint(capsys, cli.train, "--env", "cartpole", "--out", str(tmp_path / "run"))
    assert "more than can be loaded" in said and not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("module", ["actor", "critic"])
def test_weights_that_are_not_finite_are_refused(capsys, copy, module, value):
    path = checkpoint.newest(copy)[0]
    content = checkpoint.load_policy_file(path)
    content["modules"][module]["nets.0.0.weight"][0, 0] = value
    torch.save(content, path)
    for command, *args in ((cli.evaluate, str(copy)), (cli.train, "--resume", str(copy), "--total-timesteps", "1000")):
        said = complaint(capsys, command, *args)
        assert path.name in said and f"modules.{module}.nets.0.0.weight is not finite" in said


def test_a_network_is_loaded_where_description_and_weights_agree_alone():
    spec = nets.ActorSpec(obs_dim=3, n_agents=2, actions=nets.ActionSpec("discrete", (4,)), hidden=(5,), groups=(0, 1))
    actor = nets.PolicyActor(spec)
    description, weights = checkpoint.to_plain(nets.describe(actor)), actor.state_dict()
    again = nets.restored(description, weights)
    assert isinstance(again, nets.PolicyActor) and again.spec == spec
    assert again.groups is not None and torch.equal(again.groups, actor.groups)
    for change in ({"obs_dim": 4}, {"hidden": [5, 5]}, {"groups": []}, {"memory": 5}, {"normalise": True}):
        with pytest.raises(ValueError, match="is described as"):
            nets.restored(description | change, weights)
    with pytest.raises(ValueError, match=r"nets\.0\.0\.bias is described as \(5,\), and is missing"):
        nets.restored(description, {name: value for name, value in weights.items() if name != "nets.0.0.bias"})


def leaves(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where everything stands in nested dicts and lists."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, item in items:
        yield from leaves(item, (*path, name))


def changed(content: Any, path: tuple, value: Any) -> Any:
    """The same contents but for one, which is left out where `value` is Ellipsis."""
    if not path:
        return value
    first, *rest = path
    part = list(content) if isinstance(content, list) else dict(content)
    part[first] = changed(part[first], tuple(rest), value)
    if part[first] is Ellipsis:
        del part[first]
    return part


def restored(folder: Path) -> None:
    config = from_file(folder / "config.json")
    env = vector.make(config, config.num_envs)
    try:
        Run.build(config, folder, env).restore()
    finally:
        env.close()


def specs(folder: Path) -> dict[str, Any]:
    policy = Policy.load(folder)
    return {name: module.spec for name, module in policy.modules.items()} | {"risk": policy.risk}


IGNORED = "param_groups"  # Adam's settings, which are the run's


@pytest.mark.slow
@pytest.mark.parametrize("value", [..., "x", None, [], {"x": 1}, torch.zeros(1, 2, 3)], ids=str)
@pytest.mark.parametrize("kind", [0, 1], ids=["policy", "training"])
def test_every_wrong_or_missing_part_of_a_checkpoint_is_one_line(copy, kind, value):
    path = checkpoint.newest(copy)[kind]
    whole = torch.load(path, weights_only=True)
    before, accepted = specs(copy), []
    for place in leaves(whole):
        if IGNORED in place:
            continue
        torch.save(changed(whole, place, value), path)
        try:
            restored(copy)
            if specs(copy) != before:  # what is missing may have the default that was meant
                accepted.append(place)
        except (CheckpointError, ConfigError) as error:
            assert str(copy) in str(error) and "\n" not in str(error)
    optional = {("risk",), ("risk", "clip"), ("risk", "return_scale")} if value is None else set()
    assert set(accepted) <= optional


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["mappo", "mean-variance"])
def test_states_of_critics_with_memory_are_checked_too(tmp_path, algo):
    config = small_config("TOY", algo, total_timesteps=60, recurrent=True, out=str(tmp_path / "run"))
    folder = train(config, quiet=True)
    path = checkpoint.newest(folder)[1]
    whole = torch.load(path, weights_only=True)
    for place in (("algorithm", "critic_memory"), ("collector", "memory"), ("collector", "begins")):
        for value in ("x", torch.zeros(1)):
            torch.save(changed(whole, place, value), path)
            with pytest.raises(CheckpointError, match=path.name):
                train(config, resume=folder, quiet=True)


@pytest.mark.parametrize("number", [0, 1], ids=["policy", "training"])
def test_files_of_different_steps_are_no_pair(copy, number):
    first, newest = checkpoint.complete(copy)[-2:]
    kind = ("policy", "training")[number]
    shutil.copy(copy / "checkpoints" / f"{first}.{kind}.pt", copy / "checkpoints" / f"{newest}.{kind}.pt")
    with pytest.raises(CheckpointError, match="of different steps"):
        restored(copy)


def test_settings_that_changed_behind_a_run_are_refused(capsys, copy):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"gamma": 0.99', '"gamma": 0.98'))
    said = complaint(capsys, cli.train, "--resume", str(copy), "--total-timesteps", "1000")
    assert "--gamma 0.99" in said and "0.98" in said and str(path) in said


@pytest.mark.parametrize("text", [b"\xff\xfe", b"[" * 5000, b"null", json.dumps({"env": "\ud800"}).encode()])
def test_settings_that_cannot_be_read_are_named(capsys, copy, text):
    (copy / "config.json").write_bytes(text)
    assert str(copy / "config.json") in complaint(capsys, cli.train, "--resume", str(copy))


def test_what_is_saved_is_what_is_loaded(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    content = {
        "a": shared,
        "b": shared[0],
        "c": [1, 2.5, None, "text", (True,)],
        "d": {3: torch.ones(2, dtype=torch.bool)},
    }
    size = files.save_tensors(tmp_path / "file.pt", content)
    found = files.load_tensors(tmp_path / "file.pt")
    assert size == (tmp_path / "file.pt").stat().st_size
    assert torch.equal(found["a"], shared) and torch.equal(found["b"], shared[0]) and found["c"] == content["c"]
    assert torch.equal(found["d"][3], content["d"][3])
    assert torch.equal(torch.load(tmp_path / "file.pt", weights_only=True)["a"], shared)  # PyTorch reads it too
