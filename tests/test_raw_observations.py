"""What an environment gives is what a policy takes, and what it gives back is what the environment takes."""

import copy
import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from rqe_mappo import checkpoint, described_spaces, registry
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.deploy import interpolation
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs import (
    cliff_walk,
    kitchen,
    macf,
    matrix_games,
    predator_prey,
    risky_cartpole,
    stag_hunt,
    step_games,
    sumo_intersection,
    sumo_signals,
    tag,
)
from rqe_mappo.training.run import Run
from tests import odd_envs
from tests.parallel_toy import Countdown

SMALL = {"num_envs": 2, "num_steps": 8, "actor_hidden": (8,), "critic_hidden": (8,), "n_atoms": 11}
PUBLIC = {
    "cartpole": risky_cartpole.RiskyCartPoleEnv,
    "gamble": lambda: gymnasium.make("rqe/Gamble-v0").unwrapped,
    "matrix": matrix_games.parallel_env,
    "cliff": cliff_walk.parallel_env,
    "step-games": step_games.parallel_env,
    "predator-prey": predator_prey.parallel_env,
    "macf": macf.parallel_env,
    "kitchen": kitchen.parallel_env,
    "stag-hunt": stag_hunt.parallel_env,
    "tag": tag.parallel_env,
    "sumo": sumo_intersection.parallel_env,
    "sumo-signals": sumo_signals.parallel_env,
}


def built(name: str, folder: Path, **settings) -> tuple[dict, vector.BatchedEnv]:
    """The contents of a policy file of a run that has not begun to learn, and the environment of the run."""
    config = default_config(name)
    if ":" in name:  # rewards are measured in episodes of random actions
        settings["env_config"] = replace(config.env_config, max_steps=20)
    config = config.replace(**{**SMALL, **settings})
    copies = 1 if registry.environment(name).own_process else config.num_envs
    env = vector.make(config, copies, in_process=True)
    return Run.build(config, folder, env).policy_content(), env


def raw(name: str) -> tuple[object, dict]:
    """An environment of its own, and what it gives first."""
    env = getattr(odd_envs, name)()
    return env, env.reset()[0]


@pytest.fixture(scope="module", params=odd_envs.KINDS)
def odd(request, tmp_path_factory):
    """The name of a kind, a policy for it, and its batched environment."""
    content, env = built(f"tests.odd_envs:{request.param}", tmp_path_factory.mktemp("run"))
    return request.param, Policy(content), env


def test_raw_observations_are_acted_on_as_in_training_and_actions_are_the_environments_own(odd):
    kind, policy, batched = odd
    env, seen = raw(kind)
    rows = batched.reset(0)  # whatever the seed, these environments begin alike
    agents = np.arange(len(policy.agents))
    for _ in range(3):
        shared = policy.act(rows.obs, np.tile(agents, (2, 1)), deterministic=True, avail=rows.avail)
        actions = policy.act(seen, deterministic=True)
        shares = policy.probabilities(seen) if policy.spec.actions.kind != "box" else {}
        for index, name in enumerate(policy.agents):
            own = batched.agent_spaces[index].action.own(shared[0, index])
            assert np.array_equal(actions[name], own) and env.action_space(name).contains(actions[name])
            avail = None if rows.avail is None else rows.avail[0, index]
            for share in [shares[name]] if shares else []:
                assert np.array_equal(share, policy.probabilities(rows.obs[0, index], index, avail=avail))
        seen, *_ = env.step(actions)
        rows = batched.step(shared)


def test_drawn_actions_are_legal_to_the_end(odd):
    kind, policy, _ = odd
    for seed in range(20):
        env, seen = raw(kind)
        policy.seed(seed)
        while env.agents:
            seen, *_ = env.step(policy.act(seen))  # which refuses an action that is masked, or of another space


def test_one_agent_asks_by_name_or_number_with_what_it_sees(odd):
    kind, policy, _ = odd
    _, seen = raw(kind)
    every = policy.act(seen, deterministic=True)
    for index, name in enumerate(policy.agents):
        for agent in (name, index) if len(policy.agents) > 1 else (name, index, None):
            assert np.array_equal(policy.act(seen[name], agent, deterministic=True), every[name])


