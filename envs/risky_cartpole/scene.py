"""Where the cart and its pole are, for live pages."""

from collections.abc import Callable
from typing import Any

from rqe_mappo.envs.risky_cartpole.batched_cartpole import BatchedRiskyCartPole
from rqe_mappo.envs.risky_cartpole.dynamics import HALF_POLE_M, PUSH_N, STEP_S, THETA_LIMIT_RAD, X_LIMIT_M

COLOUR = "#0072B2"


class LiveScene:
    """An environment with one copy as plain numbers for `rqe_mappo.live`."""

    def __init__(self, env: BatchedRiskyCartPole):
        if env.num_envs != 1:
            raise ValueError(f"a scene is of an environment with one copy (got {env.num_envs})")
        self.env = env

    def static(self) -> dict[str, Any]:
        """What never moves: the track, where wind is likely, sizes, actions and times."""
        config = self.env.config
        everywhere = config.reward == "survival"
        most_hz = config.rate0_hz + config.rate1_hz
        return {
            "kind": "cartpole",
            "title": "CartPole" if everywhere else "Risky CartPole: the windy side pays more",
            "x_limit_m": X_LIMIT_M,
            "theta_limit_rad": THETA_LIMIT_RAD,
            "pole_m": 2 * HALF_POLE_M,
            "gusts_hz": [most_hz if everywhere else config.rate0_hz, most_hz],
            "colours": [COLOUR],
            "actions": ["push left", "push right"],
            "action_values": [f"{-PUSH_N:+g} N", f"{PUSH_N:+g} N"],
            "unit": "",
            "frame_s": STEP_S,
            "decision_s": STEP_S,
        }

    def frame(self) -> dict[str, Any]:
        """Position of the cart (m), angle of the pole (rad, positive to the right), and the gust that acted (N)."""
        dynamics = self.env.dynamics
        values = {"x_m": dynamics.x, "theta_rad": dynamics.theta, "gust_n": dynamics.gust_n}
        return {name: round(float(value[0]), 4) for name, value in values.items()}

    def watch(self, take: Callable[[], None]) -> None:
        """Call `take` after each step from now on."""
        self.env.dynamics.watch = take

    def forget(self) -> None:
        """Nothing is remembered between episodes."""
