"""Surrogate safety measures against encounters worked out by hand, and on real SUMO."""

from dataclasses import replace

import numpy as np
import pytest

from rqe_mappo.envs.sumo_intersection.safety import BODY_M, Encounters


def encounter(own_m: float, other_m: float, own_mps: float, other_mps: float, seconds: float = 6.0) -> Encounters:
    """One agent and one other at constant speeds; the zone lies 0 to 4 m beyond both stop lines."""
    met = Encounters(1, 1, 2)
    zone, conflict = np.zeros((1, 1, 2, 4)), np.array([[[False, True]]])
    zone[0, 0, 1] = (0.0, 4.0, 0.0, 4.0)
    met.reset(np.array([0]), zone, conflict, np.full((1, 2), 50.0))
    pos, speed, present = np.array([[own_m, other_m]]), np.array([[own_mps, other_mps]]), np.ones((1, 2), bool)
    for i in range(int(seconds / 0.5)):
        before, pos = pos, pos + 0.5 * speed
        met.observe(before, pos, speed, present, np.array([0.5 * (i + 1)]), 0.5)
    return met


def test_time_to_collision_is_when_the_second_enters_while_the_first_is_inside():
    """At the first decision the agent is 5 m away at 10 m/s, the other 15 m: in for 0.5 to 1.4 s and 1.5 to 2.4 s."""
    apart = encounter(-10.0, -20.0, 10.0, 10.0)
    assert np.isinf(apart.min_ttc_s[0, 0])
    # half a metre closer per second: the second enters 1.3 s after the first decision, before the first has left
    close = encounter(-10.0, -18.0, 10.0, 10.0, seconds=0.5)
    assert close.min_ttc_s[0, 0] == pytest.approx(1.3)


def test_post_encroachment_time_is_the_gap_between_leaving_and_entering():
    """The agent's rear is out of the zone after (10 + 4 + BODY_M) / 10 s, the other in it after 3 s."""
    met = encounter(-10.0, -30.0, 10.0, 10.0)
    assert met.pet_s(np.array([0]))[0, 0] == pytest.approx(3.0 - (14 + BODY_M) / 10)
    assert encounter(-30.0, -10.0, 10.0, 10.0).pet_s(np.array([0]))[0, 0] == pytest.approx(3.0 - (14 + BODY_M) / 10)


def test_both_within_the_zone_is_no_gap_at_all():
    assert encounter(-10.0, -12.0, 10.0, 10.0).pet_s(np.array([0]))[0, 0] == 0


def test_who_stands_meets_nobody():
    met = encounter(-10.0, -12.0, 10.0, 0.0)
    assert np.isinf(met.min_ttc_s[0, 0])
    assert np.isnan(met.pet_s(np.array([0]))[0, 0])


def test_a_new_episode_forgets():
    met = encounter(-10.0, -12.0, 10.0, 10.0)
    met.reset(np.array([0]), np.zeros((1, 1, 2, 4)), np.zeros((1, 1, 2), bool), np.full((1, 2), 50.0))
    assert np.isinf(met.min_ttc_s[0, 0])
    assert np.isnan(met.pet_s(np.array([0]))[0, 0])


@pytest.mark.slow
def test_on_sumo_crashes_come_with_speeds_and_close_calls():
    pytest.importorskip("libsumo")
    from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
    from rqe_mappo.evaluation.episodes import run_episodes

    env = BatchedIntersection(replace(SCENARIOS["default"], n_background=0), 16)
    reckless, _ = run_episodes(env, lambda env, seen: scripted.always_go(env), 10, seed=1)
    driver = scripted.caution(1.0)
    careful, _ = run_episodes(env, lambda env, seen: driver(env), 10, seed=1)
    env.close()
    crashed = reckless["collision"]
    assert (np.isfinite(reckless["impact_mps"]) == crashed).all()
    assert 3 < reckless["impact_mps"][crashed].mean() < 12
    assert np.median(reckless["min_ttc_s"][crashed]) < 1.0  # who crashed came close first
    assert np.nanmedian(careful["pet_s"]) > np.nanmedian(reckless["pet_s"])
    assert (careful["distance_m"] > 40).all()


def test_sumos_own_driver_crashes_less_than_reckless_ones():
    pytest.importorskip("libsumo")
    from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
    from rqe_mappo.evaluation.episodes import run_episodes

    env = BatchedIntersection(SCENARIOS["default"], 16)
    records, _ = run_episodes(env, lambda env, seen: scripted.sumo(env), 10, seed=1)
    env.close()
    assert records["collision"].mean() < 0.05  # 0.007 of 1600 in a trial; always_go 0.4
    assert 9 < records["travel_time_s"].mean() < 16