def test_the_critic_takes_what_all_agents_see(odd):
    kind, policy, batched = odd
    _, seen = raw(kind)
    state = batched.reset(0).state[0]
    assert np.array_equal(policy.state(seen), state)
    assert policy.value(seen).keys() == seen.keys()
    found, known, values = policy.distribution(seen), policy.distribution(state), policy.value(state)
    for index, name in enumerate(policy.agents):
        assert torch.equal(found[name].log_probs, known.log_probs[index])
        assert torch.equal(policy.value(seen)[name], values[index])
        assert torch.allclose(policy.value(state[index], index), values[index], atol=1e-4)


def test_mixtures_take_the_same(odd):
    kind, policy, _ = odd
    _, seen = raw(kind)
    mixture = interpolation.interpolate(policy, policy, 0.5)
    found, known = mixture.act(seen, deterministic=True), policy.act(seen, deterministic=True)
    assert all(np.array_equal(found[name], known[name]) for name in seen)


def test_policies_of_other_spaces_are_not_mixed(odd):
    _, policy, _ = odd
    content = copy.deepcopy(policy.content)
    for one in content["spaces"]:
        one["observation"] = {"shape": [policy.spec.obs_dim, 1, 1, 1, 1]}
    with pytest.raises(ValueError, match="observe or act in other spaces"):
        interpolation.interpolate(policy, Policy(content))


def test_a_file_and_json_hold_the_spaces(odd):
    _, policy, _ = odd
    content = policy.content
    assert (
        Policy({**content, "spaces": json.loads(json.dumps(content["spaces"], allow_nan=False))}).spaces
        == policy.spaces
    )


FRESH = """
import pickle, sys
from pathlib import Path
from rqe_mappo import Policy
folder = Path(sys.argv[1])
for file in sorted(folder.glob("*.pickle")):
    policy = Policy.load(folder / file.stem)
    seen = pickle.loads(file.read_bytes())
    print(file.stem, sorted((name, str(action)) for name, action in policy.act(seen, deterministic=True).items()))
    policy.value(seen)
assert not {"gymnasium", "pettingzoo", "tests", "rqe_mappo.envs.by_name"} & set(sys.modules)
"""


@pytest.mark.slow
def test_a_fresh_process_acts_on_them_without_the_environment(tmp_path):
    expected = []
    for kind in sorted(odd_envs.KINDS):
        content, _ = built(f"tests.odd_envs:{kind}", tmp_path)
        (tmp_path / kind).mkdir()
        checkpoint.save(tmp_path / kind, 0, content, {}, 1)
        _, seen = raw(kind)
        (tmp_path / f"{kind}.pickle").write_bytes(pickle.dumps(seen))
        actions = Policy(content).act(seen, deterministic=True)
        expected.append(f"{kind} {sorted((name, str(action)) for name, action in actions.items())}")
    done = subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == " ".join(expected).split()


@pytest.mark.parametrize("name", ["FrozenLake-v1", "Blackjack-v1", "Pendulum-v1", "CartPole-v1", "Taxi-v4"])
def test_what_gymnasium_gives_is_what_a_policy_of_one_agent_takes(name, tmp_path):
    content, _ = built(f"gymnasium:{name}", tmp_path)
    policy, env = Policy(content), gymnasium.make(name)
    seen, info = env.reset(seed=0)
    for _ in range(5):
        action = policy.act(seen, avail=info.get("action_mask"))
        assert env.action_space.contains(action)
        assert policy.value(seen).shape == ()
        seen, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            seen, info = env.reset()


