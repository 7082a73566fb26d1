"""The kitchen: its rules as a loop and by hand, exact best plans, and what scripted cooks reach."""

from dataclasses import replace

import numpy as np
import pytest

from rqe_mappo import cli
from rqe_mappo.envs.kitchen import SCENARIOS, Kitchen, KitchenConfig, batched_kitchen
from rqe_mappo.envs.kitchen.dynamics import DOWN, LEFT, RIGHT, STATIONS, STAY, UP
from rqe_mappo.envs.kitchen.scripted import by_name, planned
from rqe_mappo.evaluation.episodes import run_episodes

DEFAULT = SCENARIOS["default"]
FIRST_FIRST = [0.2, 0.7]  # numbers that put cook_0 before cook_1
MOVES = {STAY: (0, 0), UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}
SUPPLIED = replace(DEFAULT, respawn_probability=1.0)


class Loop:
    """One copy after the description, cook by cook."""

    def __init__(self, game: Kitchen, copy: int):
        self.config = game.config
        self.where = [divmod(int(cell), 5) for cell in game.cells[copy]]
        self.carrying, self.stocked = game.carrying[copy].tolist(), game.stocked[copy].tolist()

    def step(self, actions, uniform) -> list[float]:
        config, cooks = self.config, range(len(self.where))
        rewards = [0.0 for _ in cooks]
        for who in sorted(cooks, key=lambda cook: uniform[cook]):
            if actions[who] != STAY:
                rewards[who] -= config.move_cost
            row, column = (min(max(p + d, 0), 4) for p, d in zip(self.where[who], MOVES[actions[who]], strict=True))
            if (row, column) == (2, 2):
                if self.carrying[who]:
                    self.carrying[who] = False
                    rewards = [reward + config.delivery_reward for reward in rewards]
                continue
            if any(self.where[other] == (row, column) for other in cooks if other != who):
                rewards[who] -= config.collision_cost
                continue
            self.where[who] = row, column
            for station, place in enumerate([(3, 4), (4, 3)]):
                if self.where[who] == place and self.stocked[station] and not self.carrying[who]:
                    self.carrying[who], self.stocked[station] = True, False
                    rewards = [reward + config.pickup_reward for reward in rewards]
        for station in range(2):
            if uniform[len(self.where) + station] < config.respawn_probability:
                self.stocked[station] = True
        return rewards


@pytest.mark.parametrize("cooks", [1, 2, 4, 6])
def test_the_batch_follows_the_loop_step_by_step(cooks):
    """From states of all kinds, each stepped once."""
    copies, rng = 2000, np.random.default_rng(cooks)
    game = Kitchen(replace(DEFAULT, n_agents=cooks, move_cost=0.3, pickup_reward=1.5), copies)
    free = np.array([cell for cell in range(25) if cell != 12])
    game.cells[...] = free[rng.random((copies, 24)).argsort(1)[:, :cooks]]
    game.carrying[...], game.stocked[...] = rng.random((copies, cooks)) < 0.5, rng.random((copies, 2)) < 0.7
    loops = [Loop(game, copy) for copy in range(copies)]
    actions, uniform = rng.integers(0, 5, (copies, cooks)), rng.random((copies, game.step_draws))
    played = game.play(actions, uniform)
    for copy, loop in enumerate(loops):
        assert played.reward[copy].tolist() == pytest.approx(loop.step(actions[copy], uniform[copy]))
        assert [divmod(int(cell), 5) for cell in game.cells[copy]] == loop.where
        assert game.carrying[copy].tolist() == loop.carrying and game.stocked[copy].tolist() == loop.stocked
    met = {name: count.sum() for name, count in played.counts.items()}
    assert met["pickups"] > 10 and met["deliveries"] > 10 and (met["collisions"] > 10 or cooks == 1)


def test_onions_and_cooks_are_conserved():
    env, rng = batched_kitchen(replace(DEFAULT, n_agents=5, respawn_probability=0.6), 200), np.random.default_rng(0)
    env.reset(0)
    for _ in range(49):
        actions = by_name("greedy", 1)(env)
        env.step(np.where(rng.random(actions.shape) < 0.2, rng.integers(0, 5, actions.shape), actions))
        held = env.game.carrying.sum(1)
        np.testing.assert_array_equal(env.counts["pickups"], env.counts["deliveries"] + held)
        assert (np.diff(np.sort(env.game.cells, axis=1), axis=1) > 0).all() and (env.game.cells != 12).all()
        own = sum(env.counts[f"delivered_{cook}"] for cook in range(5))
        np.testing.assert_array_equal(own, env.counts["deliveries"])
    assert env.counts["deliveries"].min() > 0


