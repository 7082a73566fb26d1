"""K intersections in one simulation: traffic, collisions, rewards. Every form of the environment steps this class."""

import numpy as np

from rqe_mappo.envs.sumo_intersection import network
from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.geometry import read
from rqe_mappo.envs.sumo_intersection.simulation import Simulation

ACTIONS_MPS2 = np.array([-6.0, -2.0, 0.0, 2.5])
"""Commanded accelerations: brake hard, brake, keep, go."""
TURN_SHARES = (0.3, 0.5, 0.2)  # left, straight, right
EMERGENCY_MPS2 = 9.0  # braking on a dry road; friction scales it
HARD_BRAKE_MPS2 = -4.0
ACCEL_MPS2 = 3.0  # the most that SUMO lets a vehicle gain
CLEAR_M = 8.0  # beyond the junction
LINGER_S = 2.5  # that a vehicle which is clear stays on the exit lane
FOLLOW_ONLY = 39  # speed mode: keep to car-following and acceleration limits, ignore the right of way everywhere
STANDING_MPS = 0.05
WAITING_MPS = 0.5
NOT_INSERTED_M = -1e5  # libsumo reports a huge negative distance until a vehicle has entered the road


class Intersections:
    """Arrays `[K, M]` of K copies with M vehicles each, the first `n_agents` of them controlled.

    pos_m: distance of the front bumper past the stop line along the vehicle's route, negative before it.
    speed_mps, friction, aggressive (background only), arm (0 to 3 clockwise from north), movement (0 to 11).
    present: on its way: inserted or about to be, not clear, not crashed.
    accel_mps2, waited_s `[K, n_agents]`: last command as executed, and time spent below 0.5 m/s.
    time_s `[K]`: since the start of each copy's episode.
    """

    def __init__(self, config: IntersectionConfig, copies: int):
        if copies < 1:
            raise ValueError(f"an intersection needs at least 1 copy (got {copies})")
        self.config, self.copies = config, copies
        self.geometry = read(network.build(1, config.arm_m))
        self.sim = Simulation(network.build(copies, config.arm_m), config.step_s)
        k, m, n = copies, config.n_vehicles, config.n_agents
        self.pos_m, self.speed_mps, self.friction, self.spawn_m = (np.zeros((k, m)) for _ in range(4))
        self.present, self.fresh, self.crashed, self.on_road, self.aggressive = (
            np.zeros((k, m), bool) for _ in range(5)
        )
        self.arm, self.movement, self.linger = (np.zeros((k, m), int) for _ in range(3))
        self.accel_mps2, self.waited_s = np.zeros((k, n)), np.zeros((k, n))
        self.time_s = np.zeros(k)
        self.ids = [[""] * m for _ in range(k)]
        self.spawned = 0
        self.rng = np.random.default_rng()

    def load(self, seed: int) -> None:
        """Empty roads, and every random number seeded; follow with `reset` of all copies."""
        self.rng = np.random.default_rng(seed)
        self.sim.load(int(self.rng.integers(2**31 - 1)))
        for k in range(self.copies):
            for arm in range(4):
                for turn in network.TURNS:
                    edges = [f"{network.ARMS[arm]}i{k}", f"{network.ARMS[(arm + turn) % 4]}o{k}"]
                    self.sim.route.add(f"{k}.{3 * arm + turn - 1}", edges)
        types = self.sim.vehicletype
        types.copy("DEFAULT_VEHTYPE", "controlled")
        types.setImperfection("controlled", 0)
        types.setDecel("controlled", 6.5)
        types.setEmergencyDecel("controlled", EMERGENCY_MPS2)
        types.setAccel("controlled", ACCEL_MPS2)
        types.setMaxSpeed("controlled", self.config.max_speed_mps)
        types.setLength("controlled", 4.5)
        types.setMinGap("controlled", 1.5)
        types.copy("controlled", "background")
        types.setImperfection("background", 0.5)
        self.on_road[:] = False
        self.spawned = 0

    def reset(self, which: np.ndarray) -> None:
        """Start a new episode in the copies `which` `[F]`, leaving the others alone."""
        config, rng, vehicle = self.config, self.rng, self.sim.vehicle
        n, m = config.n_agents, config.n_vehicles
        for k in which.tolist():
            ids = self.ids[k]
            for j in np.flatnonzero(self.on_road[k]).tolist():
                vehicle.remove(ids[j])
            arm = rng.permutation(m) % 4
            turn = rng.choice(3, m, p=TURN_SHARES)
            near = rng.uniform(config.spawn_near_m, config.spawn_far_m, m)
            gap = config.spawn_gap_m + rng.uniform(0, 12, m)
            last: dict[int, float] = {}
            for j, a in enumerate(arm.tolist()):
                last[a] = self.spawn_m[k, j] = last[a] + gap[j] if a in last else near[j]
            speed = rng.uniform(config.spawn_slow_mps, config.spawn_fast_mps, m)
            self.friction[k] = rng.uniform(config.min_friction, 1.0, m)
            self.aggressive[k] = (rng.random(m) < config.p_aggressive) & (np.arange(m) >= n)
            cruise = rng.uniform(0.8, 1.0, m) * config.max_speed_mps
            self.arm[k], self.movement[k] = arm, 3 * arm + turn
            self.speed_mps[k] = speed
            for j in range(m):
                self.spawned += 1
                ids[j] = name = f"{k * m + j}.{self.spawned}"
                depart = max(0.1, self.geometry.approach_m - self.spawn_m[k, j])
                vehicle.add(
                    name, f"{k}.{self.movement[k, j]}", typeID="controlled" if j < n else "background",
                    departPos=f"{depart:.2f}", departSpeed=f"{speed[j]:.2f}",
                )  # fmt: skip
                if j < n or self.aggressive[k, j]:
                    vehicle.setSpeedMode(name, FOLLOW_ONLY)
                if self.aggressive[k, j]:
                    vehicle.setSpeed(name, cruise[j])
        self.pos_m[which] = -self.spawn_m[which]
        for array, value in ((self.present, True), (self.fresh, True), (self.on_road, True), (self.crashed, False),
                             (self.linger, 0), (self.accel_mps2, 0), (self.waited_s, 0), (self.time_s, 0)):  # fmt: skip
            array[which] = value

    def advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let every active agent drive for one decision.

        actions: int `[K, n_agents]`, indices into ACTIONS_MPS2. Returns `crashed` and `clear` `[K, n_agents]`, bool:
        whose drive ended in this decision, in a collision or beyond the junction.
        """
        config, n = self.config, self.config.n_agents
        accel = ACTIONS_MPS2[np.where(active, actions, 0)]
        accel += config.accel_noise_mps2 * self.rng.standard_normal(actions.shape)
        accel = np.maximum(accel, -EMERGENCY_MPS2 * self.friction[:, :n])
        self.accel_mps2 = accel = np.where(active, accel, 0.0)
        late = self._command(accel, active)
        for substep in range(round(config.decision_s / config.step_s)):
            for collision in self.sim.step():
                self._crash(collision.collider)
                self._crash(collision.victim)
            if substep == 0:
                self._command_fresh(accel, late)
        self._read()
        self.time_s += config.decision_s
        self.waited_s += config.decision_s * (active & (self.speed_mps[:, :n] < WAITING_MPS))
        return self.crashed[:, :n] & active, self._clear()[:, :n] & active

    def _command(self, accel: np.ndarray, active: np.ndarray) -> list[tuple[int, int]]:
        """Pass accelerations on; gives those whose vehicle is not yet on the road and cannot be told."""
        accelerate, stop = self.sim.vehicle.setAcceleration, self.sim.vehicle.setSpeed
        stands = (self.speed_mps[:, : accel.shape[1]] <= STANDING_MPS) & (accel <= 0)
        fresh = self.fresh[:, : accel.shape[1]]
        span, ids, values = self.config.decision_s, self.ids, accel.tolist()
        for k, i in np.argwhere(active & ~fresh & ~stands).tolist():
            accelerate(ids[k][i], values[k][i], span)
        for k, i in np.argwhere(active & ~fresh & stands).tolist():
            stop(ids[k][i], 0)
        return np.argwhere(active & fresh).tolist()

    def _command_fresh(self, accel: np.ndarray, late: list[tuple[int, int]]) -> None:
        for k, i in late:
            name = self.ids[k][i]
            if self.present[k, i] and self.sim.vehicle.getDistance(name) > NOT_INSERTED_M:
                self.sim.vehicle.setAcceleration(name, accel[k, i], self.config.decision_s)

    def _crash(self, name: str) -> None:
        k, j = divmod(int(name.partition(".")[0]), self.config.n_vehicles)
        if self.ids[k][j] == name:
            self.crashed[k, j] |= self.present[k, j]  # wrecks beyond the junction are nobody's crash
            self.present[k, j] = self.on_road[k, j] = False

    def _read(self) -> None:
        """Positions and speeds of all present vehicles; those not yet inserted keep what they start with."""
        where = np.argwhere(self.present)
        ids, distance, speed = self.ids, self.sim.vehicle.getDistance, self.sim.vehicle.getSpeed
        names = [ids[k][j] for k, j in where.tolist()]
        driven = np.array([distance(name) for name in names])
        inserted = driven > NOT_INSERTED_M
        k, j = where[inserted].T
        self.pos_m[k, j] = driven[inserted] - self.spawn_m[k, j]
        self.speed_mps[k, j] = np.array([speed(name) for name in names])[inserted]
        self.fresh[k, j] = False

    def _clear(self) -> np.ndarray:
        """Vehicles that came through in this decision; they drive on unseen for a moment, then leave the road."""
        vehicle, n = self.sim.vehicle, self.config.n_agents
        clear = self.present & (self.pos_m > self.geometry.length_m[self.movement] + CLEAR_M)
        self.present &= ~clear
        for k, j in np.argwhere(clear).tolist():
            if j < n:
                vehicle.setSpeed(self.ids[k][j], self.config.max_speed_mps)
        leaving = self.on_road & (self.linger == 1)
        for k, j in np.argwhere(leaving).tolist():
            vehicle.remove(self.ids[k][j])
        self.on_road &= ~leaving
        self.linger -= self.linger > 0
        self.linger[clear] = round(LINGER_S / self.config.decision_s)
        return clear

    def close(self) -> None:
        self.sim.close()
