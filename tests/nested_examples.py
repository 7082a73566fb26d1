"""Small games whose nested values are known, and what the learner makes of them."""

from pathlib import Path

import numpy as np
import torch

from rqe_mappo.config import default_config
from rqe_mappo.envs.tabular import BatchedTabular, FiniteGame, nested_values, return_distribution
from rqe_mappo.functional.risk import parse_risk
from rqe_mappo.training.run import Run

SURE, GAMBLE = 0, 1
UNIT = 3.0  # of tau, about the std of returns
UPDATES, COPIES = 160, 512


def risk_of(risk, tau):
    """The unclipped measure, of an outcome's values and probabilities."""
    measure = parse_risk(risk, tau, clip=None)

    def value(values, probs):
        return float(measure.value(torch.from_numpy(values), torch.from_numpy(probs).log()))

    return value


def two_coins(sure=0.0, payoffs=((-6.0, 2.0), (2.0, 6.0))):
    """A sure reward two steps late, or two coins, thrown one after the other and then paid by `payoffs`.

    Beside the end the states are the choice, the wait, the first coin, and the second after tails and after heads.
    """
    states, outcomes = 7, 2
    choice, wait, first, tails, heads, paid, end = range(states)
    next_state, prob = np.full((states, 2, outcomes), end), np.zeros((states, 2, outcomes))
    reward = np.zeros((1, states, 2, outcomes))
    prob[..., 0] = 1.0
    next_state[choice] = [[wait] * 2, [first] * 2]
    next_state[wait] = paid
    reward[0, paid] = sure
    for coin, following in ((first, [tails, heads]), (tails, [end, end]), (heads, [end, end])):
        prob[coin], next_state[coin] = 0.5, following
    reward[0, tails], reward[0, heads] = payoffs
    seen = np.eye(states, states - 1, dtype=np.float32)[:, None]
    return FiniteGame(
        ("player",), (2,), next_state, prob, reward, np.arange(states) == end,
        (np.arange(states) == choice).astype(float), 3, seen, seen,
    )  # fmt: skip


def always(game, action):
    """The policy that takes one action everywhere."""
    return [np.eye(2)[np.full(game.n_states, action)]]


def nested(game, policy, risk, tau, gamma):
    """Exact nested values of the states where something can still happen, as at the first step that they are met."""
    value = nested_values(game, policy, risk_of(risk, tau), gamma=gamma)
    return value[0, ~game.terminal]


def static(game, policy, risk, tau, gamma):
    """The measure's value of the whole return."""
    return risk_of(risk, tau)(*return_distribution(game, policy, gamma=gamma))


def learned(game, risk, tau, gamma, lam, act=True, **settings):
    """A finished run of `--advantage nested`; `act` False: of the uniform policy, which does not change."""
    torch.set_num_threads(1)
    env = BatchedTabular(game, COPIES)
    config = default_config("gamble").replace(
        risk=risk, tau=tau / UNIT, eps=0.0, advantage="nested", gamma=gamma, gae_lambda=lam, num_envs=COPIES,
        num_steps=game.horizon, total_timesteps=UPDATES * COPIES * game.horizon, num_minibatches=1, update_epochs=2,
        return_scale=UNIT, learning_rate=0.05 if act else 1e-9, norm_adv=True, critic_first=0.5, critic_epochs=4,
        n_atoms=61, critic_learning_rate=0.03, risk_clip=20.0,
    ).replace(**settings)  # fmt: skip
    run = Run.build(config, Path(), env)
    run.collector.start(env.reset(config.seed))
    while run.step < config.total_timesteps:
        chunk, _ = run.collector.collect()
        run.algorithm.learn(chunk, run.progress)
        run.step += int(chunk.active.sum())
    return run


def learned_values(run, game):
    """V of every state in which something can still happen."""
    states = torch.from_numpy(game.state[~game.terminal, 0])
    agent = torch.zeros(len(states), dtype=torch.int64)
    algorithm = run.algorithm
    with torch.no_grad():
        value = algorithm.critic.mean(states, agent)
        if algorithm.nested is not None:
            value = value - UNIT * algorithm.nested.premium(states, agent)[:, 0]
    return value.numpy()


def probability_of_gambling(run, game):
    with torch.no_grad():
        logits = run.algorithm.actor.logits(torch.from_numpy(game.obs[:1, 0]), torch.zeros(1, dtype=torch.int64))
    return logits.softmax(-1)[0, GAMBLE].item()
