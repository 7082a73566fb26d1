"""E games of tag stepped as one; every form of the environment steps this one class."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import ActionSpace
from rqe_mappo.envs.fixed_length.game import Played
from rqe_mappo.envs.tag import prey
from rqe_mappo.envs.tag.config import TagConfig

ACTIONS = 5  # stay, left, right, down, up
PUSHES = np.array([[0.0, 0.0], [-1, 0], [1, 0], [0, -1], [0, 1]])  # by action
STEP_S, DAMPING = 0.1, 0.25
CONTACT_FORCE, SOFTNESS = 100.0, 0.001
CATCH_REWARD, WORST_PLACE, NEARNESS = 10.0, 10.0, 0.1
CHASER, PREY, OBSTACLE_SIZE = (0.075, 3.0, 1.0), (0.05, 4.0, 1.3), 0.2  # radius, acceleration, top speed
ROUNDING = 1.001  # of bounds, whose numbers are single precision


class Tag:
    """E copies with C chasers, then Q prey, B bodies in all (`B = C + Q`), and L obstacles, a `Game`.

    x, v: float64 `[E, B, 2]`, positions and velocities.
    obstacles: float64 `[E, L, 2]`.

    Agents are the chasers, and the prey where it is learned.
    """

    def __init__(self, config: TagConfig, num_envs: int):
        self.config, self.num_envs = config, num_envs
        self.horizon, self.observe_time = config.horizon, config.observe_time
        c, q, places = config.n_chasers, config.n_prey, config.n_obstacles
        self.bodies, self.agents = c + q, c + q * (config.prey == "learned")
        names = [f"adversary_{i}" for i in range(c)] + [f"agent_{i}" for i in range(q)]
        self.players = tuple(names[: self.agents])
        self.start_draws, self.step_draws = 2 * (self.bodies + places), q * (config.prey == "random")
        self.action_space: ActionSpace = Discrete(ACTIONS)
        if config.continuous:
            self.action_space = Box(0, 1, (ACTIONS,), np.float32)
        self.chaser = np.arange(self.bodies) < c
        radius, *speeds = PREY
        kinds = np.where(self.chaser[:, None], CHASER, (radius, *(config.prey_speed * speed for speed in speeds)))
        self.radius = np.concatenate([kinds[:, 0], np.full(places, OBSTACLE_SIZE)])
        self.strength, self.fastest = kinds[:, 1:2], kinds[:, 2:]
        self.others = np.array([[j for j in range(self.bodies) if j != i] for i in range(self.bodies)])
        self.self_pair = np.eye(self.bodies, self.bodies + places, dtype=bool)
        self.avoided = np.ones(self.self_pair.shape, bool)  # one's own kind, and obstacles
        self.avoided[:, : self.bodies] = self.chaser[:, None] == self.chaser
        self.x, self.v = np.zeros((num_envs, self.bodies, 2)), np.zeros((num_envs, self.bodies, 2))
        self.obstacles = np.zeros((num_envs, places, 2))
        self._set_spaces()
        self._set_rewards()

    def _set_spaces(self) -> None:
        q, places = self.config.n_prey, self.config.n_obstacles
        top = PREY[2] * ROUNDING
        far = self._far()
        own, between = [top] * 2 + [far] * 2, [far + 1] * 2 * places + [2 * far] * 2 * (self.bodies - 1)
        seen = np.array(own + between + [top] * 2 * q, np.float32)
        shown = np.array(own + between + [top] * 2 * (self.bodies - 1), np.float32)
        self.observation_space, self.state_space = Box(-seen, seen), Box(-shown, shown)

    def _far(self) -> float:
        """How far from the middle anybody can be in each direction."""
        return (1 + PREY[2] * STEP_S * self.horizon) * ROUNDING

    def _set_rewards(self) -> None:
        c, q, scale = self.config.n_chasers, self.config.n_prey, self.config.reward_scale
        learned = self.config.prey == "learned"
        self.common_reward = not learned
        apart = self.config.shaped * NEARNESS * c * np.sqrt(8) * self._far()  # across the field both bodies can reach
        lowest = -max(apart, (CATCH_REWARD * c + 2 * WORST_PLACE) * learned) * scale
        self.reward_bounds = lowest, max(CATCH_REWARD * c * q, apart * learned) * scale
        self.return_bounds = lowest * self.horizon, self.reward_bounds[1] * self.horizon
        self.reward_step = None if learned or self.config.shaped else CATCH_REWARD * scale

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that changes, by name."""
        return {name: getattr(self, name) for name in ("x", "v", "obstacles")}

    def begin(self, uniform: np.ndarray) -> None:
        """Everybody at rest, anywhere within 1 of the middle in both directions; obstacles within 0.9."""
        places = uniform.reshape(self.num_envs, -1, 2)
        self.x[...], self.v[...] = -1 + 2 * places[:, : self.bodies], 0
        self.obstacles[...] = -0.9 + 1.8 * places[:, self.bodies :]

    def play(self, actions: np.ndarray, uniform: np.ndarray) -> Played:
        """All bodies push and are pushed away from what they touch, then move."""
        push = np.zeros(self.x.shape)
        push[:, : self.agents] = self._pushes(actions)
        if self.agents < self.bodies:
            push[:, self.agents :] = PUSHES[prey.actions(self, uniform)]
        self._move(self.strength * push)
        _, gap, distance = self.apart()
        touching = gap < 0
        caught = touching[:, : self.config.n_chasers, self.config.n_chasers : self.bodies]
        reward = np.empty(self.x.shape[:2])
        reward[:, self.chaser] = CATCH_REWARD * caught.sum((1, 2))[:, None]
        reward[:, ~self.chaser] = -CATCH_REWARD * caught.sum(1) - outside(self.x[:, ~self.chaser]).sum(-1)
        if self.config.shaped:
            between = NEARNESS * distance[:, : self.config.n_chasers, self.config.n_chasers : self.bodies]
            reward[:, self.chaser] -= between.min(2).sum(1)[:, None]
            reward[:, ~self.chaser] += between.sum(1)
        cost = (touching & self.avoided).any(2)
        counts = {"catches": caught.sum((1, 2)), "caught_steps": np.asarray(caught.any((1, 2)) * 1)}
        return Played(self.config.reward_scale * reward[:, : self.agents], cost[:, : self.agents], counts)

    def _pushes(self, actions: np.ndarray) -> np.ndarray:
        if not self.config.continuous:
            return PUSHES[actions]
        actions = actions.clip(0, 1)
        return actions[..., 2::2] - actions[..., 1::2]

    def apart(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far bodies are from all that can be touched, themselves excepted.

        Gives the way from there to here `[E, B, B + L, 2]`, the gap between the two surfaces and the distance of the
        middles, both `[E, B, B + L]`; of a body to itself 0, inf and 1.
        """
        everything = np.concatenate([self.x, self.obstacles], axis=1)
        way = self.x[:, :, None] - everything[:, None]
        distance = np.sqrt(np.square(way).sum(-1))
        gap = np.where(self.self_pair, np.inf, distance - (self.radius[: self.bodies, None] + self.radius))
        return way, gap, np.where(self.self_pair, 1, distance)

    def _move(self, force: np.ndarray) -> None:
        way, gap, distance = self.apart()
        depth = np.logaddexp(0, -gap / SOFTNESS) * SOFTNESS
        pushed = CONTACT_FORCE * way / distance[..., None] * depth[..., None]
        for other in range(pushed.shape[2]):  # one after the other: sums in another order would round differently
            force = pushed[:, :, other] + force
        self.x += self.v * STEP_S
        v = self.v * (1 - DAMPING) + force * STEP_S
        speed = np.sqrt(np.square(v).sum(-1, keepdims=True))
        self.v[...] = np.where(speed > self.fastest, v / np.where(speed > 0, speed, 1) * self.fastest, v)

    def obs(self) -> np.ndarray:
        """float64 `[E, A, D]`; see `TagEnv`."""
        seen = self._seen(np.zeros((self.num_envs, self.agents, self.observation_space.shape[0])))
        others = self.others[: self.agents]
        for agent in range(self.agents):
            faster = others[agent][~self.chaser[others[agent]]]
            first = seen.shape[2] - 2 * self.config.n_prey
            seen[:, agent, first : first + 2 * len(faster)] = self.v[:, faster].reshape(self.num_envs, -1)
        return seen

    def state(self) -> np.ndarray:
        """float64 `[E, A, S]`; see `TagEnv`."""
        shown = self._seen(np.zeros((self.num_envs, self.agents, self.state_space.shape[0])))
        shown[..., -2 * (self.bodies - 1) :] = self.v[:, self.others[: self.agents]].reshape(*shown.shape[:2], -1)
        return shown

    def _seen(self, rows: np.ndarray) -> np.ndarray:
        """Write one's own velocity and position and the way to all others into the first columns of `rows`."""
        x, places = self.x[:, : self.agents], 2 * self.config.n_obstacles
        rows[..., :2], rows[..., 2:4] = self.v[:, : self.agents], x
        rows[..., 4 : 4 + places] = (self.obstacles[:, None] - x[:, :, None]).reshape(*rows.shape[:2], -1)
        ways = self.x[:, self.others[: self.agents]] - x[:, :, None]
        rows[..., 4 + places : 4 + places + 2 * (self.bodies - 1)] = ways.reshape(*rows.shape[:2], -1)
        return rows


def outside(x: np.ndarray) -> np.ndarray:
    """What prey is fined in each direction for being `x` from the middle: nothing below 0.9, at most 10."""
    away = np.abs(x)
    fine = np.where(away < 1, (away - 0.9) * 10, np.exp(np.minimum(2 * away - 2, 10)))
    return np.where(away < 0.9, 0, np.minimum(fine, WORST_PLACE))
