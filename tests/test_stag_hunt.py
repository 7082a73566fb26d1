"""The dynamic stag hunt: its rules as a loop and by hand, and exact best plans."""

from dataclasses import replace

import numpy as np
import pytest

from rqe_mappo import cli
from rqe_mappo.envs.stag_hunt import SCENARIOS, StagHunt, StagHuntConfig, batched_hunt
from rqe_mappo.envs.stag_hunt.dynamics import DOWN, HARE, LEFT, MAP, MEET, NOTHING, RIGHT, STAG, STARTS, STAY, UP
from rqe_mappo.envs.stag_hunt.scripted import by_name, planned
from rqe_mappo.evaluation.episodes import run_episodes

DEFAULT = SCENARIOS["default"]
MOVES = {STAY: (0, 0), UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1), MEET: (0, 0)}
KINDS = {".": NOTHING, "n": NOTHING, "S": STAG, "H": HARE}


def cell(row: int, column: int) -> int:
    return 7 * row + column


def after(config: StagHuntConfig, cells, carried, actions) -> tuple:
    """One step after the description: places, what is carried, rewards, and whether they met."""
    there = []
    for here, action in zip(cells, actions, strict=True):
        row, column = (p + d for p, d in zip(divmod(int(here), 7), MOVES[action], strict=True))
        there.append((row, column) if 0 <= row < 7 and 0 <= column < 7 else divmod(int(here), 7))
    if there[0] == there[1]:
        there = [divmod(int(here), 7) for here in cells]
    carried = [KINDS[MAP[row][column]] or old for (row, column), old in zip(there, carried, strict=True)]
    near = abs(there[0][0] - there[1][0]) + abs(there[0][1] - there[1][1]) == 1
    if MEET not in actions or not near or NOTHING in carried:
        return [cell(*place) for place in there], carried, [0.0, 0.0], False
    stags = carried.count(STAG)
    paid = {HARE: config.hare_reward, STAG: config.stag_reward if stags == 2 else config.alone_reward}
    return None, [NOTHING, NOTHING], [paid[kind] for kind in carried], True


def test_the_batch_follows_the_description_step_by_step():
    """From states of all kinds, each stepped once."""
    copies, rng = 10_000, np.random.default_rng(0)
    config = StagHuntConfig(stag_reward=5, hare_reward=1.5, alone_reward=-1)
    game = StagHunt(config, copies)
    first = rng.integers(0, 49, copies)
    game.cells[...] = np.stack([first, (first + np.array([1, 7, 8, 14, 2, 20])[rng.integers(0, 6, copies)]) % 49], 1)
    game.carried[...] = rng.integers(0, 3, (copies, 2))
    cells, carried = game.cells.tolist(), game.carried.tolist()
    actions = rng.integers(0, 6, (copies, 2))
    played, met = game.play(actions, rng.random((copies, 2))), 0
    for copy in range(copies):
        places, kept, rewards, meeting = after(config, cells[copy], carried[copy], actions[copy].tolist())
        assert played.reward[copy].tolist() == rewards and game.carried[copy].tolist() == kept
        assert played.counts["meetings"][copy] == meeting
        assert meeting or game.cells[copy].tolist() == places
        assert not meeting or {*game.cells[copy].tolist()} <= {*STARTS.tolist()}
        met += meeting
    kinds = [played.counts[name].sum() for name in ("both_stag", "both_hare", "one_stag")]
    assert sum(kinds) == met and min(kinds) > 50
    np.testing.assert_array_equal(played.cost.sum(1), played.counts["one_stag"])


def test_the_map_is_the_published_one():
    rows = ["".join(row) for row in MAP]
    assert "".join(rows).count("S") == "".join(rows).count("H") == "".join(rows).count("n") == 4
    assert rows == rows[::-1] == [row[::-1] for row in rows]


def placed(cells: list[int], carried: list[int], **settings) -> StagHunt:
    game = StagHunt(replace(DEFAULT, **settings), 1)
    game.cells[0], game.carried[0] = cells, carried
    return game


@pytest.mark.parametrize(
    ("carried", "paid", "cost"),
    [([STAG, STAG], [4, 4], [0, 0]), ([STAG, HARE], [0, 2], [1, 0]), ([HARE, STAG], [2, 0], [0, 1]),
     ([HARE, HARE], [2, 2], [0, 0])],
    ids=["stags", "stag and hare", "hare and stag", "hares"],
)  # fmt: skip
@pytest.mark.parametrize("actions", [[MEET, MEET], [MEET, STAY], [STAY, MEET]], ids=["both", "first", "second"])
def test_a_meeting_pays_whoever_asks_for_it(carried, paid, cost, actions):
    game = placed([cell(3, 3), cell(3, 4)], carried)
    played = game.play(np.array([actions]), np.array([[0.3, 0.6]]))
    assert played.reward[0].tolist() == paid and played.cost[0].tolist() == cost
    assert game.carried.tolist() == [[NOTHING, NOTHING]] and {*game.cells[0].tolist()} < {*STARTS.tolist()}


@pytest.mark.parametrize(
    ("cells", "carried", "actions"),
    [
        ([cell(3, 3), cell(4, 4)], [STAG, STAG], [MEET, MEET]),
        ([cell(3, 3), cell(3, 5)], [STAG, STAG], [MEET, MEET]),
        ([cell(3, 3), cell(3, 4)], [STAG, NOTHING], [MEET, MEET]),
        ([cell(3, 3), cell(3, 4)], [STAG, STAG], [STAY, STAY]),
        ([cell(3, 3), cell(3, 4)], [STAG, STAG], [MEET, RIGHT]),
        ([cell(3, 6), cell(4, 0)], [STAG, STAG], [MEET, MEET]),  # cells that follow each other, in different rows
    ],
    ids=["diagonal", "apart", "empty-handed", "not asked for", "walking away", "around the edge"],
)
def test_nobody_meets_otherwise(cells, carried, actions):
    played = placed(cells, carried).play(np.array([actions]), np.array([[0.3, 0.6]]))
    assert not played.reward.any() and not played.counts["meetings"].any()


