"""What `rqe-solve --robust` says: a finite game solved in the worst case, beside the neutral solution."""

import functools
import math
from typing import Any

import numpy as np

from rqe_mappo import registry
from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular
from rqe_mappo.envs.tabular.model import FiniteGame
from rqe_mappo.equilibrium.robust_iteration import Over, WorstCase, finite_horizon
from rqe_mappo.functional import robust

SETS = {
    "contamination": robust.contaminated,
    "l1": robust.l1_ball,
    "kl": robust.kl_ball,
    "kl-penalty": robust.kl_penalty,
}
SPELLED = "contamination:DELTA, l1:RADIUS, kl:RADIUS or kl-penalty:TAU"


def worst_case(text: str) -> WorstCase:
    """The inner problem that `--robust` names; ValueError for what is none."""
    kind, _, digits = text.partition(":")
    try:
        number = float(digits)
        if kind not in SETS or math.isnan(number):
            raise ValueError
    except ValueError:
        raise ValueError(f"--robust {text} is unknown: use {SPELLED}, for example --robust l1:0.2") from None
    return lambda values, probs: SETS[kind](values, probs, number)


def named_game(name: str, scenario: str) -> FiniteGame:
    """The finite game of an environment; ValueError where it has none."""
    entry = registry.environment(name)
    factory, scenarios = registry.load(entry.factory), registry.scenarios(name)
    if not (isinstance(factory, type) and issubclass(factory, BatchedTabular)):
        raise ValueError(f"--robust needs an environment that is a finite game, such as gamble or cliff (got {name})")
    if scenario not in scenarios:
        raise ValueError(f"--scenario {scenario} is unknown: use {', '.join(scenarios)}")
    return factory(scenarios[scenario], 1).game


def solve_robust(name: str, scenario: str, spelled: str, gamma: float, over: Over) -> dict[str, Any]:
    """All that is printed, for --json. `policy` holds joint actions by step and state, `first` those of each player."""
    if not 0 <= gamma <= 1:
        raise ValueError(f"--gamma must be in [0, 1] (got {gamma:g})")
    worst = worst_case(spelled)
    game = named_game(name, scenario)
    neutral = functools.partial(robust.contaminated, delta=0.0)
    solve = functools.partial(finite_horizon, game, gamma=gamma, over=over)
    try:
        found = solve(worst)
    except ValueError as error:
        raise ValueError(f"--robust {spelled}: {error}") from None
    mean = solve(neutral)
    states = np.flatnonzero(game.start)

    def first(policy: np.ndarray) -> dict[str, list[int]]:
        chosen = np.stack(np.unravel_index(policy[0, states], game.n_actions), -1)
        names = [game.state_names[state] if game.state_names else str(state) for state in states]
        return dict(zip(names, chosen.tolist(), strict=True))

    return {
        "game": name, "scenario": scenario, "robust": spelled, "over": over, "gamma": gamma, "horizon": game.horizon,
        "worst_case": {
            "robust": found.start_value, "neutral": solve(worst, policy=mean.policy).start_value,
        },
        "nominal": {
            "robust": solve(neutral, policy=found.policy).start_value, "neutral": mean.start_value,
        },
        "first": {"robust": first(found.policy), "neutral": first(mean.policy)},
        "values": found.values[0].tolist(),
        "policy": found.policy.tolist(),
    }  # fmt: skip


def describe(content: dict[str, Any]) -> str:
    """The same as text, without the tables."""
    steps = f"{content['horizon']} step{'s' * (content['horizon'] > 1)}"
    lines = [
        f"{content['game']}, {content['scenario']}: {content['robust']} over {content['over']}, "
        f"gamma {content['gamma']:g}, at most {steps}",
        "",
        "policy    worst case     nominal  first actions",
    ]
    for policy in ("robust", "neutral"):
        chosen = content["first"][policy]
        shown = "; ".join(f"{state}: {', '.join(map(str, actions))}" for state, actions in list(chosen.items())[:3])
        more = "; ..." if len(chosen) > 3 else ""
        worst, nominal = (content[case][policy] for case in ("worst_case", "nominal"))
        lines.append(f"{policy:<8} {worst:11.4f} {nominal:11.4f}  {shown}{more}")
    return "\n".join(lines)
