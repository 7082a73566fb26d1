"""Cross-play: who acts beside whom, what a cell counts, gaps by hand, and ONNX files of strangers."""

import contextlib
import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import rqe_mappo
from rqe_mappo import checkpoint, cli
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.action_noise import NoisyActions
from rqe_mappo.envs.matrix_games import PayoffTable
from rqe_mappo.evaluation.partners import OnnxPolicy, one_among, partner
from rqe_mappo.files import save_tensors
from rqe_mappo.statistics import among_runs
from rqe_mappo.sweeps.cross_play import Cell, CrossPlayConfig, columns, evenly
from rqe_mappo.sweeps.cross_play_report import gap_rows
from rqe_mappo.sweeps.players import Player, known_players, setting_of
from tests.test_bad_input import complaint

PAYOFFS = np.array([[[3.0, 1.0], [0.0, 2.0]], [[5.0, -1.0], [4.0, 7.0]]])  # of the row player, of the column player
ZERO, ONE = Player("zero", "zero", "a", 1), Player("one", "one", "a", 2)


@pytest.fixture
def game(tmp_path, monkeypatch):
    """A game of two, and players of whom `zero` always takes the first action, `one` the second."""
    file = tmp_path / "game.json"
    file.write_text(json.dumps({"payoffs": PAYOFFS.tolist()}))
    config = rqe_mappo.default_config("matrix", payoffs=PayoffTable.from_file(str(file)))
    always = {"zero": 0, "one": 1}

    def constant(self, who, config, env, which):
        action = always[who.name]
        return lambda env, observed: np.full(observed.active.shape, action)

    monkeypatch.setattr(Cell, "_chooser", constant)
    with contextlib.closing(vector.make(config, 6)) as env:
        yield config, env


def played(one: Player, others: Player | str, game, noise: float = 0.0, episodes: int = 60) -> dict[str, np.ndarray]:
    config, env = game
    return Cell(one, others, noise, "", CrossPlayConfig((Path("a"),), episodes=episodes))._play(config, env)


def test_the_one_goes_round_and_the_others_are_the_others(game):
    records = played(ZERO, ONE, game)
    assert np.bincount(records["one"]).tolist() == [30, 30]
    for who, returns in zip(records["one"], records["return"], strict=True):
        row, column = (0, 1) if who == 0 else (1, 0)
        assert returns.tolist() == [PAYOFFS[0, row, column], PAYOFFS[1, row, column]]


@pytest.mark.parametrize(("most", "agents", "copies"), [(64, 3, 63), (8, 5, 5), (5, 6, 3), (4, 5, 1), (1, 2, 1)])
def test_each_agent_is_the_one_equally_often(most, agents, copies):
    assert evenly(most, agents) == copies


def test_a_setting_is_named_by_what_sets_it_apart_from_others_of_its_algorithm():
    mappo, qmix = (rqe_mappo.default_config("matrix", "penalty-2x2", algo) for algo in ("mappo", "qmix"))
    longer = qmix.replace(total_timesteps=7, seed=3)
    assert setting_of(mappo, [mappo, qmix, longer]) == "mappo"
    assert setting_of(longer, [mappo, qmix, longer]) == "qmix total-timesteps 7"


def test_a_run_with_itself_is_itself(game):
    assert (played(ONE, ONE, game)["return"] == [2.0, 7.0]).all()


def test_only_the_others_slip(game):
    records = played(ZERO, ZERO, game, noise=1.0, episodes=3000)
    for slot, (stays, slips) in enumerate([((3.0, 5.0), (1.0, -1.0)), ((3.0, 5.0), (0.0, 4.0))]):
        returns = records["return"][records["one"] == slot]
        kinds = {tuple(pair) for pair in returns.tolist()}
        assert kinds == {stays, slips}
        assert 0.4 < (returns[:, 0] == stays[0]).mean() < 0.6


