"""Where atoms lie: they hold every return, follow what is seen, and wherever returns lie the same is learned."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import rqe_mappo
from benchmarks.silent import trained
from rqe_mappo import registry
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.episode_returns import EpisodeReturns
from rqe_mappo.algorithms.support import FollowingSupport, Predicted, around, choose_support, return_bounds
from rqe_mappo.config import ConfigError, TrainConfig, default_config
from rqe_mappo.data import vector
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import Step
from rqe_mappo.envs.tabular import BatchedTabular, FiniteGame
from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk import Entropic
from rqe_mappo.nets import DistributionCritic, DistributionCriticSpec
from rqe_mappo.training.run import Run


def random_game(rng: np.random.Generator) -> FiniteGame:
    """One player, up to five states, outcomes of any sign and size; rewards on a grid in every other game."""
    s, j, k = int(rng.integers(2, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    reward = rng.normal(rng.normal(0, 20), 10.0 ** rng.integers(-1, 3), (1, s, j, k))
    if rng.random() < 0.5:
        reward = np.round(reward * 2) / 2
    terminal = np.zeros(s, bool)
    terminal[-1] = True
    start = np.zeros(s)
    start[: s - 1] = rng.dirichlet(np.ones(s - 1))
    names = np.eye(s, dtype=np.float32)[:, None]
    return FiniteGame(
        players=("player",), n_actions=(j,), next_state=rng.integers(s, size=(s, j, k)),
        prob=rng.dirichlet(np.ones(k), (s, j)), reward=reward, terminal=terminal, start=start,
        horizon=int(rng.integers(1, 7)), obs=names, state=names,
    )  # fmt: skip


def extremes(game: FiniteGame, gamma: float, beyond: int) -> tuple[float, float]:
    """The lowest and highest discounted return from any state that can be met, by recursion over all outcomes.

    beyond: decisions after the horizon, over which a time limit is bootstrapped.
    """
    reached = [game.start > 0]
    for _ in range(game.horizon - 1):
        following = np.zeros(game.n_states, bool)
        following[game.next_state[reached[-1]]] = True
        reached.append(following & ~game.terminal)
    low = high = np.zeros(game.n_states)
    lowest, highest = math.inf, -math.inf
    for left in range(1, game.horizon + beyond + 1):
        low = (game.reward[0] + gamma * low[game.next_state]).min((1, 2)) * ~game.terminal
        high = (game.reward[0] + gamma * high[game.next_state]).max((1, 2)) * ~game.terminal
        step = game.horizon + beyond - left  # of the episode, if so many are left
        met = reached[step] if step < game.horizon else np.zeros(game.n_states, bool)
        if met.any():
            lowest, highest = min(lowest, low[met].min()), max(highest, high[met].max())
    return lowest, highest


@pytest.mark.parametrize(
    ("gamma", "time_limit"),
    [(0.0, "bootstrap"), (0.3, "bootstrap"), (0.9, "bootstrap"),
     (0.0, "terminal"), (0.3, "terminal"), (0.9, "terminal"), (1.0, "terminal")],
)  # fmt: skip
def test_every_return_from_every_state_lies_within_the_support(gamma, time_limit):
    rng = np.random.default_rng(17)
    for _ in range(100):
        game = random_game(rng)
        atoms = choose_support(BatchedTabular(game, 1), gamma, time_limit, 101).double()
        low, high = extremes(game, gamma, beyond=0 if time_limit == "terminal" else 300)
        slack = 1e-5 * (abs(low) + abs(high) + 1)
        assert atoms[1] <= low + slack and high - slack <= atoms[-2]
        assert len(atoms) <= 101


def test_a_fee_now_is_not_cut_off_by_the_prize_that_follows():
    """A fee of 5, then 10.4 or 5.1, at gamma 0.5: -2.45 at the worst, though undiscounted nothing is below -1."""
    atoms = choose_support(BatchedTabular(fee_game(), 1), 0.5, "terminal", 201)
    assert atoms[1] <= -2.45


def fee_game() -> FiniteGame:
    """Action 1 pays a fee of 5 and then brings 10.4 or 5.1; action 0 loses 1."""
    names = np.eye(3, dtype=np.float32)[:, None]
    reward = np.zeros((1, 3, 2, 2))
    reward[0, 0] = [[-1.0, -1.0], [-5.0, -5.0]]
    reward[0, 1] = [[10.4, 5.1], [10.4, 5.1]]
    return FiniteGame(
        players=("player",), n_actions=(2,), next_state=np.array([[[2, 2], [1, 1]], [[2, 2]] * 2, [[2, 2]] * 2]),
        prob=np.full((3, 2, 2), 0.5), reward=reward, terminal=np.array([False, False, True]),
        start=np.array([1.0, 0.0, 0.0]), horizon=2, obs=names, state=names,
    )  # fmt: skip


def probability_of_risk(config: TrainConfig) -> tuple[float, Any]:
    """Of a run of one agent that chooses at the start; and the algorithm."""
    run = trained(config)
    seen, agent = vector.make(config, 1).reset(1), torch.zeros(1, 1, dtype=torch.long)
    with torch.no_grad():
        logits = run.algorithm.actor.logits(torch.from_numpy(seen.obs), agent)
    return float(logits.softmax(-1)[0, 0, 1]), run.algorithm


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tau", "risky"), [("at-once", 5.0, False), ("late", 14.0, True)])
def test_neither_translation_nor_unit_of_the_rewards_changes_what_is_learned(kind, tau, risky):
    settings = default_config("gamble").replace(kind=kind, tau=tau, total_timesteps=25_000)
    found = {}
    for added, factor in ((0, 1), (100, 1), (-100, 1), (0, 1e3), (0, 1e-3)):
        rewards = {name: (value + added) * factor for name, value in (("win", 4), ("loss", -2), ("sure", 0.5))}
        config = settings.replace(**rewards, return_scale=1.0 * factor, eps=0.01 * factor)
        found[added, factor], algorithm = probability_of_risk(config)
        assert algorithm.episodes.warning == ""
        assert (found[added, factor] > 0.5) == risky
    same = found[0, 1]
    assert found[100, 1] == pytest.approx(same, abs=1e-3) and found[-100, 1] == pytest.approx(same, abs=1e-3)
    # Adam's floor and the clipped gradient are not free of units where advantages are not scaled
    assert found[0, 1e3] == pytest.approx(same, abs=0.1) and found[0, 1e-3] == pytest.approx(same, abs=0.1)


class Lottery(gymnasium.Env):
    """One step: action 0 pays `sure`, action 1 `low` with probability `p`, else `high`."""

    observation_space, action_space = Box(0, 1, (1,)), Discrete(2)

    def __init__(self, sure: float, low: float, high: float, p: float):
        self.sure, self.low, self.high, self.p = sure, low, high, p

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        drawn = self.low if self.np_random.random() < self.p else self.high
        return np.ones(1, np.float32), float(drawn if action else self.sure), True, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_any_lottery_by_name_is_taken_on_the_exact_side(number, monkeypatch):
    """Random outcomes, odds, offset and unit; the sure reward a fifth of a std from the exact certainty equivalent."""
    rng = np.random.default_rng(100 + number)
    unit, offset = 10.0 ** rng.integers(-2, 3), rng.normal(0, 50)
    low, high = offset * unit, (offset + rng.uniform(1, 8)) * unit
    p, tau, risky = rng.uniform(0.1, 0.9), 10.0 ** rng.uniform(-0.5, 0.7), bool(number % 2)
    std = (high - low) * math.sqrt(p * (1 - p))
    atoms = torch.tensor([low, high], dtype=torch.float64)
    exact = float(Entropic(tau * std).reference(atoms, torch.tensor([p, 1 - p], dtype=torch.float64).log()))
    sure = exact + (-0.2 if risky else 0.2) * std
    monkeypatch.setitem(registry.ENVIRONMENTS, "lottery", None)
    rqe_mappo.register_env("lottery", lambda: Lottery(sure, low, high, p))
    config = default_config("lottery").replace(
        tau=tau, return_scale=std, warmup_fraction=0.0, risk_anneal_fraction=0.0, num_steps=64, total_timesteps=20_000,
        learning_rate=3e-3, risk_clip=10.0,
    )  # fmt: skip
    found, algorithm = probability_of_risk(config)
    assert (found > 0.5) == risky
    assert not algorithm.warnings()


class Growing(Lottery):
    """All rewards a hundred times as large from the 1,000th episode on."""

    episodes = 0

    def step(self, action):
        self.episodes += 1
        obs, reward, *rest = super().step(action)
        return obs, reward * (100 if self.episodes > 1000 else 1), *rest


@pytest.mark.slow
def test_rewards_that_grow_a_hundredfold_in_a_run_are_followed(monkeypatch):
    """At even odds of 1 and 3, a sure 1.9 is less than the mean, and more than the entropic value at one std, 1.57."""
    monkeypatch.setitem(registry.ENVIRONMENTS, "growing", None)
    rqe_mappo.register_env("growing", lambda: Growing(sure=1.9, low=1.0, high=3.0, p=0.5))
    config = default_config("growing").replace(
        tau=1.0, return_scale=100.0, warmup_fraction=0.0, risk_anneal_fraction=0.0, num_steps=64,
        total_timesteps=40_000, learning_rate=3e-3,
    )  # fmt: skip
    found, algorithm = probability_of_risk(config)
    assert found < 0.5  # under the first rewards, a hundredth of tau, it is taken
    assert not algorithm.warnings()
    atoms = algorithm.critic.atoms
    assert atoms[0] < 100 and atoms[-1] > 300
    mean = float(algorithm.critic.distribution(torch.ones(1, 1), torch.zeros(1, dtype=torch.long)).mean)
    assert mean == pytest.approx(190, abs=10)


def test_a_support_grows_when_returns_pass_it_and_the_critic_keeps_what_it_had_learned():
    torch.manual_seed(0)
    atoms = around(0.0, 10.0, 51)
    spec = DistributionCriticSpec(view_dim=2, n_agents=1, hidden=(32,), n_atoms=51)
    critic, states = DistributionCritic(spec, atoms), torch.rand(400, 2)
    centre = 2 + 6 * states[:, 0]  # bells of a width of their own, and a lottery in every third state
    law = (-0.5 * ((atoms - centre[:, None]) / (0.5 + states[:, 1:])) ** 2).softmax(-1)
    law[::3] = 0.5 * (categorical.dirac(atoms, centre[::3] - 1) + categorical.dirac(atoms, centre[::3] + 1))
    adam = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(300):
        loss = categorical.cross_entropy(law, critic(states, torch.zeros(400, dtype=torch.long))).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    chunk = trajectory(states.view(20, 20, 1, 2), reward=torch.full((19, 20, 1), 0.1))
    chunk.reward[3, 4, 0] = 14.0
    before, predicted = predictions(critic, chunk)
    support = FollowingSupport(critic, fixed=False, exact=False)
    support.started = support.fitted = True
    assert support.follow(chunk, predicted, gamma=1.0)
    after, _ = predictions(critic, chunk)
    assert critic.atoms[1] <= 0 and critic.atoms[-2] >= 14.1
    spacing = float(critic.atoms[1] - critic.atoms[0])
    assert spacing > float(atoms[1] - atoms[0])
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        moved = (after.quantile(level) - before.quantile(level)).abs()
        assert moved.mean() < spacing
    assert (after.mean - before.mean).abs().mean() < 0.1
    assert not support.follow(chunk, predictions(critic, chunk)[1], gamma=1.0)


def predictions(critic: DistributionCritic, chunk: Trajectory):
    """The critic's distributions at all steps but the last, and all that it predicts; nothing ends."""
    with torch.no_grad():
        log_probs = critic(chunk.state, chunk.agent).log_softmax(-1)
        nothing = torch.zeros(chunk.reward.shape, dtype=torch.bool)
        here = critic.distribution(chunk.state[:-1], chunk.agent[:-1])
    return here, Predicted(log_probs, log_probs[1:].exp(), nothing, nothing, ())


