"""Four theorems on factorised values in numbers: `python -m benchmarks.factorisation` (half a minute).

Writes benchmarks/results/factorisation.csv, one row a number: what theory derives, where it derives one, and what
iterating came to. Thresholds are found by bisection, to 1e-6, of what an iterated run does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import tables, without_options
from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import factored_iteration as fi

RESULT = tables.RESULTS / "factorisation.csv"
GAMMA = 0.99
BAD = [np.array([[0.0, 1.0], [0.0, 0.0]])] * 2  # utilities under which both take the second action


def row(theorem: str, game: str, data: str, what: str, measured: float, derived: float | None = None) -> dict[str, Any]:
    names = {"theorem": theorem, "game": game, "data": data, "what": what}
    return names | {"derived": "" if derived is None else float(derived), "measured": float(measured)}


def one_step(name: str, then: int = 1) -> fi.MultiAgentMDP:
    """A game of common payoffs, then a state that pays 0; with `then` 0 the game again, as if no end were told."""
    payoffs = GAMES[name].payoffs[0]
    transition = np.zeros((2, *payoffs.shape, 2))
    transition[0, ..., then] = transition[1, ..., 1] = 1
    return fi.MultiAgentMDP(np.stack([payoffs, np.zeros_like(payoffs)]), transition, GAMMA)


def random_mdp(rng: np.random.Generator, sizes: tuple[int, ...], n_states: int, gamma: float) -> fi.MultiAgentMDP:
    transition = rng.dirichlet(np.ones(n_states), size=(n_states, *sizes))
    return fi.MultiAgentMDP(rng.normal(size=(n_states, *sizes)), transition, gamma)


def both_first(share: float, n_states: int = 2) -> list[np.ndarray]:
    """Data in which each of two agents takes the first of two actions with this probability."""
    return [np.tile([share, 1 - share], (n_states, 1))] * 2


def long_run(values: np.ndarray) -> float:
    """The mean growth factor of the first state's steps, from the first to the last."""
    steps = np.abs(np.diff(values[:, 0]))
    return float((steps[-1] / steps[0]) ** (1 / (len(steps) - 1)))


def settles(values: np.ndarray) -> bool:
    """Whether the last step is next to nothing: values have converged, and neither run away nor cycle."""
    return bool(np.abs(values[-1] - values[-2]).max() < 1e-6)