def test_random_others_are_uniform_whatever_the_noise(game):
    records = played(ZERO, "random", game, episodes=3000)
    first = records["return"][records["one"] == 0][:, 0]
    assert set(first.tolist()) == {3.0, 1.0} and 0.4 < (first == 3.0).mean() < 0.6


def test_gap_by_hand():
    """All 24 draws of three runs that hold two of them at least."""
    matrix = np.array([[10.0, 1.0, 2.0], [3.0, 8.0, 4.0], [5.0, 6.0, 9.0]])
    known = among_runs(matrix)
    assert (known.with_themselves, known.with_each_other.value, known.gap.value) == (9.0, 3.5, 5.5)
    gaps, cross = [], []
    for drawn in itertools.product(range(3), repeat=3):
        pairs = [matrix[one, other] for one, other in itertools.product(drawn, drawn) if one != other]
        if pairs:
            cross.append(np.mean(pairs))
            gaps.append(np.mean([matrix[one, one] for one in drawn]) - cross[-1])
    quantile = scipy.stats.t.ppf(0.975, 2)
    assert len(gaps) == 24 and known.gap.high - 5.5 == pytest.approx(quantile * np.sqrt(3 / 2) * np.std(gaps), rel=0.05)
    assert 5.5 - known.gap.low == pytest.approx(known.gap.high - 5.5)
    # Weights 1/2, 1/2, 0 in 18 of the draws, 1/3 each in 6: of variance 1/24.
    assert known.with_each_other.high - 3.5 == pytest.approx(quantile * np.sqrt(24 / 9) * np.std(cross), rel=0.05)
    assert np.isnan(among_runs(matrix[:2, :2]).gap.low)


EFFECTS = {
    "runs": lambda rng, n: (found := rng.normal(size=n))[:, None] + found,
    "cells": lambda rng, n: rng.normal(size=(n, n)),
    "rows and columns": lambda rng, n: rng.normal(size=(n, 1)) + rng.normal(size=n) + rng.normal(size=(n, n)),
    "runs and pairs": lambda rng, n: (found := rng.normal(size=n))[:, None] + found + symmetric(rng, n),
    "two habits": lambda rng, n: 2 * habits(rng.integers(0, 2, n)) + 0.1 * symmetric(rng, n),
}  # fmt: skip


def habits(of: np.ndarray) -> np.ndarray:
    """1 for two runs of one habit."""
    return np.equal.outer(of, of) - np.eye(len(of))


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    cells = rng.normal(size=(n, n))
    return cells + cells.T


@pytest.mark.parametrize("effects, runs", [*itertools.product(list(EFFECTS)[:-1], (3, 6)), ("two habits", 6)])
def test_intervals_among_runs_cover(effects, runs):
    """The true gap is 2 more than that of the effects: none, or, of two equally frequent habits, 1 less."""
    rng, covered = np.random.default_rng(0), np.zeros(2)
    apart, gap = (1.0, 1.0) if effects == "two habits" else (0.0, 2.0)
    for _ in range(400):
        known = among_runs(EFFECTS[effects](rng, runs) + 2 * np.eye(runs))
        covered += known.with_each_other.low < apart < known.with_each_other.high, known.gap.low < gap < known.gap.high
    assert (covered / 400 > 0.93).all(), covered / 400


def test_gaps_are_of_runs_that_differ_by_their_seed_alone():
    players = [
        Player("", f"{setting}{seed}", setting, seed)
        for setting, seeds in (("a", 3), ("b", 1))
        for seed in range(seeds)
    ]
    rows = [
        {"one": x.name, "others": y.name, "noise": 0.0, "return of all": float(x is y)}
        for x in players
        for y in players
    ]
    (gap,) = gap_rows(players, rows, 0.0)
    assert (gap["setting"], gap["runs"], gap["with themselves"], gap["with each other"]) == ("a", 3, 1.0, 0.0)