def trajectory(state: torch.Tensor, **given: torch.Tensor) -> Trajectory:
    """Of `[T + 1, E, A, S]` states, in which all act and nothing ends, but for what is `given`."""
    shape = state.shape[0] - 1, *state.shape[1:3]
    no = torch.zeros(shape, dtype=torch.bool)
    fields: dict[str, Any] = dict(
        obs=state, state=state, action=torch.zeros(shape, dtype=torch.long), reward=torch.zeros(shape),
        cost=torch.zeros(shape), active=~no, terminated=no, truncated=no, lost=no, begins=no[:, :, 0],
        memory=torch.zeros(*shape[1:], 0), final_obs=torch.zeros(0, 1), final_state=torch.zeros(0, 1),
    )  # fmt: skip
    return Trajectory(**(fields | given))


def test_given_bounds_of_returns_are_kept_and_checked():
    config = default_config("gamble").replace(return_low=-3.0, return_high=9.0, total_timesteps=2048)
    atoms = trained(config).algorithm.critic.atoms
    assert atoms[1] == pytest.approx(-3) and atoms[-2] == pytest.approx(9) and len(atoms) == config.algorithm.n_atoms
    for wrong in (
        {"return_low": 1.0}, {"return_high": 1.0}, {"return_low": 2.0, "return_high": 2.0},
        {"return_low": -1e300, "return_high": 0.0}, {"return_low": 0.0, "return_high": math.inf},
        {"return_low": math.nan, "return_high": 1.0},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="--return-"):
            default_config("gamble").replace(**wrong)


