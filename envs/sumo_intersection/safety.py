"""Surrogate safety measures: how close encounters came, from true positions, per agent and episode."""

import numpy as np

BODY_M = 5.0  # how far beyond a zone a vehicle still occupies it


class Encounters:
    """Times to collision and post-encroachment times of K copies with n agents and M vehicles.

    zone_m: `[K, n, M, 4]`, where the paths of agent i and vehicle j begin and end to conflict, along i's and along j's;
        conflict: `[K, n, M]`, whether they do. Both are set at the start of each episode.
    min_ttc_s: `[K, n]`, the least time to collision so far: the time until the second of two vehicles enters a zone
        while the first is still in it, if both keep their speeds; inf without such an encounter.
    The encroachment times come from the moments `[K, n, M]` at which either entered and left the zone, interpolated
    between decisions (nan: not yet).
    """

    def __init__(self, copies: int, agents: int, vehicles: int):
        shape = (copies, agents, vehicles)
        self.zone_m, self.conflict = np.zeros((*shape, 4)), np.zeros(shape, bool)
        self.own_out_m, self.other_out_m = np.zeros(shape), np.zeros(shape)
        self.moments = {name: np.full(shape, np.nan) for name in ("own in", "own out", "other in", "other out")}
        self.min_ttc_s = np.full((copies, agents), np.inf)

    def reset(self, which: np.ndarray, zone_m: np.ndarray, conflict: np.ndarray, last_m: np.ndarray) -> None:
        """New episodes in the copies `which` `[F]`; last_m `[F, M]`: where each vehicle is through and seen no more."""
        n = self.conflict.shape[1]
        self.zone_m[which], self.conflict[which] = zone_m, conflict
        self.own_out_m[which] = np.minimum(zone_m[..., 1] + BODY_M, last_m[:, :n, None])
        self.other_out_m[which] = np.minimum(zone_m[..., 3] + BODY_M, last_m[:, None])
        for moment in self.moments.values():
            moment[which] = np.nan
        self.min_ttc_s[which] = np.inf

    def observe(
        self, before_m: np.ndarray, pos_m: np.ndarray, speed_mps: np.ndarray, present: np.ndarray, until_s: np.ndarray,
        span_s: float,
    ) -> None:  # fmt: skip
        """Take in a decision of `span_s` that ended at `until_s` `[K]`; positions, speeds, presence `[K, M]`."""
        n = self.conflict.shape[1]
        levels = {"own in": self.zone_m[..., 0], "own out": self.own_out_m,
                  "other in": self.zone_m[..., 2], "other out": self.other_out_m}  # fmt: skip
        moved = np.maximum(pos_m - before_m, 1e-9)
        for name, level in levels.items():
            own = name.startswith("own")
            start, end, step = ((x[:, :n, None] if own else x[:, None]) for x in (before_m, pos_m, moved))
            crossed = self.conflict & (start < level) & (end >= level)
            if crossed.any():
                at = until_s[:, None, None] + span_s * ((level - start) / step - 1)
                self.moments[name][crossed] = at[crossed]
        slow = speed_mps < 0.1
        pace = np.where(slow, np.inf, 1 / np.maximum(speed_mps, 0.1))
        own_in, own_out = _span(levels["own in"], self.own_out_m, pos_m[:, :n, None], pace[:, :n, None])
        other_in, other_out = _span(levels["other in"], self.other_out_m, pos_m[:, None], pace[:, None])
        meet = self.conflict & (own_in < other_out) & (other_in < own_out) & (own_out > 0) & (other_out > 0)
        meet &= present[:, :n, None] & present[:, None]
        ttc = np.where(meet, np.maximum(own_in, other_in), np.inf).min(-1)
        np.minimum(self.min_ttc_s, ttc, out=self.min_ttc_s)

    def pet_s(self, which: np.ndarray) -> np.ndarray:
        """`[F, n]`, the least time between one vehicle leaving a zone and the other entering it; 0 if both were in it.

        nan without an encounter of which both ends were seen.
        """
        moment = {name: values[which] for name, values in self.moments.items()}
        first = moment["other in"] - moment["own out"]
        second = moment["own in"] - moment["other out"]
        return np.fmin.reduce(np.maximum(np.fmax(first, second), 0), -1)


def _span(begin: np.ndarray, end: np.ndarray, pos: np.ndarray, pace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times until a zone is entered (0 within it) and left, at a pace in s/m, infinite for a vehicle that stands."""
    ahead, beyond = begin - pos, end - pos
    with np.errstate(invalid="ignore"):  # 0 * inf
        return np.where(ahead > 0, ahead * pace, 0.0), np.where(beyond > 0, beyond * pace, 0.0)
