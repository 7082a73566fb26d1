"""Settings of the traffic lights, with their units, and named combinations."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from rqe_mappo.envs.sumo_signals.nets import NETS, Net, bundled, checked

PROGRAM = -1
"""In place of a phase: SUMO runs the light's own program. Chosen in all decisions of an episode or in none."""

Reward = Literal["long-waiting", "waiting", "diff-waiting-time", "average-speed", "queue", "pressure"]


@dataclass(frozen=True)
class SignalsConfig:
    """Traffic lights that choose their next green phase, through sumo-rl."""

    net: str = "2way-single-intersection"
    """A network and demand included in sumo-rl, such as cologne3 or grid4x4; see docs/signals.md."""
    net_file: str | None = None
    """A SUMO network (.net.xml or .net.xml.gz) of your own instead; needs its demand, --route-file."""
    route_file: str | None = None
    """The demand (.rou.xml) for --net-file; several files with commas between, those of vehicle types first."""
    additional_files: str | None = None
    """Further files of SUMO (.add.xml), commas between: programs of lights, vehicle types, stops, also demand."""
    begin_s: int | None = None
    """Second of the demand's clock at which episodes start (default: that of the net, such as 25200 for cologne3)."""
    num_seconds: int = 3600
    """Length of an episode in seconds."""
    delta_time_s: int = 5
    """Seconds between decisions."""
    yellow_time_s: int = 2
    """Seconds of yellow between two green phases."""
    min_green_s: int = 5
    """Shortest green in seconds; before, a light keeps its phase whatever its action."""
    reward: Reward = "long-waiting"
    """What a light earns; long-waiting is minus the vehicle-minutes stood, weighed by length (docs/signals.md)."""
    most_waiting: int = 100
    """Waiting vehicles of one light that count at most; bounds the reward, and so the atoms of the critic."""
    demand: float = 1.0
    """Scale of the demand: 1.2 sends a fifth more vehicles."""
    demand_spread: float = 0.0
    """Each episode's demand is scaled by a further hidden factor, uniform in 1 minus to 1 plus this."""
    teleport_s: int = -1
    """Seconds after which SUMO teleports a stuck vehicle (-1: never)."""

    def __post_init__(self):
        if not self.demand < math.inf:
            raise ValueError(f"--demand must be finite (got {self.demand})")
        if self.net not in NETS:
            raise ValueError(f"--net {self.net} is unknown: use {', '.join(NETS)}, or --net-file with --route-file")
        if self.net_file is None and self.route_file is not None:
            raise ValueError("--route-file needs a --net-file: give both, or use --net")
        if self.net_file is not None and self.route_file is None and self.additional_files is None:
            raise ValueError("--net-file needs a --route-file (or --additional-files with the demand)")
        for name in ("num_seconds", "yellow_time_s", "min_green_s", "most_waiting"):
            self._require(getattr(self, name) >= 1, name, "be at least 1")
        self._require(self.begin_s is None or self.begin_s >= 0, "begin_s", "be >= 0")
        self._require(self.delta_time_s > self.yellow_time_s, "delta_time_s", "be greater than --yellow-time-s")
        self._require(self.demand > 0, "demand", "be > 0")
        self._require(0 <= self.demand_spread < 1, "demand_spread", "lie in [0, 1)")
        self._require(self.teleport_s == -1 or self.teleport_s >= 1, "teleport_s", "be at least 1, or -1 for never")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} must {rule} (got {getattr(self, name)})")

    @property
    def horizon(self) -> int:
        """Decisions of an episode."""
        return -(-self.num_seconds // self.delta_time_s)

    def files(self) -> Net:
        """The network to simulate; ValueError where a file is missing, or the network is none."""
        net = bundled(self.net) if self.net_file is None else Net(self.net_file, self.route_file or "")
        begin_s = net.begin_s if self.begin_s is None else self.begin_s
        return checked(replace(net, begin_s=begin_s, additional_files=self.additional_files or ""))


SCENARIOS = {
    "default": SignalsConfig(),
    "uncertain": SignalsConfig(demand_spread=0.3),
    "cologne": SignalsConfig(net="cologne3"),
    "grid": SignalsConfig(net="grid4x4"),
}