def test_gaps_take_each_seed_once():
    """A run and a copy of it are no strangers to each other."""
    players = [Player("", name, "a", seed) for name, seed in (("x", 1), ("copy of x", 1), ("y", 2))]
    rows = [
        {"one": a.name, "others": b.name, "noise": 0.0, "return of all": float(a.seed == b.seed)}
        for a in players
        for b in players
    ]
    (gap,) = gap_rows(players, rows, 0.0)
    assert (gap["runs"], gap["with each other"]) == (2, 0.0)
    assert not gap_rows(players[:2], rows, 0.0)


def test_a_run_by_two_spellings_is_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="names one of them twice"):
        CrossPlayConfig((Path("a"), tmp_path / "a"))


def test_one_among_others_keeps_what_the_others_chose():
    class Two:
        num_envs, possible_agents = 3, ("a", "b")

    nine, five = (lambda env, seen, n=n: np.full((3, 2), n) for n in (9, 5))
    found = one_among(nine, five, np.array([0, 1, 1]))(Two(), None)
    assert found.tolist() == [[9, 5], [5, 9], [5, 9]]


# Files of strangers


def saved(path: Path, outputs: list[tuple[str, np.ndarray]], width: int = 4, name: str = "x", **odd) -> Path:
    """An ONNX file that adds each row's first number times 0 to fixed outputs, so that it has a batch.

    odd: `batch`, of a fixed size; `turned`, outputs `[actions, batch]`; `text`, outputs that are strings.
    """
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    batch, text = odd.get("batch", "batch"), odd.get("text")
    pick = [helper.make_tensor("zeros", kinds.FLOAT, (width, 1), np.zeros(width))]
    nodes = [helper.make_node("MatMul", [name, "zeros"], ["nothing"])]
    shown = []
    for given, values in outputs:
        kind = kinds.STRING if text else kinds.INT64 if values.dtype.kind == "i" else kinds.FLOAT
        pick.append(helper.make_tensor(f"{given}_values", kinds.FLOAT, (1, len(values)), values.astype(float)))
        nodes.append(helper.make_node("Add", ["nothing", f"{given}_values"], [f"{given}_sum"]))
        nodes.append(helper.make_node("Cast", [f"{given}_sum"], [f"{given}_cast"], to=kind))
        order = [1, 0] if odd.get("turned") else [0, 1]
        nodes.append(helper.make_node("Transpose", [f"{given}_cast"], [given], perm=order))
        shape = [(batch, len(values))[axis] for axis in order]
        shown.append(helper.make_tensor_value_info(given, kind, shape))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, kinds.FLOAT, (batch, width))], shown, pick
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def pole():
    with contextlib.closing(vector.make(default_config("cartpole", "cartpole-v1"), 500)) as env:
        yield env, env.reset(0)


@pytest.mark.parametrize("named", [True, False])
def test_an_onnx_file_takes_the_best_of_its_scores(pole, tmp_path, named):
    env, seen = pole
    file = saved(tmp_path / "p.onnx", [("scores", np.array([0.1, 0.3]))], name="obs" if named else "whatever")
    assert (OnnxPolicy(file, env, 0, deterministic=False)(env, seen) == 1).all()


def test_an_onnx_file_draws_from_its_probabilities(pole, tmp_path):
    env, seen = pole
    file = saved(tmp_path / "p.onnx", [("logits", np.array([9.0, 0.0])), ("probabilities", np.array([0.2, 0.8]))])
    assert 0.7 < OnnxPolicy(file, env, 0, deterministic=False)(env, seen).mean() < 0.9
    assert (OnnxPolicy(file, env, 0, deterministic=True)(env, seen) == 1).all()


def test_an_onnx_file_may_name_its_actions(pole, tmp_path):
    env, seen = pole
    assert (OnnxPolicy(saved(tmp_path / "p.onnx", [("act", np.array([1]))]), env, 0, False)(env, seen) == 1).all()
    with pytest.raises(ConfigError, match="not in"):
        OnnxPolicy(saved(tmp_path / "q.onnx", [("act", np.array([2]))]), env, 0, False)(env, seen)


