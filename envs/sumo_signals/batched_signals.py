"""The traffic lights for the learner: one simulation a process, all its lights as agents."""

import atexit
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.contract import ActionSpace, Observed, PaddedDiscrete, Step
from rqe_mappo.envs.sumo_intersection.simulation import Simulation, SimulationCrashed
from rqe_mappo.envs.sumo_signals import observation, trips
from rqe_mappo.envs.sumo_signals.config import PROGRAM, SignalsConfig

if TYPE_CHECKING:
    from rqe_mappo.envs.sumo_signals.simulation import Junctions


def reward_bounds(config: SignalsConfig) -> tuple[float, float]:
    """The lowest and highest reward of one decision; what lies beyond is clipped."""
    most, minutes = float(config.most_waiting), config.delta_time_s / 60
    return {
        "waiting": (-most * minutes, 0.0),
        "long-waiting": (-2 * most * minutes, 0.0),  # as if all of them had stood for a minute
        "diff-waiting-time": (-most / 5, most / 5),  # the light's vehicles gained or lost 20 s each
        "average-speed": (0.0, 1.0),
        "queue": (-most, 0.0),
        "pressure": (-most, most),
    }[config.reward]


class BatchedSignals:
    """A `BatchedEnv` of one copy whose agents are the lights of a network, named as there.

    Episodes last `num_seconds` and are then truncated: traffic goes on. The time is observed all the same. Records add
    the `trips.METRICS`, `[F]`, of all trips of the episode. `cost` is the number of vehicles that newly collided, the
    same for every agent. Contents of arrays as in `SignalsEnv`; `counts` is how many green phases each light has.
    """

    time_in_observation = True
    common_reward = False
    reward_step: float | None = None
    action_space: ActionSpace
    observation_space: Box
    state_space: Box

    def __init__(self, config: SignalsConfig, num_envs: int = 1):
        if num_envs != 1:
            raise ValueError(
                f"libsumo holds one simulation a process, so one cannot hold {num_envs} copies: "
                "set --num-workers to --num-envs"
            )
        if Simulation.owner is not None:
            raise RuntimeError(
                "a SUMO simulation is already open in this process: close() that environment first, "
                "or open this one in a separate process"
            )
        files = config.files()
        self.config, self.num_envs, self.horizon = config, num_envs, config.horizon
        from rqe_mappo.envs.sumo_signals.simulation import Junctions

        self.folder = tempfile.TemporaryDirectory(prefix="sumo-signals-")
        Simulation.owner = self  # the vehicles' simulation and this one exclude each other
        atexit.register(self.close)
        self._world: Junctions | None = None
        try:
            self._world = Junctions(config, files, Path(self.folder.name))
        except BaseException:
            self.close()
            raise
        lights = self.world.lights
        self.possible_agents = tuple(light.name for light in lights)
        self.counts = tuple(len(light.served) for light in lights)
        self.action_space = PaddedDiscrete(self.counts)
        self.layout = observation.Layout.of(lights)
        self.observation_space = Box(0.0, observation.LIMIT, (self.layout.width,), np.float32)
        self.state_space = Box(0.0, observation.LIMIT, (len(lights) * (self.layout.width + 1),), np.float32)
        low, high = self.reward_bounds = reward_bounds(config)
        self.return_bounds = (low * self.horizon, high * self.horizon)

    @property
    def world(self) -> "Junctions":
        """The running simulation; SimulationCrashed after `close`."""
        if self._world is None:
            raise SimulationCrashed("this environment is closed: make a new one")
        return self._world

    def reset(self, seed: int) -> Observed:
        """Start from the beginning; the same seed gives the same episodes, in any process."""
        self.rng = np.random.default_rng(seed)
        return self.begin()

    def begin(self) -> Observed:
        """Start the next episode, its SUMO seed and its demand drawn from the stream of the last `reset`."""
        spread = self.config.demand_spread
        scale = self.rng.uniform(1 - spread, 1 + spread)
        self.world.start(int(self.rng.integers(2**31 - 1)), scale)
        self.decisions = 0
        self.total = np.zeros(len(self.possible_agents))
        self.collided = 0
        return self.observed()

    def observed(self) -> Observed:
        """What can be seen now."""
        elapsed = self.decisions / self.horizon
        seen = observation.observe(self.world, self.layout, elapsed)
        return Observed(seen[None], observation.critic_view(self.world, seen)[None], np.ones((1, len(seen)), bool))

    def drive(self, actions: np.ndarray) -> tuple[np.ndarray, int]:
        """Choose phases `[A]`, or PROGRAM, for one decision: rewards `[A]`, and how many vehicles newly collided."""
        free = actions == PROGRAM
        if self.decisions == 0:
            self.free = free
        wrong = ~free & ((actions < 0) | (actions >= np.array(self.counts)))
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(
                f"light {self.possible_agents[index]} has {self.counts[index]} green phases: "
                f"it cannot choose phase {actions[index]}"
            )
        changed = free != self.free
        if changed.any():
            name = self.possible_agents[int(changed.argmax())]
            raise ValueError(f"light {name} must choose phases in all decisions of an episode, or PROGRAM in all")
        self.world.decide(actions.tolist())
        reward = np.clip(self.world.earned(), *self.reward_bounds).astype(np.float32)
        self.decisions += 1
        self.total += reward
        self.collided += self.world.collided
        return reward, self.world.collided

    @property
    def over(self) -> bool:
        """Whether the episode has reached its end."""
        return self.decisions >= self.horizon

    def finish(self) -> dict[str, float]:
        """End the simulation, which makes SUMO write its files, and read them: the `trips.METRICS`."""
        self.world.close()
        return trips.read(Path(self.folder.name))

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[1, A]`, the green phase that each light shows next."""
        reward, collided = self.drive(np.asarray(actions)[0])
        seen, over, n = self.observed(), self.over, len(self.possible_agents)
        ended = int(over)  # how many copies
        episodes = {
            "copy": np.zeros(ended, np.int64),
            "return": np.tile(self.total, (ended, 1)),
            "cost": np.full((ended, n), float(self.collided)),
            "length": np.full((ended, n), self.decisions),
        }
        final_obs, final_state = (rows[0][: ended * n] for rows in (seen.obs, seen.state))
        if over:
            found = self.finish()
            seen = self.begin()
        else:
            found = dict.fromkeys(trips.METRICS, 0.0)
        episodes |= {name: np.full(ended, value) for name, value in found.items()}
        return Step(
            seen.obs,
            seen.state,
            seen.active,
            reward=reward[None],
            cost=np.full((1, n), collided, np.float32),
            terminated=np.zeros((1, n), bool),
            truncated=np.full((1, n), over),
            final_obs=final_obs,
            final_state=final_state,
            episodes=episodes,
        )

    def snapshot(self) -> None:
        """None: a resumed run starts new episodes."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        raise RuntimeError("traffic cannot be restored: reset instead")

    def close(self) -> None:
        """End the simulation and remove its files; a second call does nothing."""
        if Simulation.owner is self:
            Simulation.owner = None
            atexit.unregister(self.close)
            if self._world is not None:
                self._world.close()
                self._world = None
            self.folder.cleanup()
