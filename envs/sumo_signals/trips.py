"""What an episode did to every trip, read from the files that SUMO writes when it closes."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

TAIL = 0.05  # share of trips in the tail
COUNTS = {
    "collisions": ("safety", "collisions"),
    "emergency_stops": ("safety", "emergencyStops"),
    "emergency_braking": ("safety", "emergencyBraking"),
    "teleports": ("teleports", "total"),
}
METRICS = (
    "waiting_mean_s", "waiting_p95_s", "waiting_cvar95_s", "waiting_max_s", "trips", "unfinished_trips",
    "not_inserted_trips", *COUNTS,
)  # fmt: skip


def output_options(folder: Path) -> list[str]:
    """SUMO's options that write the files `read` wants, unfinished trips included: these have the longest waits."""
    return [
        "--tripinfo-output", str(folder / "trips.xml"), "--tripinfo-output.write-unfinished", "true",
        "--tripinfo-output.write-undeparted", "true", "--statistic-output", str(folder / "statistics.xml"),
        "--collision.action", "warn", "--collision.check-junctions", "true",
    ]  # fmt: skip


def read(folder: Path) -> dict[str, float]:
    """The METRICS of the episode that wrote into `folder`.

    The waiting of a trip is the time it stood (below 0.1 m/s) and the time that it could not enter a full road, in
    seconds; a trip that the end of the episode cut short counts with what it waited until then.
    """
    waited, unfinished, not_inserted = [], 0, 0
    for _, trip in ET.iterparse(folder / "trips.xml"):
        if trip.tag == "tripinfo":
            known = trip.attrib
            waited.append(float(known["waitingTime"]) + float(known["departDelay"]))
            unfinished += float(known["arrival"]) < 0
            not_inserted += float(known["depart"]) < 0
            trip.clear()
    statistics = {element.tag: element.attrib for element in ET.parse(folder / "statistics.xml").getroot()}
    counts = {name: float(statistics[tag][key]) for name, (tag, key) in COUNTS.items()}
    numbers = {"trips": len(waited), "unfinished_trips": unfinished, "not_inserted_trips": not_inserted}
    return waiting(np.array(waited)) | {name: float(number) for name, number in numbers.items()} | counts


def waiting(waited_s: np.ndarray) -> dict[str, float]:
    """Mean, 95th percentile, mean of the worst 5 % (at least one trip) and maximum; zeros without trips."""
    names = METRICS[:4]
    if len(waited_s) == 0:
        return dict.fromkeys(names, 0.0)
    worst = np.sort(waited_s)[-max(1, round(TAIL * len(waited_s))) :]
    values = (waited_s.mean(), np.percentile(waited_s, 95), worst.mean(), worst[-1])
    return {name: float(value) for name, value in zip(names, values, strict=True)}