def test_atoms_too_far_apart_for_the_returns_are_said():
    config = default_config("gamble").replace(total_timesteps=4096, tau=5.0)
    coarse = trained(config.replace(return_low=-500.0, return_high=500.0)).algorithm
    assert any("--n-atoms" in warning for warning in coarse.warnings())
    assert not any("--n-atoms" in warning for warning in trained(config).algorithm.warnings())
    neutral = config.replace(return_low=-500.0, return_high=500.0, tau=math.inf)
    assert not any("--n-atoms" in warning for warning in trained(neutral).algorithm.warnings())


def test_a_measure_without_tau_has_no_unit_that_atoms_could_be_too_far_apart_for():
    config = default_config("gamble").replace(
        total_timesteps=4096, return_scale=0.1, return_low=-12.0, return_high=12.0, n_atoms=201
    )
    assert any("unit of --tau" in warning for warning in trained(config.replace(tau=5.0)).algorithm.warnings())
    assert not any("--n-atoms" in warning for warning in trained(config.replace(risk="cvar:0.5")).algorithm.warnings())


def test_a_spread_that_is_seen_no_more_hides_no_atoms_too_far_apart_for_the_unit():
    spec = DistributionCriticSpec(view_dim=1, n_agents=1, hidden=(), n_atoms=51)
    support = FollowingSupport(DistributionCritic(spec, around(-3000.0, 1000.0, 51)), fixed=False, exact=False)
    support.note(0.0, 0.0, std_in_atoms=10.0)
    assert support.warning(None) == support.warning(800.0) == ""
    assert "--n-atoms" in support.warning(1.0)