def test_agents_that_left_are_zeros_to_the_critic(tmp_path):
    content, batched = built("pettingzoo:tests.parallel_toy", tmp_path)
    policy, env = Policy(content), Countdown()
    env.reset(seed=np.random.SeedSequence(3).generate_state(2).tolist()[0] >> 1)
    batched.reset(3)
    for _ in range(2):
        seen, *_ = env.step({agent: 1 for agent in env.agents})
        step = batched.step(np.ones((2, 2), np.int64))
    assert env.agents == ["slow"]
    left = {agent: seen[agent] for agent in env.agents}
    assert np.array_equal(policy.state(left), step.state[0])
    assert policy.distribution(left).keys() == {"slow"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(registry.ENVIRONMENTS))
def test_what_state_gives_is_what_the_critic_takes_per_agent(name, tmp_path):
    content, batched = built(name, tmp_path, num_envs=1)
    expected = batched.reset(3).state[0].copy()
    batched.close()
    policy, env = Policy(content), PUBLIC[name]()
    try:
        env.reset(seed=3)
        state = env.state()
        assert np.array_equal(state, expected)
        assert getattr(env, "state_space", None) is None or env.state_space.contains(state)
        found = policy.distribution(state)
        assert len(found.log_probs) == len(policy.agents)
        values = policy.value(state)
        for index in range(len(policy.agents)):
            assert torch.allclose(found.log_probs[index], policy.distribution(state[index], index).log_probs)
            assert torch.allclose(values[index], policy.value(state[index], index))
    finally:
        env.close()


def test_an_unknown_agent_is_named(odd):
    _, policy, batched = odd
    rows, agents = batched.reset(0).obs[0], ", ".join(policy.agents)
    for ask in (
        lambda: policy.act({"nobody": rows[0]}),
        lambda: policy.act(rows, "nobody"),
        lambda: policy.probabilities(rows, ["nobody"] * len(rows)),
        lambda: policy.value({"nobody": rows[0]}),
        lambda: policy.act({policy.agents[0]: rows[0]}, avail={"nobody": [True]}),
        lambda: interpolation.interpolate(policy, policy).act({"nobody": rows[0]}),
    ):
        with pytest.raises(ValueError, match=rf"^there is no agent nobody: these are {agents}$"):
            ask()
    with pytest.raises(ValueError, match=rf"^agents are numbered 0 to {len(rows) - 1}, or named {agents} \(got 7\)$"):
        policy.act(rows[0], 7)


def test_observations_of_another_kind_are_refused_in_one_line(odd):
    kind, policy, _ = odd
    _, seen = raw(kind)
    name = policy.agents[0]
    for wrong in (np.zeros((7, 7)), "text", None, {"other": 1}, tuple(range(40))):
        with pytest.raises(
            ValueError, match=rf"^the observation of {name} must be .*; or flat and padded to \d"
        ) as error:
            policy.act({**seen, name: wrong})
        assert "\n" not in str(error.value)


def test_what_is_not_finite_is_not_acted_on(tmp_path):
    policy = Policy(built("tests.odd_envs:unequal", tmp_path)[0])
    _, seen = raw("unequal")
    for number, message in ((math.nan, "must be finite"), (math.inf, "must be finite"), (1e300, "single precision")):
        with pytest.raises(ValueError, match=message):
            policy.act({**seen, "b": np.full(5, number)})
        with pytest.raises(ValueError, match=message):
            policy.value({**seen, "b": np.full(5, number)})


def test_masks_that_do_not_fit_are_refused(tmp_path):
    policy = Policy(built("tests.odd_envs:masked", tmp_path)[0])
    _, seen = raw("masked")
    assert policy.act(seen, avail={"a": [False, False, True]})["a"] == 3
    assert policy.act(seen, avail={"b": [1, 0]})["b"] == 1  # what is said goes before what is seen
    for mask, message in (([1, 0, 0, 0], "0 or 1 for each of 3"), ([2, 0, 0], "0 or 1"), ([0, 0, 0], "allows nothing")):
        with pytest.raises(ValueError, match=f"^the action_mask of a .*{message}"):
            policy.act(seen, avail={"a": mask})


