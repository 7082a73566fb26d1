"""Where the atoms of a return distribution lie."""

from jaxtyping import Float
from torch import Tensor

from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import categorical


def choose_support(env: BatchedEnv, gamma: float, time_limit: str, n_atoms: int) -> Float[Tensor, " atoms"]:
    """At most `n_atoms` atoms that hold every return the environment can give under the discount `gamma`.

    Where rewards lie on a grid and returns are not discounted, the atoms lie on that grid too, and projecting a
    target onto them is exact. Zero, the return after the end, is always an atom. One atom lies beyond each bound, so
    that mass on an edge atom always means a tail that was cut off.
    """
    horizon = env.horizon
    if time_limit == "bootstrap":
        steps = 1 / (1 - gamma)
        low, high = (bound * steps for bound in env.reward_bounds)
    else:
        steps = horizon if gamma == 1 else (1 - gamma**horizon) / (1 - gamma)
        low = max(min(env.return_bounds[0], 0.0), env.reward_bounds[0] * steps)
        high = min(max(env.return_bounds[1], 0.0), env.reward_bounds[1] * steps)
    low, high = min(low, 0.0), max(high, 0.0)
    if env.reward_step is not None and gamma == 1:
        inner = categorical.aligned_support(low, high, env.reward_step, n_atoms - 2)
        spacing = float(inner[1] - inner[0])
        return categorical.aligned_support(low - spacing, high + spacing, spacing, n_atoms)
    step = (high - low) / (n_atoms - 4)
    return categorical.aligned_support(low - step, high + step, step, n_atoms)