@pytest.mark.parametrize("algo", ["rqe-mappo", "mappo", "mean-variance"])
def test_a_critic_that_does_not_know_its_returns_is_said(algo):
    settings = default_config("gamble", algo=algo).replace(
        win=104.0, loss=98.0, sure=90.0, win_probability=0.9, total_timesteps=12_000, num_envs=8
    )
    assert trained(settings).algorithm.warnings() == []
    resting = settings.replace(critic_learning_rate=1e-9)
    assert any("does not know its returns" in warning for warning in trained(resting).algorithm.warnings())


class Loop:
    """Returns of episodes, step by step in plain Python: what `EpisodeReturns` is compared with."""

    def __init__(self, gamma: float):
        self.gamma, self.going = gamma, {}

    def observe(self, chunk: Trajectory, value, next_value, terminated, ended) -> list[tuple[int, float, float]]:
        found = []
        for t, e, a in itertools.product(*map(range, chunk.reward.shape)):
            if chunk.begins[t, e]:
                self.going.pop((e, a), None)
            if not chunk.active[t, e, a]:
                continue
            brought, discount, predicted = self.going.get((e, a), (0.0, 1.0, float(value[t, e, a])))
            brought += discount * float(chunk.reward[t, e, a])
            discount *= self.gamma
            self.going[e, a] = brought, discount, predicted
            if ended[t, e, a]:
                del self.going[e, a]
                if not chunk.lost[t, e, a]:
                    rest = 0.0 if terminated[t, e, a] else discount * float(next_value[t, e, a])
                    found.append((a, brought + rest, brought + rest - predicted))
        return found


