"""Exact risk-averse quantal response equilibria (RQE) of matrix and finite Markov games, in float64 numpy.

tau is a risk tolerance in units of payoff (inf is neutral; the literature's tau is its inverse), eps the weight of the
regulariser. See docs/equilibrium.md.
"""

from rqe_mappo.equilibrium.conditions import Condition, condition, monotonicity_margin, tractability_margin, xi_star
from rqe_mappo.equilibrium.game import RiskGame
from rqe_mappo.equilibrium.human_games import HUMAN_GAMES
from rqe_mappo.equilibrium.markov import MarkovEquilibrium, solve_markov
from rqe_mappo.equilibrium.no_regret import NoRegretPlay, no_regret_play
from rqe_mappo.equilibrium.solver import Equilibrium, solve
from rqe_mappo.equilibrium.two_by_two import all_equilibria_2x2

__all__ = [
    "HUMAN_GAMES", "Condition", "Equilibrium", "MarkovEquilibrium", "NoRegretPlay", "RiskGame", "all_equilibria_2x2",
    "condition", "monotonicity_margin", "no_regret_play", "solve", "solve_markov", "tractability_margin", "xi_star",
]  # fmt: skip
