"""The console script `rqe-solve`: exact equilibria of a game, named or in a file; worst cases of finite ones."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from rqe_mappo import command_line
from rqe_mappo.envs.matrix_games.payoffs import GAMES, MatrixGame
from rqe_mappo.envs.matrix_games.table import PayoffTable
from rqe_mappo.equilibrium import robust_report
from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.conditions import condition
from rqe_mappo.equilibrium.game import Form, RiskGame, per_player
from rqe_mappo.equilibrium.human_games import HUMAN_GAMES
from rqe_mappo.equilibrium.response import Regulariser
from rqe_mappo.equilibrium.robust_iteration import Over
from rqe_mappo.equilibrium.solver import TOLERANCE, Equilibrium, solve_game
from rqe_mappo.equilibrium.two_by_two import all_equilibria_2x2

PROG = "rqe-solve"


@dataclass(frozen=True)
class SolveConfig:
    """Risk-averse quantal response equilibria of a matrix game, exactly.

    A file holds {"payoffs": nested lists [n][A_1]...[A_n], "actions": [[names of player 1], ...]}; actions optional.
    With --robust: the best that one player, or a team, can be sure of in the finite game of an environment.
    """

    game: Annotated[str, tyro.conf.Positional] = ""
    """A game's name (see --list) or a .json file; with --robust an environment: gamble, matrix, cliff, step-games."""
    tau: str = ""
    """Risk tolerance in units of payoff, one for all players or one each (0.3,1); inf is neutral. The inverse of the
    tau of the RQE papers. Left out with --eps: the parameters fitted to the human games."""
    eps: str = ""
    """Weight of the regulariser, one for all players or one each."""
    form: Form | None = None
    """One adversary an own action, or one that sees the mixed strategy alone (aggregate: the form of the theorems).
    Default: action; aggregate with fitted parameters."""
    penalty: Penalty | None = None
    """The price of shifting the opponents' action probabilities: kl (entropic risk) is the default."""
    regulariser: Regulariser | None = None
    """entropy is the default."""
    all: bool = True
    """Every equilibrium of a 2x2 game. Off, and in larger games: one, followed from infinite eps."""
    robust: str = ""
    """The worst case over transitions instead: contamination:DELTA, l1:RADIUS, kl:RADIUS or kl-penalty:TAU."""
    scenario: str = "default"
    """With --robust: the environment's scenario."""
    gamma: float = 1.0
    """With --robust: discount of a step."""
    over: Over = "outcomes"
    """With --robust: nature chooses among the outcomes of the state and action, or among all states that follow any."""
    json: bool = False
    """Print JSON."""
    list: bool = False
    """List the games and stop."""


@dataclass(frozen=True)
class Task:
    """What to solve, and where the numbers come from."""

    source: MatrixGame
    problem: RiskGame
    note: str


def read_game(name: str) -> MatrixGame:
    """A named game, or the one in a file."""
    if name in GAMES:
        return GAMES[name]
    path = Path(name)
    if path.suffix != ".json" and not path.exists():
        raise ValueError(f"unknown game {name!r}: {PROG} --list names the known ones; a file's name ends in .json")
    return PayoffTable.from_file(name).game(path.stem, name)