ODD = {"no numbers": "text", "one at a time": "batch", "columns for rows": "turned"}
TOLD = {
    "no file": "is no file", "no model": "cannot be read", "another width": "does not fit",
    "three scores": "not the scores of 2 actions", "no chances": "probabilities below 0 or infinite",
    "no numbers": "must be numbers", "one at a time": "takes 1 observations at a time",
    "columns for rows": "not the scores of 2 actions",
}  # fmt: skip


@pytest.mark.parametrize("fault", TOLD)
def test_files_that_do_not_fit_are_refused_in_one_line(pole, tmp_path, fault):
    env, seen = pole
    file = tmp_path / "p.onnx"
    if fault == "no model":
        file.write_bytes(b"nothing")
    if fault == "another width":
        saved(file, [("scores", np.array([0.1, 0.3]))], width=7)
    if fault == "three scores":
        saved(file, [("scores", np.array([0.1, 0.3, 0.2]))])
    if fault in ODD:
        saved(file, [("probabilities", np.array([0.1, 0.3]))], **{ODD[fault]: 1})
    if fault == "no chances":
        saved(file, [("probabilities", np.array([np.inf, 0.0]))])
    with pytest.raises(ConfigError, match=f"^--partners onnx:[^\n]*{TOLD[fault]}[^\n]*$"):
        OnnxPolicy(file, env, 0, deterministic=False)(env, seen)


@pytest.mark.parametrize("output", ["scores", "probabilities"])
def test_numbers_that_are_none_are_refused(pole, tmp_path, output):
    env, seen = pole
    file = saved(tmp_path / "p.onnx", [(output, np.array([np.nan, 1.0]))])
    with pytest.raises(ConfigError, match="gives nan"):
        OnnxPolicy(file, env, 0, deterministic=False)(env, seen)


def test_memory_of_no_fixed_width_is_refused(pole, tmp_path):
    env, _ = pole
    onnx = pytest.importorskip("onnx")
    file = saved(tmp_path / "p.onnx", [("scores", np.array([0.1, 0.3]))])
    model = onnx.load(file)
    floats = onnx.TensorProto.FLOAT
    model.graph.input.append(onnx.helper.make_tensor_value_info("memory", floats, ("batch", "width")))
    onnx.save(model, file)
    with pytest.raises(ConfigError, match="memory needs a fixed width"):
        OnnxPolicy(file, env, 0, deterministic=False)


@pytest.mark.parametrize(("output", "deterministic"), [("scores", True), ("probabilities", False)])
def test_an_onnx_file_takes_actions_that_the_agent_has(tmp_path, output, deterministic):
    """The first player has two actions, the second three; the file prefers the third by far."""
    table = tmp_path / "game.json"
    table.write_text(json.dumps({"payoffs": np.arange(12.0).reshape(2, 2, 3).tolist()}))
    config = rqe_mappo.default_config("matrix", payoffs=PayoffTable.from_file(str(table)))
    with contextlib.closing(vector.make(config, 50)) as env:
        seen = env.reset(0)
        width = seen.obs.shape[-1]
        file = saved(tmp_path / "p.onnx", [(output, np.array([0.0, 0.0, 1.0]))], width=width)
        actions = OnnxPolicy(file, env, 0, deterministic)(env, seen)
        assert (actions[:, 0] < 2).all() and (actions[:, 1] == 2).all()
        file = saved(tmp_path / "q.onnx", [("act", np.array([2]))], width=width)
        with pytest.raises(ConfigError, match="not available"):
            OnnxPolicy(file, env, 0, deterministic)(env, seen)


def test_unknown_partners_are_refused(pole):
    env, _ = pole
    config = default_config("cartpole")
    for name in ("somebody", "scripted:", "onnx:", "scripted:nobody"):
        with pytest.raises(ConfigError, match="--partners"):
            partner(name, config, env, 0, deterministic=False)