@pytest.mark.parametrize("gamma", [0.0, 0.7, 1.0])
def test_returns_of_episodes_are_those_of_a_plain_loop_across_trajectories(gamma):
    generator = torch.Generator().manual_seed(3)
    shape, found, loop = (7, 5, 3), [], Loop(gamma)
    episodes = EpisodeReturns(gamma, shape[1:], torch.device("cpu"))
    alive = torch.ones(5, 3, dtype=torch.bool)
    start = torch.ones(5, dtype=torch.bool)

    def chance(p: float) -> torch.Tensor:
        return torch.rand(5, 3, generator=generator) < p

    for _ in range(30):
        rows = {name: torch.zeros(shape, dtype=torch.bool) for name in ("active", "terminated", "truncated", "lost")}
        begins = torch.zeros(7, 5, dtype=torch.bool)
        for t in range(7):
            begins[t] = start
            rows["active"][t] = alive
            rows["terminated"][t] = alive & chance(0.15)
            rows["truncated"][t] = alive & ~rows["terminated"][t] & chance(0.1)
            lost = (torch.rand(5, generator=generator) < 0.03)[:, None] & alive
            rows["lost"][t] = lost & ~rows["terminated"][t] & ~rows["truncated"][t]
            ended = rows["terminated"][t] | rows["truncated"][t] | rows["lost"][t]
            alive = alive & ~ended
            start = ~alive.any(1)
            alive = torch.where(start[:, None], chance(0.8), alive)
        chunk = trajectory(
            torch.zeros(8, 5, 3, 1), begins=begins, reward=torch.randn(shape, generator=generator) + 50, **rows
        )
        value, next_value = torch.randn(2, *shape, generator=generator)
        ended = rows["terminated"] | rows["truncated"] | rows["lost"]
        now = episodes.observe(chunk, value, next_value, rows["terminated"], ended)
        expected = loop.observe(chunk, value, next_value, rows["terminated"], ended)
        assert sum(one.count for one in now) == len(expected)
        found += expected
    assert len(found) > 100
    for agent in range(3):
        gains, errors = np.array([entry[1:] for entry in found if entry[0] == agent]).T
        assert episodes.all[agent].count == len(gains)
        assert episodes.all[agent].mean == pytest.approx(gains.mean(), rel=1e-6)
        assert episodes.all[agent].std == pytest.approx(gains.std(), rel=1e-4)
        # of the latest errors, trajectories weighed by their age
        assert episodes.errors[agent].mean == pytest.approx(errors.mean(), rel=0.1)


