"""K intersections in one simulation: traffic, collisions, rewards. Every form of the environment steps this class."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.geometry import read
from rqe_mappo.envs.sumo_intersection.junction import Junction, copies_of, cut, read_town
from rqe_mappo.envs.sumo_intersection.network import build, keep, read_cached
from rqe_mappo.envs.sumo_intersection.overlaps import LENGTH_M, corners, overlap
from rqe_mappo.envs.sumo_intersection.roads import BUILT_IN, JUNCTION
from rqe_mappo.envs.sumo_intersection.safety import Encounters
from rqe_mappo.envs.sumo_intersection.simulation import Simulation

ACTIONS_MPS2 = np.array([-6.0, -2.0, 0.0, 2.5])
"""Commanded accelerations: brake hard, brake, keep, go."""
TURN_SHARES = np.array([0.3, 0.5, 0.2])  # left, straight, right; of those that there are
EMERGENCY_MPS2 = 9.0  # braking on a dry road; friction scales it
HARD_BRAKE_MPS2 = -4.0
ACCEL_MPS2 = 3.0  # the most that SUMO lets a vehicle gain
CLEAR_M = 8.0  # beyond the junction
LINGER_S = 2.5  # that a vehicle which is clear stays on the exit lane
FOLLOW_ONLY = 39  # speed mode: keep to car-following and acceleration limits, ignore the right of way everywhere
LAWFUL = 31  # speed mode: SUMO's driver model, with perfect perception
NO_LANE_CHANGES = 0
SUMO_DRIVES = -1
"""As an action: leave the vehicle to SUMO's driver model."""
STANDING_MPS = 0.05
WAITING_MPS = 0.5
NOT_INSERTED_M = -1e5  # libsumo reports a huge negative distance until a vehicle has entered the road


def junction_of(config: IntersectionConfig) -> Junction:
    """The junction that `net` and `junction` name; ValueError with the reason where it cannot be used."""
    if config.net:
        net = Path(config.net)
        try:
            return cut(net, read_town(net), config.junction, config.room_m)
        except Exception as error:  # whatever a damaged network leads to
            if isinstance(error, ValueError) and str(error).startswith("--"):  # a refusal that names its flag
                raise
            raise ValueError(f"--net {net} is damaged ({type(error).__name__}: {error}): make it again") from None
    if config.junction not in BUILT_IN:
        known = " or ".join(BUILT_IN)
        raise ValueError(
            f"--junction {config.junction} is unknown: use {known}, or one of the network that --net names"
        )
    arms, make = BUILT_IN[config.junction]
    net = build(make(config.room_m(arms)))
    return cut(net, read_cached(net), JUNCTION)