def test_who_walks_up_to_the_other_and_over_game_on_the_way_meets_in_the_same_step():
    game = placed([cell(2, 1), cell(3, 2)], [NOTHING, HARE])
    assert game.play(np.array([[STAY, LEFT]]), np.array([[0.3, 0.6]])).reward[0].tolist() == [0, 0]
    assert game.carried.tolist() == [[HARE, HARE]]
    game = placed([cell(2, 1), cell(3, 2)], [HARE, NOTHING])
    game.carried[0, 1] = STAG
    assert game.play(np.array([[MEET, LEFT]]), np.array([[0.3, 0.6]])).reward[0].tolist() == [2, 0]


def test_game_is_swapped_by_walking_over_another_kind_and_never_runs_out():
    game = placed([cell(0, 0), cell(6, 6)], [HARE, NOTHING])
    game.play(np.array([[RIGHT, STAY]]), np.zeros((1, 2)))
    assert game.carried.tolist() == [[STAG, NOTHING]]
    game.play(np.array([[RIGHT, STAY]]), np.zeros((1, 2)))
    game.play(np.array([[LEFT, STAY]]), np.zeros((1, 2)))
    assert game.carried.tolist() == [[STAG, NOTHING]] and game.cells[0, 0] == cell(0, 1)


def test_hunters_change_places_but_do_not_share_one():
    game = placed([cell(3, 2), cell(3, 3)], [NOTHING, NOTHING])
    game.play(np.array([[RIGHT, LEFT]]), np.zeros((1, 2)))
    assert game.cells.tolist() == [[cell(3, 3), cell(3, 2)]]
    game = placed([cell(3, 2), cell(3, 4)], [NOTHING, NOTHING])
    game.play(np.array([[RIGHT, LEFT]]), np.zeros((1, 2)))
    assert game.cells.tolist() == [[cell(3, 2), cell(3, 4)]]


def test_every_pair_of_starts_is_drawn_alike():
    game = StagHunt(DEFAULT, 12_000)
    game.begin(np.random.default_rng(0).random((12_000, 2)))
    _, counts = np.unique(game.cells, axis=0, return_counts=True)
    assert len(counts) == 12 and counts.min() > 880 and counts.max() < 1120


def test_hunters_see_themselves_first():
    rows = placed([cell(0, 3), cell(6, 2)], [STAG, HARE]).obs()[0]
    own, other = [0, 0.5, 1, 0], [1, 2 / 6, 0, 1]
    np.testing.assert_array_equal(rows, np.array([own + other, other + own], np.float32))


def test_bounds_know_how_long_a_hunt_takes():
    assert batched_hunt(DEFAULT, 1).return_bounds == (0, pytest.approx(4 + 74 * 4 / 6))
    fined = batched_hunt(replace(DEFAULT, alone_reward=-3.0), 1)
    assert fined.return_bounds[0] == pytest.approx(-3 - 74 * 0.6) and fined.reward_bounds == (-3, 4)
    assert batched_hunt(DEFAULT, 1).reward_step == 2 and fined.reward_step == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("horizon", 0), ("horizon", True), ("stag_reward", 1e9), ("hare_reward", float("nan")), ("alone_reward", -1e9)],
)
def test_bad_settings_are_named_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]*\\(got [^\n]*\\)$"):
        StagHuntConfig(**{name: value})


# What can be reached


@pytest.mark.slow
def test_best_plans_are_worth_what_backward_induction_says():
    """Twelve meetings with stags and one with hares; stags alone; hares alone."""
    values = {"plan": 100.0, "stags": 96.0, "hares": 93.398}
    for name, value in values.items():
        driver = by_name(name)
        records, _ = run_episodes(batched_hunt(DEFAULT, 400), lambda env, seen, act=driver: act(env), 1, seed=1)
        found = records["return"].sum(1)
        assert abs(found.mean() - value) <= 4 * found.std() / 20 + 1e-3
        assert not records["one_stag"].any()
    assert records["both_hare"].mean() == pytest.approx(93.398 / 4, abs=0.1)
    assert planned(DEFAULT)[0] == pytest.approx(100)
    assert planned(replace(DEFAULT, stag_reward=0.0))[0] == pytest.approx(values["hares"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "value"), [(2, 0), (3, 10 / 3), (4, 4), (5, 4), (6, 8)])
def test_short_hunts_by_hand(horizon, value):
    """A hare takes two steps, and who has one can meet in the third; but starts left and right, of 2 in 12, are too far
    apart for that. Two can meet so twice in six steps, or once with stags: 8 both ways."""
    assert planned(replace(DEFAULT, horizon=horizon))[0] == pytest.approx(value)


@pytest.mark.slow
def test_plans_are_not_made_for_episodes_too_long_for_them():
    with pytest.raises(ValueError, match=r"^--horizon must be at most 1000 for a plan \(got 1001\)$"):
        planned(replace(DEFAULT, horizon=1001))


def test_rqe_eval_measures_a_driver(capsys):
    cli.evaluate(["stag-hunt", "--driver", "random", "--episodes", "4", "--alone-reward", "-1"])
    shown = capsys.readouterr().out
    assert "meetings" in shown and "both_stag" in shown.replace(" ", "_")