def test_a_critic_that_is_wrong_about_one_agent_is_said_though_errors_cancel():
    episodes = EpisodeReturns(1.0, (50, 2), torch.device("cpu"))
    reward = torch.tensor([10.0, -10.0]).expand(1, 50, 2) + torch.randn(1, 50, 2)
    ended = torch.ones(1, 50, 2, dtype=torch.bool)
    chunk = trajectory(torch.zeros(2, 50, 2, 1), reward=reward, begins=ended[..., 0], terminated=ended)
    nothing = torch.zeros(1, 50, 2)
    for _ in range(10):
        episodes.observe(chunk, nothing, nothing, ended, ended)
    assert "does not know its returns" in episodes.warning
    right = EpisodeReturns(1.0, (50, 2), torch.device("cpu"))
    for _ in range(10):
        right.observe(chunk, torch.tensor([10.0, -10.0]).expand(1, 50, 2), nothing, ended, ended)
    assert right.warning == ""


def test_the_std_of_returns_far_from_zero_loses_no_digits():
    rng, moments = np.random.default_rng(0), Moments()
    values = 1e7 + rng.normal(0, 1, (50, 40))
    for row in torch.from_numpy(values):
        moments.add(Moments.of_agents((row[:, None],), torch.ones(40, 1, dtype=torch.bool))[0][0])
    assert moments.std == pytest.approx(values.std(), rel=1e-6) and moments.mean == pytest.approx(values.mean())


class Elsewhere:
    """An environment of which every return, from every step, is `factor` times what it was, and `added` more.

    Rewards change by `added (1 - gamma)` in each step and by `added` in the last.
    """

    def __init__(self, env: Any, factor: float, added: float, gamma: float):
        self.env, self.factor, self.added, self.gamma = env, factor, added, gamma
        self.reward_bounds = self.return_bounds = (-1e5 * factor, 1e5 * factor)  # so wide that all must be seen
        self.reward_step = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        more = self.added * np.where(step.terminated, 1.0, 1 - self.gamma)
        return replace(step, reward=(self.factor * step.reward + more).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["rqe-mappo", "c51-cvar", "mappo", "mean-variance"])
def test_updates_on_cartpole_are_the_same_wherever_returns_lie(algo, monkeypatch):
    def all_atoms(env, gamma, time_limit, n_atoms):  # networks of one size begin with the same weights
        return around(*return_bounds(env, gamma, time_limit), n_atoms)

    monkeypatch.setattr("rqe_mappo.algorithms.support.choose_support", all_atoms)
    config = default_config("cartpole", algo=algo).replace(num_envs=16, num_steps=64, average=0.0, settle=0.0)
    found = {}
    for factor, added in ((1, 0), (1, 100), (1, -100), (1e3, 0), (1e-3, 0)):
        own = {"return_scale": 10.0 * factor, "warmup_fraction": 0.0} if "return_scale" in config.flat() else {}
        config = config.replace(**own)
        env = Elsewhere(vector.make(config, config.num_envs), factor, added, config.gamma)
        env = config.algorithm.wrap(env, config.gamma)
        run = Run.build(config, Path("unused"), env)
        run.collector.start(env.reset(1))
        for update in range(3):
            chunk, _ = run.collector.collect()
            run.algorithm.learn(chunk, Progress(update * 100, 1000))
        found[factor, added] = torch.nn.utils.parameters_to_vector(run.algorithm.actor.parameters()).detach()
    begun = torch.nn.utils.parameters_to_vector(
        Run.build(config, Path("unused"), vector.make(config, 16)).algorithm.actor.parameters()
    )
    moved = (found[1, 0] - begun).norm()
    for where, weights in found.items():
        assert (weights - found[1, 0]).norm() < 0.1 * moved, where