def threshold(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds` ends, which it does once between `low` and `high`."""
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def on_policy(
    mdp: fi.MultiAgentMDP, epsilon: float, iterations: int, start: fi.PerAgent | None = None
) -> tuple[np.ndarray, fi.PerAgent]:
    """From the optimum, or from `start`."""
    start = fi.igm_utilities(fi.optimal_table(mdp)) if start is None else start
    return fi.fma_fqi(mdp, start, lambda utilities: fi.epsilon_greedy(utilities, epsilon), iterations)


def fixed_value(mdp: fi.MultiAgentMDP, utilities: fi.PerAgent, data: fi.PerAgent) -> float:
    """The first state's value in the fixed point, attracting or not, of the affine map with these greedy actions."""
    actions = fi.greedy(utilities)
    fit = fi.counterfactual_utilities(mdp.reward, data)
    offset = sum(utility[np.arange(len(utility)), action] for utility, action in zip(fit, actions, strict=True))
    return float(np.linalg.solve(np.eye(len(mdp.reward)) - fi.growth_matrix(mdp, actions, data), offset)[0])


def take(utilities: fi.PerAgent, actions: Sequence[int]) -> bool:
    """Whether these are greedy in the first state."""
    return [int(action[0]) for action in fi.greedy(utilities)] == list(actions)


def credit() -> list[dict[str, Any]]:
    """Theorem 1, and the lecture's table."""
    rows = []
    for sizes in ((4, 3), (2, 3, 4)):
        rng, worst = np.random.default_rng(0), 0.0
        for _ in range(200):
            y = rng.normal(scale=10, size=(3, *sizes))
            data = [rng.dirichlet(np.ones(size), size=3) for size in sizes]
            closed = fi.over_joint_actions(np.add, fi.counterfactual_utilities(y, data))
            fitted = fi.least_squares_sum(y, fi.over_joint_actions(np.multiply, data))
            worst = max(worst, float(np.abs(closed - fitted).max()))
        rows.append(row("1", f"200 random, {len(sizes)} agents", "random product", "largest difference", worst, 0))
    y = GAMES["penalty-2x2"].payoffs[:1]
    same = np.array([[[0.4, 0.1], [0.1, 0.4]]])
    fitted = fi.least_squares_sum(y, same)
    closed = fi.over_joint_actions(np.add, fi.counterfactual_utilities(y, both_first(0.5, 1)))
    for what, found in (("of the fit", fitted), ("of the closed form", closed)):
        data = "the same action with probability 0.8"
        rows.append(row("1", "penalty-2x2", data, f"squared error {what}", (same * (found - y) ** 2).sum()))
    data_of = (("penalty-2x2", 1 / 2), ("penalty-2x2", 1 / 3), ("penalty-2x2", 21 / 64), ("penalty-3x3", 1 / 3))
    for name, share in data_of:
        y = GAMES[name].payoffs[:1]
        rest = y.shape[-1] - 1
        data = [np.array([[share] + [(1 - share) / rest] * rest])] * 2
        table = fi.least_squares_sum(y, fi.over_joint_actions(np.multiply, data))[0]
        p = share
        derived = (-32 * p**2 + 64 * p - 24, -32 * p**2 + 32 * p - 12, -32 * p**2)
        for (a, b), number in zip(((0, 0), (0, 1), (1, 1)), derived, strict=True):
            rows.append(row("1", name, f"P(a) = {share:.3g}", f"sum at {'abc'[a]}, {'abc'[b]}", table[a, b], number))
    y = GAMES["penalty-2x2"].payoffs[:1]
    good = threshold(lambda p: not take(fi.counterfactual_utilities(y, both_first(p, 1)), (0, 0)), 0, 1)
    rows.append(row("1", "penalty-2x2", "product", "P(a) from which a, a is greedy", good, 3 / 8))
    return rows


def off_policy() -> list[dict[str, Any]]:
    """Theorem 3."""
    mdp, rows = fi.leaving_game(GAMMA), []
    start = fi.igm_utilities(fi.optimal_table(mdp))
    for share in (0.5, 0.1, 0.9):
        data = both_first(share)
        values, utilities = fi.fma_fqi(mdp, start, lambda _, data=data: data, 1000)
        text, derived = f"P(a) = {share}", GAMMA * (1 + (1 - share) ** 2)
        radius, still = fi.growth_factor(mdp, fi.greedy(utilities), data), 1 / (1 - derived)
        last = still + (1 / (1 - GAMMA) - still) * derived**1000
        rows += [
            row("3", "leaving", text, "spectral radius", radius, derived),
            row("3", "leaving", text, "growth an iteration, over 1000", long_run(values), derived),
            row("3", "leaving", text, "value at first", values[0, 0], 1 / (1 - GAMMA)),
            row("3", "leaving", text, "value after 1000", values[-1, 0], last),
            row("3", "leaving", text, "value that the map leaves as it is", fixed_value(mdp, utilities, data), still),
        ]
    rng, settled, largest = np.random.default_rng(0), 0, 0.0
    uniform = [np.full((4, 3), 1 / 3)] * 2
    for _ in range(100):
        mdp = fi.MultiAgentMDP(rng.normal(size=(4, 3, 3)), np.eye(4)[rng.integers(4, size=(4, 3, 3))], GAMMA)
        start = fi.igm_utilities(fi.optimal_table(mdp))
        values, _ = fi.fma_fqi(mdp, start, lambda _: uniform, 2000)
        settled += settles(values)
        largest = max(largest, float(np.abs(values).max() / np.abs(values[0]).max()))
    rows.append(row("3", "100 random, deterministic", "uniform", "share that settles", settled / 100))
    rows.append(row("3", "100 random, deterministic", "uniform", "largest value, over that at first", largest))
    return rows


def near_the_optimum() -> list[dict[str, Any]]:
    """Theorem 2."""
    mdp, rows = fi.leaving_game(GAMMA), []
    still = threshold(lambda epsilon: long_run(on_policy(mdp, epsilon, 100)[0]) < 1, 0.01, 1)
    rows.append(
        row("2", "leaving", "on-policy", "epsilon up to which values converge", still, 2 * (1 / GAMMA - 1) ** 0.5)
    )
    for epsilon in (0.01, 0.05, 0.1):
        value = on_policy(mdp, epsilon, 4000)[0][-1, 0]
        derived = 1 / (1 - GAMMA * (1 + epsilon**2 / 4))
        rows.append(row("2", "leaving", f"on-policy, epsilon = {epsilon}", "value", value, derived))
    for name, exact in (("penalty-3x3", 15 / 16), ("penalty-3x3-hard", 6 / 7)):
        game = one_step(name)
        stays = threshold(lambda epsilon, game=game: take(on_policy(game, epsilon, 5)[1], (0, 0)), 0, 1)
        rows.append(row("2", name, "on-policy", "epsilon up to which a, a stays", stays, exact))
    game = one_step("penalty-2x2")
    stays = threshold(lambda epsilon: take(on_policy(game, epsilon, 5, BAD)[1], (1, 1)), 0, 1)
    rows.append(row("2", "penalty-2x2", "on-policy", "epsilon up to which b, b stays", stays, 3 / 4))
    rows.append(
        row(
            "2",
            "penalty-2x2",
            "on-policy, epsilon = 1",
            "whether a, a stays",
            take(on_policy(game, 1, 5)[1], (0, 0)),
            1,
        )
    )
    rng = np.random.default_rng(0)
    games = [random_mdp(rng, (3, 3), 4, 0.9) for _ in range(100)]
    for epsilon in (0.01, 0.1, 0.2, 0.5, 1.0):
        kept, settled, errors = 0, 0, []
        for mdp in games:
            optimum = fi.optimal_table(mdp)
            values, utilities = on_policy(mdp, epsilon, 200)
            pairs = zip(fi.greedy(utilities), fi.greedy(fi.igm_utilities(optimum)), strict=True)
            kept += settles(values) and all((own == right).all() for own, right in pairs)
            settled += settles(values)
            errors.append(np.abs(values[-1] - fi.best(optimum)).max() / np.abs(fi.best(optimum)).max())
        text = f"on-policy, epsilon = {epsilon}"
        rows.append(row("2", "100 random", text, "share that settles with all optimal actions", kept / len(games)))
        rows.append(row("2", "100 random", text, "median relative error of values", float(np.median(errors))))
        rows.append(row("2", "100 random", text, "share that settles", settled / len(games)))
    return rows


def any_table_with_igm() -> list[dict[str, Any]]:
    """Theorem 4, and what becomes of values where the end of an episode is not told."""
    rows = []
    for sizes in ((3, 3), (2, 3, 2)):
        rng, ratio = np.random.default_rng(0), 0.0
        for _ in range(100):
            mdp = random_mdp(rng, sizes, 4, 0.9)
            optimum = fi.optimal_table(mdp)
            table = optimum + rng.normal(scale=100, size=optimum.shape)
            for _ in range(50):
                following = fi.fqi_igm_step(mdp, table)
                ratio = max(ratio, float(np.abs(following - optimum).max() / np.abs(table - optimum).max()))
                table = following
        rows.append(row("4", f"100 random, {len(sizes)} agents", "any", "largest ratio of distances to Q*", ratio, 0.9))
    mdp = fi.leaving_game(GAMMA)
    table = np.zeros((2, 2, 2))
    for _ in range(1000):
        table = fi.fqi_igm_step(mdp, table)
    rows.append(row("4", "leaving", "any", "value after 1000, from 0", table[0].max(), (1 - GAMMA**1000) / (1 - GAMMA)))
    for then, text in ((1, "with its end"), (0, "without its end")):
        value = fi.optimal_table(one_step("penalty-2x2", then))[0].max()
        rows.append(row("4", f"penalty-2x2 {text}", "any", "value", value, 8 if then else 8 / (1 - GAMMA)))
    return rows


def main() -> None:
    without_options(__doc__)
    rows = [*credit(), *near_the_optimum(), *off_policy(), *any_table_with_igm()]
    tables.write(RESULT, rows)
    for each in rows:
        print(" | ".join(f"{value:.7g}" if isinstance(value, float) else str(value) for value in each.values()))


if __name__ == "__main__":
    main()