def test_files_without_spaces_take_flat_rows(tmp_path):
    content, batched = built("tests.odd_envs:unequal", tmp_path)
    del content["spaces"]
    policy, rows = Policy(content), batched.reset(0).obs[0]
    assert policy.spaces is None and "spaces" not in policy.content
    assert policy.act({"a": rows[0], "b": rows[1]}).keys() == {"a", "b"}
    with pytest.raises(ValueError, match=r"^the observation of b must have 5 features \(got shape \(2,\)\)$"):
        policy.act({"b": rows[1, :2]})


def test_a_policy_that_sees_the_return_so_far_says_that_observations_are_not_enough(tmp_path):
    policy = Policy(built("tests.odd_envs:unequal", tmp_path, advantage="static")[0])
    _, seen = raw("unequal")
    with pytest.raises(ValueError, match=r"^the observation of a must have \d features: .*--advantage static"):
        policy.act(seen)
    assert policy.act({"a": np.zeros(policy.spec.obs_dim)})["a"] in (5, 6, 7)


def test_workers_tell_the_spaces(tmp_path):
    config = default_config("tests.odd_envs:masked").replace(**SMALL)
    env = vector.make(config, 2, num_workers=1)
    try:
        assert described_spaces.described(env.agent_spaces) == {
            "spaces": built("tests.odd_envs:masked", tmp_path)[0]["spaces"]
        }
    finally:
        env.close()


def spoiled(content: dict) -> dict[str, object]:
    """Descriptions of spaces as no policy of ours has them."""
    good = content["spaces"]
    deep: dict = {"shape": [1]}
    for _ in range(50):
        deep = {"parts": [deep], "keys": None}
    wide: dict = {"shape": [0]}
    for _ in range(6):
        wide = {"parts": [wide] * 1000, "keys": None}  # a few references, 10^18 observations

    def with_(observation: object = None, action: object = None) -> list:
        one = copy.deepcopy(good)
        if observation is not None:
            one[0]["observation"] = observation
        if action is not None:
            one[0]["action"] = action
        return one

    return {
        "no list": {"a": 1},
        "another number of agents": good[:1],
        "no dict": [7, 7],
        "a field more": [{**one, "code": "x"} for one in good],
        "huge": with_({"shape": [2**40, 2**20]}),
        "huge axes": with_({"shape": [1] * 10**6}),
        "huge choices": with_({"sizes": [2**61], "start": [0], "shape": []}),
        "deep": with_(deep),
        "wide": with_(wide),
        "negative": with_({"shape": [-1]}),
        "a float": with_({"shape": [2.0]}),
        "a bool": with_({"shape": [True]}),
        "shape of others": with_({"sizes": [2, 2], "start": [0, 0], "shape": [3]}),
        "starts of others": with_({"sizes": [2, 2], "start": [0], "shape": [2]}),
        "keys of others": with_({"parts": [{"shape": [1]}], "keys": ["x", "y"]}),
        "keys twice": with_({"parts": [{"shape": [1]}] * 2, "keys": ["x", "x"]}),
        "keys unhashable": with_({"parts": [{"shape": [1]}], "keys": [[1]]}),
        "many actions": with_(action={"sizes": [2**40], "shift": [0], "shape": []}),
        "bounds that are text": with_(action={"low": ["0"], "high": [1.0], "shape": [1], "dtype": "float32"}),
        "bounds that are nan": with_(action={"low": [math.nan], "high": [1.0], "shape": [1], "dtype": "float32"}),
        "a type of objects": with_(action={"low": [0.0], "high": [1.0], "shape": [1], "dtype": "object"}),
        "a type unhashable": with_(action={"low": [0.0], "high": [1.0], "shape": [1], "dtype": ["O"]}),
    }


def test_hostile_descriptions_are_refused_before_anything_is_built(tmp_path):
    content, _ = built("tests.odd_envs:unequal", tmp_path)
    file = tmp_path / "step_0.policy.pt"
    for what, spaces in spoiled(content).items():
        torch.save({"format": checkpoint.POLICY_FORMAT, **content, "spaces": spaces}, file)
        with pytest.raises(checkpoint.CheckpointError) as error:
            Policy.load(file)
        assert "\n" not in str(error.value) and len(str(error.value)) < 600, what
