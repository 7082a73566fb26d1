"""C51: probabilities of atoms of the return of each action, `--algo c51`.

Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017, arXiv 1707.06887).

Kept: N fixed, evenly spaced atoms; the target distribution, projected onto them; its cross-entropy.

Different: atoms hold every return that the environment can give, or what random play says of one by name, unless
`--return-low` and `--return-high` say where they lie (there from -10 to 10, for clipped rewards); 51 of them. A run
warns where returns lie beyond their ends, and where they are too coarse for risks. Actions are chosen by any `--risk`,
there by the mean; by the entropic one with losses beyond 3 tau counted in proportion. Double Q-learning; steps are
drawn alone (`--window 1`), and `--window N --td-lambda 1` has targets of N steps. Replay fills up by whole episodes.
With several agents each learns alone from the team's reward, as `iql` does.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.algorithms import divergence
from rqe_mappo.algorithms.distributional import RECENT, of_team
from rqe_mappo.algorithms.off_policy import trace_ends, value_scalars
from rqe_mappo.algorithms.single_steps import SingleStepConfig, SingleSteps
from rqe_mappo.algorithms.support import CUT_OFF, FEW_ATOMS, OfTeam, SupportConfig, on_grid, promised_bounds
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import categorical, returns
from rqe_mappo.nets.distributional_utilities import CategoricalUtilities, DistributionalSpec

WIDEST_GAP = 1.3  # in tau; see `rqe_mappo.functional.risk.entropic`
FINER = 4  # grid of the targets of several steps, each of which is projected


@dataclass(frozen=True, kw_only=True)
class C51Config(SingleStepConfig, SupportConfig):
    """C51's settings."""

    n_atoms: int = 51
    """Largest number of atoms of the return distribution."""
    return_low: float | None = None
    """Lowest (discounted) return of the team that is told apart; what the environment can give unless given here."""
    return_high: float | None = None
    """Highest (discounted) return that is told apart; likewise."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        self.check_support()


class C51(SingleSteps):
    """C51 at work."""

    Config = C51Config

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, team = run.algorithm, OfTeam.of(env)
        self.support = config.atoms(team, run)
        self.exact = on_grid(self.support, team, run.gamma)
        # then probability at an end is what the network began with, unless the environment breaks its promise
        self.promised = config.return_low is None and all(map(math.isfinite, promised_bounds(run, team)))
        self.edges = (0.0, 0.0)  # of the targets' probability at either end, of late
        actor = CategoricalUtilities(
            config.utilities(env, DistributionalSpec, size=len(self.support), **config.chosen_by())
        )

        def start(mean: float) -> None:
            atoms = self.support / (self.unit or 1.0)
            actor.lay(atoms, mean, max(1.0, float(atoms[1] - atoms[0])))

        super().__init__(run, env, generator, {"actor": actor}, start)

    def warnings(self) -> list[str]:
        """Of returns beyond the atoms, and of atoms too far apart for risks.

        What lies at a share f of the way between two atoms gets by its projection a variance of f (1 - f) of their
        squared distance, a sixth of it on average. Means stay as they are.
        """
        said, fix = super().warnings(), "--return-low and --return-high"
        first, last = float(self.support[0]), float(self.support[-1])
        low, high = divergence.allowed(self.replay, self.run.gamma) if self.promised else (-math.inf, math.inf)
        for end, share, beyond in zip((first, last), self.edges, (low < first, high > last), strict=True):
            if share > CUT_OFF and beyond:
                said.append(
                    f"returns lie beyond the atoms' end at {end:.4g} ({share:.0%} of targets): give wider {fix}"
                )
        measured = self.config.value_unit is None and self.unit is not None
        if measured and not self.exact and self.config.measure != "neutral":
            spanned = self.unit / float(self.support[1] - self.support[0])
            if spanned < FEW_ATOMS:
                said.append(
                    f"the std of the first returns spans {spanned:.2g} atoms, so that each step widens distributions "
                    f"and risks are hardly told apart: raise --n-atoms, or give narrower {fix}"
                )
        if self.config.measure == "entropic" and self.unit is not None:
            apart, tau = float(self.support[1] - self.support[0]), float(self.actor.tau) * self.unit
            if apart > WIDEST_GAP * tau:
                said.append(
                    f"atoms lie {apart:.3g} apart, and beyond {WIDEST_GAP} tau ({WIDEST_GAP * tau:.3g}) entropic "
                    f"values are not exact: raise --n-atoms, or give narrower {fix}"
                )
        return said

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"edges": self.edges}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(state)
        self.edges = schema.read(tuple[float, float], own.pop("edges", (0.0, 0.0)), "edges")
        super().load_state_dict(own)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy of the target distribution, of each agent that acts."""
        atoms = self.actor.atoms
        chosen, following = self.predicted(batch)
        with torch.no_grad():
            following = of_team(following.exp(), batch.present[1:])
            shape = following.shape[:-1]
            given = (batch.reward / (self.unit or 1.0), batch.terminated, trace_ends(batch))
            reward, terminated, ended = (part[..., None].expand(shape) for part in given)
            target = returns.lambda_targets(
                atoms, reward, following, terminated, ended, self.run.gamma, self.config.td_lambda,
                finer=FINER if self.config.window > 1 else 1,
            )  # fmt: skip
        loss = self.averaged(categorical.cross_entropy(target, chosen), batch.active)
        means = (categorical.mean(atoms, chosen.detach().exp()), categorical.mean(atoms, target))
        low, high = (edge.mean() for edge in categorical.edge_mass(target[batch.active]))
        before, after = self.edges
        self.edges = (RECENT * before + (1 - RECENT) * float(low), RECENT * after + (1 - RECENT) * float(high))
        edges = {"critic/edge_mass_low": low, "critic/edge_mass_high": high}
        return loss, value_scalars(self, *means, batch.active) | ({} if self.promised else edges)
