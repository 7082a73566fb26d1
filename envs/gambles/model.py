"""The gambles as finite games of one player."""

import numpy as np

from rqe_mappo.envs.gambles.config import GambleConfig, PathConfig
from rqe_mappo.envs.tabular.model import FiniteGame

SAFE, RISKY = 0, 1
END = "end"
CHOICE = "choice"  # states where the action matters have names that begin so

Outcomes = list[tuple[float, float, str]]
"""Probability, reward and next state of each outcome."""


def gamble_game(config: GambleConfig | PathConfig) -> FiniteGame:
    """The game of `config`; what the player and the critic see is the one-hot state."""
    states = _path(config) if isinstance(config, PathConfig) else _gamble(config)
    horizon = max(config.long_steps, config.short_steps) if isinstance(config, PathConfig) else len(_stages(config))
    return _game(states, horizon)


def _stages(config: GambleConfig) -> tuple[str, ...]:
    """What happens in the steps of an episode, in order."""
    return {
        "at-once": ("choice",),
        "late": ("choice", *["wait"] * (config.late_steps - 1), "draw"),
        "shown-prize": ("prize", "choice"),
        "hidden-prize": ("prize", "choice"),
        "delayed": ("wait", "choice"),
    }[config.kind]


def _gamble(config: GambleConfig) -> dict[str, tuple[Outcomes, Outcomes]]:
    p, prize = config.win_probability, config.prize_probability
    safe, risky = [(1.0, config.sure, END)], [(p, config.win, END), (1 - p, config.loss, END)]
    if config.kind == "late":
        # "before draw" is the last step but one, "2 before draw" the step before that
        names = [f"{n} before " if n > 1 else "before " for n in range(config.late_steps, 0, -1)]
        states: dict[str, tuple[Outcomes, Outcomes]] = {
            CHOICE: ([(1.0, 0.0, names[0] + "sure")], [(1.0, 0.0, names[0] + "draw")])
        }
        for end, drawn in (("sure", safe), ("draw", risky)):
            nexts = [[(1.0, 0.0, name + end)] for name in names[1:]] + [drawn]
            states |= {name + end: (then, then) for name, then in zip(names, nexts, strict=True)}
        return states
    if config.kind == "delayed":
        wait = [(1.0, 0.0, CHOICE)]
        return {"wait": (wait, wait), CHOICE: (safe, risky)}
    if config.kind == "shown-prize":
        draw = [(prize, config.prize, "choice with prize"), (1 - prize, 0.0, "choice without")]
        return {"prize": (draw, draw), "choice without": (safe, risky), "choice with prize": (safe, risky)}
    if config.kind == "hidden-prize":
        draw = [(prize, config.prize, CHOICE), (1 - prize, 0.0, CHOICE)]
        return {"prize": (draw, draw), CHOICE: (safe, risky)}
    return {CHOICE: (safe, risky)}


def _path(config: PathConfig) -> dict[str, tuple[Outcomes, Outcomes]]:
    step, slip = config.step_reward, config.slip_probability

    def walk(name: str, length: int, chance: float) -> list[Outcomes]:
        """The outcomes of each step of one path."""
        nexts = [f"{name} {i}" for i in range(1, length)] + [END]
        goals = [0.0] * (length - 1) + [config.goal_reward]
        return [
            [(1 - chance, step + goal, following), (chance, step + config.fall_reward, END)]
            for following, goal in zip(nexts, goals, strict=True)
        ]

    long, short = walk("long", config.long_steps, 0.0), walk("short", config.short_steps, slip)
    states = {CHOICE: (long[0], short[0])}
    for name, path in (("short", short), ("long", long)):
        states |= {f"{name} {i}": (outcomes, outcomes) for i, outcomes in enumerate(path) if i > 0}
    return states


def _game(states: dict[str, tuple[Outcomes, Outcomes]], horizon: int) -> FiniteGame:
    """The one-player game that begins in the first of `states`; `END` is added as the only terminal one."""
    names = [*states, END]
    index = {name: i for i, name in enumerate(names)}
    s, k = len(names), max(len(outcomes) for pair in states.values() for outcomes in pair)
    next_state, prob, reward = np.full((s, 2, k), index[END]), np.zeros((s, 2, k)), np.zeros((1, s, 2, k))
    prob[-1, :, 0] = 1.0
    for name, pair in states.items():
        for action, outcomes in enumerate(pair):
            for place, (chance, gained, following) in enumerate(outcomes):
                next_state[index[name], action, place] = index[following]
                prob[index[name], action, place] = chance
                reward[0, index[name], action, place] = gained
    seen = np.eye(s, s - 1, dtype=np.float32)[:, None]
    return FiniteGame(
        players=("player",),
        n_actions=(2,),
        next_state=next_state,
        prob=prob,
        reward=reward,
        terminal=np.arange(s) == s - 1,
        start=(np.arange(s) == 0).astype(float),
        horizon=horizon,
        obs=seen,
        state=seen,
        state_names=tuple(names),
    )
