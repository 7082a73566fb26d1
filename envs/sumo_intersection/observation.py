"""What agents perceive and what the critic sees: pure functions of arrays `[K, M]`, batched over K intersections."""

from dataclasses import dataclass

import numpy as np

from rqe_mappo.envs.sumo_intersection.dynamics import Intersections
from rqe_mappo.envs.sumo_intersection.safety import BODY_M

OWN, OTHER = 9, 8  # features of the agent itself, and of each neighbour
TRUE = 6  # features of each vehicle in the critic's view, beside its arm
SEEN_M = 8.0  # nearer than this no vehicle is missed
LIMIT = 5.0


@dataclass(frozen=True)
class Perceived:
    """How agent i perceives vehicle j, `[K, n_agents, M]`, with this decision's noise.

    own_in_m, own_out_m: agent's distances to where their paths begin and end to conflict; other_in_m, other_out_m: the
    other's; speed_mps: the other's; seen: it conflicts, is present, has not passed, and was not missed.
    """

    own_in_m: np.ndarray
    own_out_m: np.ndarray
    other_in_m: np.ndarray
    other_out_m: np.ndarray
    speed_mps: np.ndarray
    seen: np.ndarray


def perceive(world: Intersections) -> Perceived:
    """Draw the noise of one decision and relate every agent to every vehicle."""
    config, rng, n = world.config, world.rng, world.config.n_agents
    shape = (world.copies, n, config.n_vehicles)
    own = world.pos_m[:, :n, None]
    other = world.pos_m[:, None] + config.position_noise_m * rng.standard_normal(shape, np.float32)
    speed = np.maximum(0, world.speed_mps[:, None] + config.speed_noise_mps * rng.standard_normal(shape, np.float32))
    zone = world.encounters.zone_m
    own_in, own_out = zone[..., 0] - own, zone[..., 1] + BODY_M - own
    other_in, other_out = zone[..., 2] - other, zone[..., 3] + BODY_M - other
    seen = world.encounters.conflict & world.present[:, None] & (own_out > 0) & (other_out > 0)
    seen &= ~((rng.random(shape, np.float32) < config.miss_probability) & (other_in > SEEN_M))
    return Perceived(own_in, own_out, other_in, other_out, speed, seen)


def observe(world: Intersections, perceived: Perceived) -> np.ndarray:
    """float32 `[K, n_agents, 9 + 8 * neighbours]`: see the table in `IntersectionEnv`."""
    config, n = world.config, world.config.n_agents
    pos, speed = world.pos_m[:, :n], world.speed_mps[:, :n]
    out = np.zeros((world.copies, n, OWN + OTHER * config.neighbours), np.float32)
    out[..., 0] = speed / config.max_speed_mps
    out[..., 1] = np.minimum(np.maximum(-pos / 50, -2), 2)
    np.put_along_axis(out[..., 2:5], world.geometry.turn[world.movement[:, :n]][..., None], 1.0, -1)
    out[..., 5] = (world.time_s / config.horizon_s)[:, None]
    out[..., 6] = np.minimum(world.waited_s / 10, 2)
    out[..., 7] = pos > 0
    out[..., 8] = world.accel_mps2 / 6

    arrive = np.maximum(perceived.own_in_m, 0) / np.maximum(speed, 2)[..., None]
    other_arrives = np.maximum(perceived.other_in_m, 0) / np.maximum(perceived.speed_mps, 0.5)
    urgency = np.where(perceived.seen, np.abs(other_arrives - arrive) + 0.1 * other_arrives, np.inf)
    nearest = np.argsort(urgency, -1)[..., : config.neighbours]
    side = world.geometry.side[world.arm[:, :n, None], world.arm[:, None]]
    features = np.stack(
        (
            np.ones_like(arrive),
            np.clip(perceived.own_in_m / 30, -1, 3),
            np.clip(perceived.other_in_m / 30, -1, 3),
            perceived.speed_mps / config.max_speed_mps,
            np.clip((other_arrives - arrive) / 4, -3, 3),
            *(side == where for where in (1, 2, 3)),
        ),
        -1,
    )
    features *= perceived.seen[..., None]
    chosen = np.take_along_axis(features, nearest[..., None], 2)
    out[..., OWN : OWN + OTHER * chosen.shape[2]] = chosen.reshape(world.copies, n, -1)
    out = np.clip(out, -LIMIT, LIMIT, out=out)
    out[~world.present[:, :n] | world.human] = 0
    return out


def state_width(world: Intersections) -> int:
    """Features of each vehicle in `true_features`."""
    return TRUE + world.geometry.arms


def true_features(world: Intersections) -> np.ndarray:
    """float32 `[K, M, 6 + arms]`, zeros for vehicles not present: -position / 50 m, speed, present, turn, arm.

    Friction and the drivers' types stay out: a critic that sees the cause of a risk no longer sees the risk.
    """
    out = np.zeros((world.copies, world.config.n_vehicles, state_width(world)), np.float32)
    out[..., 0] = np.minimum(np.maximum(-world.pos_m / 50, -2), 2)
    out[..., 1] = world.speed_mps / world.config.max_speed_mps
    out[..., 2] = 1
    np.put_along_axis(out[..., 3:6], world.geometry.turn[world.movement][..., None], 1.0, -1)
    np.put_along_axis(out[..., TRUE:], world.arm[..., None], 1.0, -1)
    out *= world.present[..., None]
    return out


def critic_view(world: Intersections) -> np.ndarray:
    """float32 `[K, n_agents, 2 + (6 + arms) M]`: elapsed time, own acceleration, true features, itself first."""
    n, m = world.config.n_agents, world.config.n_vehicles
    order = np.array([[i, *(j for j in range(m) if j != i)] for i in range(n)])
    features = true_features(world)[:, order]  # [K, n, M, 6 + arms]
    relative = (world.arm[:, order] - world.arm[:, :n, None]) % world.geometry.arms
    features[..., TRUE:] = 0
    np.put_along_axis(features[..., TRUE:], relative[..., None], 1.0, -1)
    features[..., TRUE:] *= features[..., 2:3]
    out = np.empty((world.copies, n, 2 + state_width(world) * m), np.float32)
    out[..., 0] = (world.time_s / world.config.horizon_s)[:, None]
    out[..., 1] = world.accel_mps2 / 6
    out[..., 2:] = features.reshape(world.copies, n, -1)
    out[~world.present[:, :n] | world.human] = 0
    return out
