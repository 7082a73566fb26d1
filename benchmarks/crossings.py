"""Who goes first at a SUMO intersection, and who collides with whom: `python -m benchmarks.crossings RUN ...`.

Plays 1000 episodes (`--episodes`) of each run folder with actions drawn from the policy: its newest checkpoint, or all
that it keeps (`--all`), and with `--mean-of 5` also the policy whose weights are the mean of the last 5; with
`--likeliest` each policy once more by its likeliest actions.

Takes the mean return apart: travel, waiting, hard brakes, and collisions by partner (agent; background driver that
obeys or ignores the right of way; in a pile-up there are two) and by where the partner came from. And of every two
agents whose paths conflict: how often the one from the right went first, by whose arrival at the conflict would have
been earlier had both driven on from the start at 10 m/s. A convention that all keep shows as shares near 0 and 1.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks import tables
from rqe_mappo.checkpoint import complete
from rqe_mappo.config import from_json, spelled
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_intersection import BatchedIntersection
from rqe_mappo.evaluation.episodes import chooser, copies_for, run_episodes

SEED = 4321
SIDES = ("behind", "left", "ahead", "right")  # where the partner comes from; behind: on the same arm
LATE_S = (-np.inf, -2.0, -0.5, 0.5, 2.0, np.inf)  # of the one from the right: later than the other, by so much


class Watch:
    """Looks at an intersection from outside while `run_episodes` plays `each` episodes in every copy of it.

    partners: of the agents in collisions that SUMO registers, by kind and side. impacts: their speeds, m/s.
    first: of two agents that conflict and both came to their conflict, seconds by which the one from the right is late,
        and whether it went first.
    waited_s: of each agent.
    """

    def __init__(self, env: BatchedIntersection, each: int):
        self.env, self.world, self.each = env, env.world, each
        self.partners: Counter[tuple[str, str]] = Counter()
        self.impacts: list[float] = []
        self.first: list[tuple[float, bool]] = []
        self.waited_s: list[float] = []
        self._played = np.zeros(env.num_envs, int)
        self._met: list[list[tuple[str, str]]] = [[] for _ in range(env.num_envs)]  # in the episode that goes on
        self._hit: list[list[float]] = [[] for _ in range(env.num_envs)]
        self._step, self._begin = env.world.sim.step, env._begin
        env.world.sim.step, env._begin = self._watched_step, self._watched_begin

    def _watched_step(self):
        found = self._step()
        for collision in found:
            pair = [self._vehicle(name) for name in (collision.collider, collision.victim)]
            if None not in pair and self.world.present[tuple(np.transpose(pair))].all():
                self._note(*pair)
                self._hit[pair[0][0]].append(max(collision.colliderSpeed, collision.victimSpeed))
        return found

    def _vehicle(self, name: str) -> tuple[int, int] | None:
        k, j = divmod(int(name.partition(".")[0]), self.world.config.n_vehicles)
        return (k, j) if self.world.ids[k][j] == name else None

    def _note(self, one: tuple[int, int], other: tuple[int, int]) -> None:
        """Note a collision once for each agent in it."""
        world, agents = self.world, self.world.config.n_agents
        for me, partner in ((one, other), (other, one)):
            if me[1] < agents:
                kind = "agent" if partner[1] < agents else "ignorant" if world.aggressive[partner] else "lawful"
                self._met[me[0]].append((kind, SIDES[world.geometry.side[world.arm[me], world.arm[partner]]]))

    def _watched_begin(self, which: np.ndarray) -> None:
        """Take in the episodes that have just ended, if they are among those that are recorded, before others begin."""
        ended = which[self._played[which] < self.each] if self.world.spawned else which[:0]
        self._played[ended] += 1
        for copy in ended.tolist():
            self.partners.update(self._met[copy])
            self.impacts += self._hit[copy]
        for copy in which.tolist():
            self._met[copy], self._hit[copy] = [], []
        self.waited_s += self.world.waited_s[ended].ravel().tolist()
        self._take_in_order(ended)
        self._begin(which)

    def _take_in_order(self, ended: np.ndarray) -> None:
        world, agents, met = self.world, self.world.config.n_agents, self.world.encounters
        own, other = (met.moments[name][ended][..., :agents] for name in ("own in", "other in"))
        side = world.geometry.side[world.arm[ended, :agents, None], world.arm[ended, None, :agents]]
        chosen = met.conflict[ended][..., :agents] & ~np.isnan(own) & ~np.isnan(other) & (side == SIDES.index("right"))
        zone, spawn = met.zone_m[ended][:, :, :agents], world.spawn_m[ended, :agents]
        late = ((spawn[:, None] + zone[..., 2]) - (spawn[:, :, None] + zone[..., 0])) / 10
        self.first += zip(late[chosen].tolist(), (other < own)[chosen].tolist(), strict=True)

    def close(self) -> None:
        self.env.world.sim.step, self.env._begin = self._step, self._begin


def row(policy: Policy, env: BatchedIntersection, each: int, likeliest: bool) -> dict[str, float]:
    """What one policy does, by its likeliest actions or by drawn ones."""
    watch = Watch(env, each)
    records, _ = run_episodes(env, chooser(policy, likeliest), each, SEED)
    watch.close()
    took_part = records["length"] > 0
    vehicles, config = int(took_part.sum()), env.config
    travel, brakes, crashed = (records[name][took_part] for name in ("travel_time_s", "hard_brakes", "collision"))
    found = {
        "mean return": float(records["return"][took_part].mean()),
        "travel": float(travel.mean()),
        "waiting": float(np.mean(watch.waited_s)),
        "hard brakes": float(brakes.mean()),
        "collisions": float(crashed.mean()),
        "cost of collisions": config.collision_cost * float(crashed.mean()),
        "impact m/s": float(np.mean(watch.impacts)) if watch.impacts else np.nan,
    }
    for kind in ("agent", "lawful", "ignorant"):
        for side in SIDES:
            found[f"with {kind} {side}"] = watch.partners[kind, side] / vehicles
    late, first = np.array([entry[0] for entry in watch.first]), np.array([entry[1] for entry in watch.first])
    for low, high in itertools.pairwise(LATE_S):
        mine = (late > low) & (late <= high)
        found[f"right first, late {low:g} to {high:g} s"] = float(first[mine].mean()) if mine.any() else np.nan
    return found


def mean_of(policies: list[Policy]) -> Policy:
    """The last of them, with the mean of their actors' weights."""
    last = policies[-1]
    weights = [policy.actor.state_dict() for policy in policies]
    last.actor.load_state_dict(
        {
            name: torch.stack([each[name] for each in weights]).mean(0) if value.is_floating_point() else value
            for name, value in weights[-1].items()
        }
    )
    return last