# The command


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three short runs of a game of two, of which two differ by their seed alone."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for number, (algo, seed) in enumerate([("mappo", 1), ("mappo", 2), ("ippo", 1)]):
        config = default_config("matrix", "penalty-2x2", algo).replace(
            total_timesteps=1024, num_envs=8, eval_episodes=0, seed=seed, out=str(folder / str(number))
        )
        found.append(Path(rqe_mappo.train(config, quiet=True)))
    return found


@pytest.mark.slow
def test_cross_play_writes_its_tables_and_a_heat_map(runs, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--partners", "random", "--noise", "0", "0.5", "--episodes", "40", "--jobs", "1", "--out", str(out)]
    cli.evaluate(["--cross-play", *map(str, runs), *more])
    said = capsys.readouterr().out
    with open(out / "cross_play.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 9 + 3
    assert {row["one"] for row in rows} == {"mappo s1", "mappo s2", "ippo s1"}
    with open(out / "gaps.csv") as file:
        gaps = list(csv.DictReader(file))
    assert [(gap["setting"], gap["noise"], gap["runs"]) for gap in gaps] == [("mappo", "0", "2"), ("mappo", "0.5", "2")]
    assert "gap" in said and (out / "plots" / "cross_play.png").stat().st_size > 10_000
    lines = (out / "cells.jsonl").read_text().splitlines()
    (out / "cells.jsonl").write_text("\n".join([*lines[:20], lines[20][:30]]))  # as a kill leaves it
    (out / "cross_play.csv").unlink()
    cli.evaluate(["--cross-play", *map(str, runs), *more])
    assert "20 of 21 cells are kept" in capsys.readouterr().out
    with open(out / "cross_play.csv") as file:
        assert list(csv.DictReader(file)) == rows
    cli.evaluate(["--cross-play", *map(str, runs), *more])
    assert "21 of 21 cells are kept" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_that_cannot_meet_are_refused(runs, tmp_path, capsys):
    config = default_config("cartpole").replace(
        total_timesteps=256, num_envs=4, num_steps=16, eval_episodes=0, out=str(tmp_path / "pole")
    )
    other = rqe_mappo.train(config, quiet=True)
    assert "one agent" in complaint(capsys, cli.evaluate, "--cross-play", str(other), "--out", str(tmp_path / "out"))
    said = complaint(capsys, cli.evaluate, "--cross-play", str(runs[0]), str(other), "--out", str(tmp_path / "out"))
    assert "--cross-play" in said and "same environment" in said
    out = tmp_path / "strangers"
    for name in ("scripted:nobody", f"onnx:{tmp_path / 'none.onnx'}"):
        said = complaint(capsys, cli.evaluate, "--cross-play", str(runs[0]), "--partners", name, "--out", str(out))
        assert f"--partners {name}" in said and not out.exists(), "known before any cell is played"
    assert "is no file" in said
    said = complaint(capsys, cli.evaluate, "--cross-play", str(runs[0]), "--out", str(runs[1]))
    assert said.startswith(f"rqe-eval: --out {runs[1]} is a run")
    for flags, word in ((["--noise", "2"], "--noise"), (["--episodes", "0"], "--episodes")):
        assert word in complaint(capsys, cli.evaluate, "--cross-play", str(runs[0]), *flags)


@pytest.mark.slow
def test_a_run_that_trains_on_stays_the_same_in_every_cell(runs, tmp_path):
    trained = shutil.copytree(runs[0], tmp_path / "trained")
    (player,) = known_players([trained], False, tmp_path)
    change(trained)
    assert weights(Path(player.path)) == weights(runs[0]) != weights(trained)


def weights(run: Path) -> list[float]:
    return torch.cat([part.flatten() for part in Policy.load(run).actor.parameters()]).tolist()


def change(run: Path) -> None:
    """Other weights in all policies of a run, as if it had gone on."""
    for file in (run / "checkpoints").glob("*.policy.pt"):
        content = checkpoint.load_policy_file(file)
        for part in content["modules"]["actor"].values():
            part.add_(1.0)
        save_tensors(file, content | {"format": checkpoint.POLICY_FORMAT})


@pytest.mark.slow
def test_cells_of_a_policy_that_has_changed_are_played_anew(runs, tmp_path, capsys):
    trained = shutil.copytree(runs[0], tmp_path / "trained")
    out = str(tmp_path / "out")
    asked = ["--cross-play", str(runs[1]), str(trained), "--episodes", "20", "--jobs", "1", "--out", out]
    cli.evaluate(asked)
    change(trained)
    capsys.readouterr()
    cli.evaluate(asked)
    assert "1 of 4 cells are kept" in capsys.readouterr().out


@pytest.mark.parametrize("flag, needed", [
    ("--within", "--cross-play"), ("--alpha=0.5", "--mix"), ("--jobs", "--cross-play, --mix or --sweep"),
])  # fmt: skip
def test_a_flag_of_another_kind_of_evaluation_names_it(capsys, flag, needed):
    said = complaint(capsys, cli.evaluate, flag, "some/run")
    assert said.startswith(f"rqe-eval: {flag.partition('=')[0]} goes with {needed}: ")


@pytest.mark.slow
def test_within_settings_only_seeds_meet(runs, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--episodes", "10", "--jobs", "1", "--out", str(out)]
    cli.evaluate(["--cross-play", *map(str, runs), "--within", "--partners", "random", *flags])
    with open(out / "cross_play.csv") as file:
        pairs = {(row["one"], row["others"]) for row in csv.DictReader(file)}
    seeds = {(f"mappo s{one}", f"mappo s{other}") for one in (1, 2) for other in (1, 2)}
    assert pairs == seeds | {("ippo s1", "ippo s1")} | {(one, "random") for one in ("mappo s1", "mappo s2", "ippo s1")}
    assert (out / "plots" / "cross_play.png").stat().st_size > 10_000
    said = complaint(capsys, cli.evaluate, "--cross-play", *map(str, runs[:2]), *flags)
    assert f"--out {out}" in said and "another cross-play" in said, "cells of others are kept"
    same_names = [str(shutil.copytree(runs[0], tmp_path / "copy")), *map(str, runs[1:])]
    assert "another cross-play" in complaint(
        capsys, cli.evaluate, "--cross-play", *same_names, "--within", "--partners", "random", *flags
    )
    cli.evaluate(["--cross-play", *map(str, runs), "--within", "--partners", "random", *flags])


def test_incidents_and_travel_times_are_told_apart():
    """Two episodes of two vehicles and an empty slot: the one collides, then an other is late."""
    records = {
        "return": np.array([[-30.0, -8.0, 0.0], [-10.0, -40.0, 0.0]]),
        "length": np.array([[9, 16, 0], [20, 80, 0]]),
        "collision": np.array([[1, 0, 0], [0, 0, 0]]),
        "timed_out": np.array([[0, 0, 0], [0, 1, 0]]),
        "travel_time_s": np.array([[4.5, 8.0, 0.0], [10.0, 40.0, 0.0]]),
        "one": np.array([0, 0]),
    }
    found = columns(records, seed=0)
    shown = {name: found[name] for name in found if " low" not in name and " high" not in name}
    assert shown == {
        "episodes": 2,
        "return of one": -20.0, "collisions of one": 0.5, "travel time s of one": 10.0,
        "return of others": -24.0, "collisions of others": 0.0, "travel time s of others": 8.0,
        "return of all": -22.0, "collisions of all": 0.25, "travel time s of all": 9.0,
    }  # fmt: skip


@pytest.mark.parametrize("advantage", ["influence", "static"])
def test_scripted_partners_may_slip(advantage):
    config = default_config("kitchen").replace(advantage=advantage, return_low=-20.0, return_high=200.0)
    with contextlib.closing(vector.make(config, 4, in_process=True)) as env:
        noisy = NoisyActions(env, 0.2)
        actions = partner("scripted:greedy", config, env, 0, deterministic=False)(noisy, env.reset(0))
        assert actions.shape == (4, 2)