class Intersections:
    """Arrays `[K, M]` of K copies with M vehicles each, the first `n_agents` of them controlled.

    pos_m: distance of the front bumper past the stop line along the vehicle's route, negative before it.
    speed_mps, friction, aggressive (background only), arm (clockwise from north), movement: see `Geometry`.
    present: on its way: inserted or about to be, not clear, not crashed.
    human: agents' slots that SUMO drives in this episode, `[K, n_agents]`.
    impact_mps: speed of the faster vehicle in its collision, nan without one.
    hit_agents `[K, n_agents]`: with how many other agents the agent collided in the last decision.
    encounters: how close vehicles came.
    accel_mps2, waited_s `[K, n_agents]`: last command as executed, and time spent below 0.5 m/s.
    time_s `[K]`: since the start of each copy's episode.
    """

    def __init__(self, config: IntersectionConfig, copies: int):
        if copies < 1:
            raise ValueError(f"an intersection needs at least 1 copy (got {copies})")
        self.config, self.copies = config, copies
        junction = junction_of(config)
        net = keep(copies_of(junction, copies), f"junction_{copies}")
        self.geometry = read(net, junction.name)
        self.sim = Simulation(net, config.step_s, config.sumo_backend)
        self.turns = self._turns()
        self.several_lanes = any(self.geometry.lane)
        self.all_registered = not self.geometry.unregistered.any()
        k, m, n = copies, config.n_vehicles, config.n_agents
        self.pos_m, self.speed_mps, self.friction, self.spawn_m = (np.zeros((k, m)) for _ in range(4))
        self.present, self.fresh, self.crashed, self.on_road, self.aggressive = (
            np.zeros((k, m), bool) for _ in range(5)
        )
        self.arm, self.movement, self.linger = (np.zeros((k, m), int) for _ in range(3))
        self.accel_mps2, self.waited_s = np.zeros((k, n)), np.zeros((k, n))
        self.human, self.released = np.zeros((k, n), bool), np.zeros((k, n), bool)
        self.impact_mps, self.hit_agents = np.full((k, m), np.nan), np.zeros((k, n), int)
        self.encounters = Encounters(k, n, m)
        self.time_s = np.zeros(k)
        self.ids = [[""] * m for _ in range(k)]
        self.spawned = 0
        self.rng = np.random.default_rng()
        self.watch: Callable[[], None] | None = None  # called after each simulation step, to take pictures

    def _turns(self) -> list[tuple[int, np.ndarray]]:
        """For each arm its first movement, and the cumulative shares of its movements."""
        arm, turn = self.geometry.arm, self.geometry.turn
        found = []
        for a in range(self.geometry.arms):
            of_arm = np.flatnonzero(arm == a)
            shares = TURN_SHARES[turn[of_arm]].cumsum()
            found.append((int(of_arm[0]), shares / shares[-1]))
        return found

    def load(self, seed: int) -> None:
        """Empty the roads and seed every random number; follow with `reset` of all copies."""
        self.rng = np.random.default_rng(seed)
        self.sim.load(int(self.rng.integers(2**31 - 1)))
        for k in range(self.copies):
            for p, (entry, leave) in enumerate(zip(self.geometry.entry, self.geometry.leave, strict=True)):
                self.sim.route.add(f"{k}.{p}", [f"{entry}{k}", f"{leave}{k}"])
        types = self.sim.vehicletype
        types.copy("DEFAULT_VEHTYPE", "controlled")
        types.setImperfection("controlled", 0)
        types.setDecel("controlled", 6.5)
        types.setEmergencyDecel("controlled", EMERGENCY_MPS2)
        types.setAccel("controlled", ACCEL_MPS2)
        types.setMaxSpeed("controlled", self.config.max_speed_mps)
        types.setLength("controlled", LENGTH_M)
        types.setMinGap("controlled", 1.5)
        types.copy("controlled", "background")
        types.setImperfection("background", 0.5)
        self.on_road[:] = False
        self.spawned = 0

    def reset(self, which: np.ndarray) -> None:
        """Start a new episode in the copies `which` `[F]`, leaving the others alone."""
        config, rng, vehicle, geometry = self.config, self.rng, self.sim.vehicle, self.geometry
        n, m = config.n_agents, config.n_vehicles
        for k in which.tolist():
            ids = self.ids[k]
            for j in np.flatnonzero(self.on_road[k]).tolist():
                vehicle.remove(ids[j])
            arm = rng.permutation(m) % geometry.arms
            chance = rng.random(m)
            near = rng.uniform(config.spawn_near_m, config.spawn_far_m, m)
            gap = config.spawn_gap_m + rng.uniform(0, 12, m)
            last: dict[int, float] = {}
            for j, a in enumerate(arm.tolist()):
                last[a] = self.spawn_m[k, j] = last[a] + gap[j] if a in last else near[j]
            speed = rng.uniform(config.spawn_slow_mps, config.spawn_fast_mps, m)
            self.friction[k] = rng.uniform(config.min_friction, 1.0, m)
            driven = np.arange(m) < n
            self.aggressive[k] = rng.random(m) < config.p_aggressive
            cruise = rng.uniform(0.8, 1.0, m) * config.max_speed_mps
            if config.human_share > 0:
                driven[:n] = rng.random(n) >= config.human_share
                if not driven.any():
                    driven[rng.integers(n)] = True
                self.human[k] = ~driven[:n]
            self.aggressive[k] &= ~driven
            self.arm[k] = arm
            for j, a in enumerate(arm.tolist()):
                first, shares = self.turns[a]
                self.movement[k, j] = first + shares.searchsorted(chance[j], "right")
            self.speed_mps[k] = speed = np.minimum(speed, geometry.limit_mps[self.movement[k]])
            for j in range(m):
                self.spawned += 1
                ids[j] = name = f"{k * m + j}.{self.spawned}"
                movement = self.movement[k, j]
                depart = max(0.1, geometry.approach_m[movement] - self.spawn_m[k, j])
                vehicle.add(
                    name, f"{k}.{movement}", typeID="controlled" if driven[j] else "background",
                    departLane=str(geometry.lane[movement]), departPos=f"{depart:.2f}", departSpeed=f"{speed[j]:.2f}",
                )  # fmt: skip
                if driven[j] or self.aggressive[k, j]:
                    vehicle.setSpeedMode(name, FOLLOW_ONLY)
                if self.several_lanes:
                    vehicle.setLaneChangeMode(name, NO_LANE_CHANGES)
                if self.aggressive[k, j]:
                    vehicle.setSpeed(name, cruise[j])
        self.pos_m[which] = -self.spawn_m[which]
        for array, value in ((self.present, True), (self.fresh, True), (self.on_road, True), (self.crashed, False),
                             (self.linger, 0), (self.accel_mps2, 0), (self.waited_s, 0), (self.time_s, 0),
                             (self.released, False), (self.impact_mps, np.nan)):  # fmt: skip
            array[which] = value
        mine, theirs = self.movement[which][:, :n, None], self.movement[which][:, None]
        through_m = geometry.length_m[self.movement[which]] + CLEAR_M
        self.encounters.reset(which, geometry.zones_m[mine, theirs], geometry.conflicts[mine, theirs], through_m)

    def advance(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let every active agent drive for one decision.

        actions: int `[K, n_agents]`, indices into ACTIONS_MPS2, or SUMO_DRIVES. Returns `crashed` and `clear`
        `[K, n_agents]`, bool: whose drive ended in this decision, in a collision or beyond the junction.
        """
        config, n = self.config, self.config.n_agents
        left = active & (actions == SUMO_DRIVES)
        self._release(left, active & ~left)
        self.hit_agents[:] = 0
        before_m, before_mps = self.pos_m.copy(), self.speed_mps[:, :n].copy()
        accel = ACTIONS_MPS2[np.where(active & ~left, actions, 0)]
        accel += config.accel_noise_mps2 * self.rng.standard_normal(actions.shape)
        accel = np.maximum(accel, -EMERGENCY_MPS2 * self.friction[:, :n])
        self.accel_mps2 = accel = np.where(active, accel, 0.0)
        late = self._command(accel, active & ~left)
        pairs = [] if self.all_registered else self._unregistered()
        for substep in range(round(config.decision_s / config.step_s)):
            for collision in self.sim.step():
                impact_mps = max(collision.colliderSpeed, collision.victimSpeed)
                self._crash((collision.collider, collision.victim), impact_mps)
            if pairs:
                self._collide(pairs)
            if substep == 0:
                self._command_fresh(accel, late)
            if self.watch is not None:
                self.watch()
        self._read()
        self.time_s += config.decision_s
        self.waited_s += config.decision_s * (active & (self.speed_mps[:, :n] < WAITING_MPS))
        if left.any():
            self.accel_mps2[left] = ((self.speed_mps[:, :n] - before_mps) / config.decision_s)[left]
        seen = (self.pos_m, self.speed_mps, self.present, self.time_s)
        self.encounters.observe(before_m, *seen, config.decision_s)
        return self.crashed[:, :n] & active, self._clear()[:, :n] & active

    def _release(self, left: np.ndarray, taken: np.ndarray) -> None:
        """Switch vehicles to SUMO's driver model, or back."""
        for change, mode in ((left & ~self.released, LAWFUL), (taken & self.released, FOLLOW_ONLY)):
            for k, i in np.argwhere(change).tolist():
                self.sim.vehicle.setSpeedMode(self.ids[k][i], mode)
                self.sim.vehicle.setSpeed(self.ids[k][i], -1)
        self.released = (self.released | left) & ~taken

    def _command(self, accel: np.ndarray, active: np.ndarray) -> list[list[int]]:
        """Pass accelerations on; returns those whose vehicle is not yet on the road and cannot be commanded."""
        accelerate, stop = self.sim.vehicle.setAcceleration, self.sim.vehicle.setSpeed
        stands = (self.speed_mps[:, : accel.shape[1]] <= STANDING_MPS) & (accel <= 0)
        fresh = self.fresh[:, : accel.shape[1]]
        span, ids, values = self.config.decision_s, self.ids, accel.tolist()
        for k, i in np.argwhere(active & ~fresh & ~stands).tolist():
            accelerate(ids[k][i], values[k][i], span)
        for k, i in np.argwhere(active & ~fresh & stands).tolist():
            stop(ids[k][i], 0)
        return np.argwhere(active & fresh).tolist()

    def _command_fresh(self, accel: np.ndarray, late: list[list[int]]) -> None:
        for k, i in late:
            name = self.ids[k][i]
            if self.present[k, i] and self.sim.vehicle.getDistance(name) > NOT_INSERTED_M:
                self.sim.vehicle.setAcceleration(name, accel[k, i], self.config.decision_s)

    def _crash(self, names: Sequence[str], impact_mps: float) -> None:
        """Vehicles that collided with each other, or the one of them that is still there."""
        places = [divmod(int(name.partition(".")[0]), self.config.n_vehicles) for name in names]
        places = [(k, j) for (k, j), name in zip(places, names, strict=True) if self.ids[k][j] == name]
        counted = [place for place in places if self.present[place]]  # not those that are already clear
        for place in counted:
            self.crashed[place], self.impact_mps[place] = True, impact_mps
        for place in places:
            self.present[place] = self.on_road[place] = False
        if len(agents := [place for place in counted if place[1] < self.config.n_agents]) == 2:
            for place in agents:
                self.hit_agents[place] += 1

    def _unregistered(self) -> list[list[int]]:
        """A copy and two of its vehicles each, that may meet in this decision without SUMO's registering it."""
        ahead_m = self.config.max_speed_mps * self.config.decision_s + LENGTH_M
        near = self.present & ~self.fresh & (self.pos_m > -ahead_m)
        apart = self.geometry.unregistered[self.movement[:, :, None], self.movement[:, None]]
        return np.argwhere(np.triu(apart & near[:, :, None] & near[:, None])).tolist()

    def _collide(self, pairs: list[list[int]]) -> None:
        """Let those `pairs` collide whose bodies overlap now, as SUMO does where it registers it: both are removed."""
        vehicle, ids = self.sim.vehicle, self.ids
        pairs = [pair for pair in pairs if self.present[pair[0], pair[1:]].all()]
        if not pairs:
            return
        names = [(ids[k][i], ids[k][j]) for k, i, j in pairs]
        front = np.array([[vehicle.getPosition(name) for name in both] for both in names])
        body = corners(front, np.array([[vehicle.getAngle(name) for name in both] for both in names]))
        for hit in np.flatnonzero(overlap(body[:, 0], body[:, 1])).tolist():
            k, *both = pairs[hit]
            there = [j for j in both if self.on_road[k, j]]  # one may have hit a third vehicle just now
            impact_mps = max(vehicle.getSpeed(ids[k][j]) for j in there) if there else 0.0
            for j in there:
                vehicle.remove(ids[k][j])
            self._crash([ids[k][j] for j in there], impact_mps)

    def _read(self) -> None:
        """Positions and speeds of all present vehicles; those not yet inserted keep their initial values."""
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
        """Vehicles that came through in this decision; they drive on unseen for LINGER_S, then are removed."""
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