def checkpoints(folder: Path, every: bool) -> Iterable[Policy]:
    if not every:
        yield Policy.load(folder)
        return
    for name in complete(folder):
        yield Policy.load(folder / "checkpoints" / f"{name}.policy.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of --env sumo")
    parser.add_argument("--episodes", type=int, default=1000, help="of each policy (default: 1000)")
    parser.add_argument("--all", action="store_true", help="every checkpoint that a run keeps")
    parser.add_argument("--likeliest", action="store_true", help="play each policy by its likeliest actions too")
    parser.add_argument("--mean-of", type=int, default=1, help="checkpoints whose mean weights are played too")
    parser.add_argument("--out", type=Path, default=tables.RESULTS / "crossings.csv", help="the CSV to write")
    args = parser.parse_args()
    copies, each = copies_for(args.episodes)
    table, env = [], None  # one environment for all: a policy trained at another price of collisions is judged at this
    for folder in args.runs:
        chosen = [(policy, 1) for policy in checkpoints(folder, args.all)]
        if args.mean_of > 1:
            last = list(checkpoints(folder, True))[-args.mean_of :]
            chosen.append((mean_of(last), len(last)))
        for policy, number in chosen:
            config = from_json(policy.config_json)
            if env is None:
                env = vector.make(config, copies, in_process=True)
            line = {
                "run": "/".join(folder.parts[-2:]),
                "tau": spelled(config.algorithm.tau),
                "step": policy.timesteps,
                "checkpoints": number,
            }
            for likeliest in (False, True)[: 1 + args.likeliest]:
                table.append(
                    line | {"actions": "likeliest" if likeliest else "drawn"} | row(policy, env, each, likeliest)
                )
                shown = ("actions", "mean return", "travel", "waiting", "collisions", "hard brakes")
                print(*line.values(), *(table[-1][name] for name in shown), sep="  ", flush=True)
                tables.write(args.out, table)


if __name__ == "__main__":
    main()