def placed(cells: list[int], carrying: list[bool] | None = None, **settings) -> Kitchen:
    """One copy with its cooks in these cells."""
    game = Kitchen(replace(DEFAULT, n_agents=len(cells), **settings), 1)
    game.cells[0], game.carrying[0] = cells, carrying or [False] * len(cells)
    return game


def played(game: Kitchen, actions: list[int], order: list[float], respawn: float = 0.99) -> list[float]:
    return game.play(np.array([actions]), np.array([[*order, respawn, respawn]])).reward[0].tolist()


def test_the_first_to_act_has_the_cell_and_the_second_pays_for_it():
    assert played(placed([6, 8]), [RIGHT, LEFT], [0.2, 0.7]) == pytest.approx([-0.2, -2.2])
    assert played(placed([6, 8]), [RIGHT, LEFT], [0.7, 0.2]) == pytest.approx([-2.2, -0.2])


def test_cooks_can_follow_but_not_change_places():
    game = placed([6, 7])
    assert played(game, [RIGHT, RIGHT], [0.7, 0.2]) == pytest.approx([-0.2, -0.2]) and game.cells.tolist() == [[7, 8]]
    assert played(placed([6, 7]), [RIGHT, RIGHT], [0.2, 0.7]) == pytest.approx([-2.2, -0.2])
    game = placed([6, 7])
    assert played(game, [RIGHT, LEFT], FIRST_FIRST) == pytest.approx([-2.2, -2.2]) and game.cells.tolist() == [[6, 7]]


def test_walking_into_the_pot_delivers_and_costs_a_move():
    game = placed([7, 24], [True, False])
    assert played(game, [DOWN, STAY], FIRST_FIRST) == pytest.approx([9.8, 10]) and game.cells[0, 0] == 7
    assert not game.carrying.any()
    assert played(game, [DOWN, STAY], FIRST_FIRST) == pytest.approx([-0.2, 0])  # with nothing, for nothing


def test_who_waits_on_an_empty_station_takes_the_onion_that_comes():
    game = placed([19, 0])
    game.stocked[...] = False
    assert played(game, [STAY, STAY], FIRST_FIRST, respawn=0.19) == [0, 0] and game.stocked.all()
    assert played(game, [STAY, STAY], FIRST_FIRST, respawn=0.2) == [1, 1]
    assert game.carrying.tolist() == [[True, False]] and game.stocked.tolist() == [[False, True]]
    assert played(game, [STAY, STAY], FIRST_FIRST, respawn=0.19) == [0, 0] and game.stocked.all()
    assert played(game, [STAY, STAY], FIRST_FIRST) == [0, 0] and game.stocked.all()  # one onion a cook


def test_walls_stop_cooks_without_a_collision():
    game = placed([0, 24])
    assert played(game, [UP, RIGHT], FIRST_FIRST) == pytest.approx([-0.2, -0.2]) and game.cells.tolist() == [[0, 24]]


def test_an_onion_comes_as_often_as_the_setting_says():
    game = Kitchen(DEFAULT, 20_000)
    game.begin(np.random.default_rng(0).random((20_000, 2)))
    game.stocked[...] = False
    game.play(np.zeros((20_000, 2), int), np.random.default_rng(1).random((20_000, 4)))
    assert game.stocked.mean(0) == pytest.approx([0.2, 0.2], abs=0.01)


def test_cooks_see_themselves_first_and_the_others_in_their_order():
    game = placed([1, 19, 5], [False, True, False])
    game.stocked[0] = [True, False]
    own, second, third = [0, 0.25, 0], [0.75, 1, 1], [0.25, 0, 0]
    rows = [[*own, *second, *third], [*second, *own, *third], [*third, *own, *second]]
    np.testing.assert_array_equal(game.obs()[0], [[*row, 1, 0] for row in rows])
    np.testing.assert_array_equal(game.state(), game.obs())