def numbers(flag: str, text: str, n: int) -> np.ndarray:
    """`[n]` positive numbers out of '0.3' or '0.3,1'."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} must be numbers with commas between them, such as 0.3,1 (got {text})") from None
    return per_player(flag, values, n)


def task(config: SolveConfig) -> Task:
    """The game and the parameters that a command line asks for."""
    if not config.game:
        raise ValueError(f"name a game or a .json file: {PROG} --list names the known ones")
    source = read_game(config.game)
    n = source.n_players
    if config.tau and config.eps:
        tau, eps = numbers("--tau", config.tau, n), numbers("--eps", config.eps, n)
        form, penalty, regulariser = config.form or "action", config.penalty or "kl", config.regulariser or "entropy"
        try:
            return Task(source, RiskGame.of(source, tau, eps, form, penalty, regulariser), "")
        except ValueError as error:
            raise ValueError(f"--{error}") from None  # the payoffs were checked: only eps can be wrong
    if source.name not in HUMAN_GAMES or config.game not in GAMES:
        missing = " and ".join(flag for flag, text in (("--tau", config.tau), ("--eps", config.eps)) if not text)
        raise ValueError(f"{missing} must be given for {config.game}: only the human games carry fitted parameters")
    if config.tau or config.eps:
        raise ValueError("give --tau and --eps both, or neither for the fitted parameters")
    human = HUMAN_GAMES[source.name]
    for (penalty, regulariser), fit in human.fits.items():
        if config.penalty in {None, penalty} and config.regulariser in {None, regulariser}:
            note = (
                f"tau and eps as fitted by Mazumdar, Panaganti & Shi (arXiv 2406.14156); people played "
                f"{source.actions[0][0]} {human.observed[0]:.3f}, {source.actions[1][0]} {human.observed[1]:.3f}; "
                f"Nash {human.nash[0]:.3f}, {human.nash[1]:.3f}"
            )
            form = config.form or "aggregate"
            return Task(source, RiskGame.of(source, fit.tau, fit.eps, form, penalty, regulariser), note)
    raise ValueError(
        "fitted parameters exist for kl with log-barrier and reverse-kl with entropy: give --tau and --eps"
    )


def equilibria(problem: RiskGame, scan: bool) -> Sequence[Equilibrium]:
    """All of them by a scan, or the principal one."""
    if not scan:
        return [solve_game(problem)]
    form, penalty, regulariser = problem.form, problem.penalty, problem.regulariser
    return all_equilibria_2x2(
        problem.payoffs, problem.tau, problem.eps, form=form, penalty=penalty, regulariser=regulariser
    )


def as_dict(work: Task, found: Sequence[Equilibrium], complete: bool) -> dict[str, Any]:
    """All that is printed, for --json; an infinite tau is the string "inf", `complete`: there are no others."""
    problem = work.problem
    theory = condition(problem.tau, problem.eps, problem.form, problem.penalty, problem.regulariser)
    return {
        "game": work.source.name,
        "tau": [float(t) if np.isfinite(t) else "inf" for t in problem.tau],
        "eps": problem.eps.tolist(),
        "form": problem.form, "penalty": problem.penalty, "regulariser": problem.regulariser,
        "note": work.note,
        "complete": complete or theory.unique,
        "equilibria": [
            {
                "strategies": [
                    dict(zip(names, pi.tolist(), strict=True))
                    for names, pi in zip(work.source.actions, e.strategies, strict=True)
                ],
                "log_strategies": [
                    dict(zip(names, log_pi.tolist(), strict=True))
                    for names, log_pi in zip(work.source.actions, e.log_strategies, strict=True)
                ],
                "risk_adjusted": e.utilities.tolist(), "mean": e.means.tolist(),
                "residual": e.residual, "strategies_residual": e.strategies_residual,
                "exploitability": e.exploitability.tolist(), "converged": e.converged,
            }
            for e in found
        ],
        "theory": {"covered": theory.covered, "tractable": theory.tractable, "unique": theory.unique,
                   "margin": theory.margin, "words": theory.words},
    }  # fmt: skip


def describe(content: dict[str, Any]) -> str:
    """The same as text."""
    listed = {name: ", ".join(f"{float(x):.4g}" for x in content[name]) for name in ("tau", "eps")}
    lines = [
        f"{content['game']}: tau {listed['tau']}; eps {listed['eps']}; "
        f"{content['form']} form, {content['penalty']} penalty, {content['regulariser']} regulariser"
    ]
    lines += [content["note"]] if content["note"] else []
    found = content["equilibria"]
    for k, e in enumerate(found):
        other = "the only equilibrium" if content["complete"] else "one equilibrium; there may be others"
        lines += ["", f"equilibrium {k + 1} of {len(found)}" if len(found) > 1 else other]
        for i, strategy in enumerate(e["strategies"]):
            probs = "  ".join(f"{name} {p:.4f}" for name, p in strategy.items())
            lines.append(
                f"  player {i + 1}:  {probs}   risk-adjusted {e['risk_adjusted'][i]:.4f}, mean {e['mean'][i]:.4f}"
            )
        state = "" if e["converged"] else "NOT CONVERGED: "
        lines.append(f"  {state}residual {e['residual']:.1e}, exploitability {max(e['exploitability']):.1e}")
        if e["converged"] and not e["strategies_residual"] <= TOLERANCE:
            lines.append(
                f"  that is the residual of the logarithms, which --json gives; in the probabilities what is below "
                f"1e-308 is rounded, and it decides here: theirs is {e['strategies_residual']:.1e}"
            )
    return "\n".join([*lines, "", f"theory: {content['theory']['words']}"])


def given(config: SolveConfig, *names: str) -> str:
    """The flags among `names` that are not at their defaults."""
    default = SolveConfig()
    return ", ".join(f"--{name}" for name in names if getattr(config, name) != getattr(default, name))


def list_games() -> str:
    width = max(map(len, GAMES))
    sizes = {name: "x".join(str(len(names)) for names in game.actions) for name, game in GAMES.items()}
    return "\n".join(f"{name:<{width}}  {sizes[name]}  {game.source}" for name, game in GAMES.items())


def main(args: Sequence[str] | None = None) -> None:
    """rqe-solve: equilibria with their residuals, and what theory says. Exit code 1 if one did not converge."""
    command_line.main(_solve, PROG, args)


def _solve(args: list[str]) -> None:
    config = command_line.parse(SolveConfig, PROG, args)
    if config.list:
        print(list_games())
        return
    if config.robust:
        _solve_robust(config)
        return
    if changed := given(config, "scenario", "gamma", "over"):
        raise ValueError(f"{changed} needs --robust")
    work = task(config)
    scan = config.all and work.problem.payoffs.shape == (2, 2, 2)
    found = equilibria(work.problem, scan)
    content = as_dict(work, found, complete=scan)
    print(json.dumps(content, indent=2) if config.json else describe(content))
    if not found or not all(e.converged for e in found):
        sys.exit(1)


def _solve_robust(config: SolveConfig) -> None:
    if unknown := given(config, "tau", "eps", "form", "penalty", "regulariser"):
        raise ValueError(f"--robust does not go with {unknown}")
    if not config.game:
        raise ValueError(f"name an environment that is a finite game, as in {PROG} gamble --robust l1:0.2")
    content = robust_report.solve_robust(config.game, config.scenario, config.robust, config.gamma, config.over)
    print(json.dumps(content, indent=2) if config.json else robust_report.describe(content))


if __name__ == "__main__":
    main()