def test_both_starts_are_drawn_alike():
    game = Kitchen(DEFAULT, 4000)
    game.begin(np.random.default_rng(0).random((4000, 2)))
    assert set(map(tuple, game.cells.tolist())) == {(1, 5), (5, 1)} and abs((game.cells[:, 0] == 1).mean() - 0.5) < 0.03


def test_bounds_are_those_of_a_cook_who_pushes_another_and_of_onions_without_end():
    env = batched_kitchen(DEFAULT, 1)
    assert env.return_bounds == (pytest.approx(-110), 220) and env.reward_step == 0.2 and not env.common_reward
    env.reset(0)
    env.game.cells[...] = [[0, 1]]
    for _ in range(50):
        step = env.step(np.array([[RIGHT, STAY]]))
    assert step.episodes["return"].tolist() == [[pytest.approx(env.return_bounds[0]), 0]]
    assert step.episodes["collisions"].tolist() == [50] and step.episodes["cost"].tolist() == [[50, 0]]
    assert batched_kitchen(KitchenConfig(n_agents=1), 1).common_reward


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_agents", 0), ("n_agents", 7), ("horizon", 0), ("horizon", 2.5), ("respawn_probability", 1.5),
     ("move_cost", -0.1), ("collision_cost", float("nan")), ("pickup_reward", 1e9), ("delivery_reward", -1.0)],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]*\\(got [^\n]*\\)$"):
        KitchenConfig(**{name: value})


# What can be reached


def returns(config: KitchenConfig, name: str, episodes: int = 1000) -> np.ndarray:
    """Of each cook, `[episodes, 2]`, under a scripted policy."""
    driver = by_name(name, 1)
    records, _ = run_episodes(batched_kitchen(config, episodes), lambda env, seen: driver(env), 1, seed=1)
    return records["return"]


@pytest.mark.slow
def test_one_cook_with_onions_without_end_makes_nine_trips():
    """Onions at steps 6, 11, ..., 46, deliveries at 9, 14, ..., 49, 49 moves: 9 + 90 - 9.8, and 99 for the other."""
    assert planned(SUPPLIED, solo=True)[0] == pytest.approx(89.2 + 99)
    np.testing.assert_allclose(returns(SUPPLIED, "solo", 4), [[89.2, 99]] * 4)


@pytest.mark.slow
def test_two_cooks_with_onions_without_end_are_worth_twice_one_alone():
    """Nine trips each, without ever being in each other's way."""
    assert planned(SUPPLIED)[0] == pytest.approx(2 * (2 * 99 - 9.8))
    np.testing.assert_allclose(returns(SUPPLIED, "plan", 4).sum(1), [376.4] * 4)


@pytest.mark.slow
@pytest.mark.parametrize(("solo", "value"), [(False, 304.270), (True, 184.152)], ids=["two cooks", "one alone"])
def test_the_best_plan_is_worth_what_backward_induction_says_and_no_script_more(solo, value):
    assert planned(DEFAULT, solo)[0] == pytest.approx(value, abs=1e-3)
    found = returns(DEFAULT, "solo" if solo else "plan").sum(1)
    assert abs(found.mean() - value) < 4 * found.std() / len(found) ** 0.5
    assert returns(DEFAULT, "greedy").sum(1).mean() < planned(DEFAULT)[0] - 20


def test_cooks_who_do_nothing_get_nothing_and_those_who_act_at_random_lose():
    assert not returns(DEFAULT, "stay", 2).any()
    assert -9 < returns(DEFAULT, "random").mean() < -6


def test_plans_are_for_two_cooks():
    env = batched_kitchen(replace(DEFAULT, n_agents=3), 1)
    env.reset(0)
    with pytest.raises(ValueError, match=r"^--driver plan and solo are for --n-agents 2 \(got 3\): use greedy$"):
        by_name("plan")(env)


def test_rqe_eval_measures_a_driver(capsys):
    cli.evaluate(["kitchen", "--driver", "greedy", "--episodes", "4", "--n-agents", "3", "--horizon", "20"])
    shown = capsys.readouterr().out
    assert "deliveries" in shown and "collisions" in shown and "delivered 2" in shown.replace("_", " ")


def test_stations_are_two_steps_from_the_pot():
    """As the upper bound has it: two moves from a station, the delivery, and two moves back."""
    for station in STATIONS:
        row, column = divmod(int(station), 5)
        assert abs(row - 2) + abs(column - 2) == 3
