"""Replay of episodes: what is kept of agents that leave and of time limits, against a plain loop; files; priorities."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.data import replay_files
from rqe_mappo.data.priorities import Drawn, Priorities
from rqe_mappo.data.replay import EpisodeReplay
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.files import load_tensors, save_tensors

T, E, A, D, S, HORIZON = 7, 3, 2, 2, 3, 5


def env(common_reward: bool = False) -> SimpleNamespace:
    """What a replay reads of an environment."""
    return SimpleNamespace(
        num_envs=E, possible_agents=("a", "b"), horizon=HORIZON, common_reward=common_reward,
        observation_space=Box(-1, 1, (D,)), state_space=Box(-1, 1, (S,)), action_space=Discrete(3),
    )  # fmt: skip


class Play:
    """Random episodes in plain lists: agents come late, even after all others have left, leave early, or are cut."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.under_way: list[list[dict]] = [[] for _ in range(E)]
        self.whole: list[list[dict]] = []
        self.active, self.later = np.ones((E, A), bool), np.zeros((E, A), bool)  # who comes later
        self.seen = self.look()

    def look(self) -> dict[str, np.ndarray]:
        shown = {"obs": self.random.random((E, A, D), np.float32), "state": self.random.random((E, A, S), np.float32)}
        return {name: value * self.active[..., None] for name, value in shown.items()}

    def chunk(self) -> Trajectory:
        rows: dict[str, list] = {name: [] for name in ("obs", "state", "action", "reward", "active", "begins")}
        ends: dict[str, list] = {name: [] for name in ("terminated", "truncated", "final_obs", "final_state")}
        for _ in range(T):
            begins = np.array([not steps for steps in self.under_way])
            action, reward = self.random.integers(0, 3, (E, A)), self.random.random((E, A), np.float32)
            active, before = self.active.copy(), self.seen
            reward *= active
            last = np.array([len(steps) + 1 == HORIZON for steps in self.under_way])[:, None]
            terminated = active & (self.random.random((E, A)) < 0.25)
            truncated = active & ~terminated & last
            self.active = active & ~terminated & ~truncated
            final = {
                "obs": self.random.random((E, A, D), np.float32),
                "state": self.random.random((E, A, S), np.float32),
            }
            joins = self.later & ~last & (self.random.random((E, A)) < 0.5)
            self.active |= joins
            self.later &= ~joins & ~last
            over = ~(self.active | self.later).any(-1)
            goes_on = self.active.copy()
            self.active[over] = self.random.random((over.sum(), A)) < 0.6
            self.active[over & ~self.active.any(-1), -1] = True
            self.later[over] = ~self.active[over]
            self.seen = self.look()
            for copy in range(E):
                step = {"obs": before["obs"][copy], "action": action[copy], "active": active[copy]}
                step |= {"reward": reward[copy].sum(), "state": before["state"][copy]}
                step["after"] = np.where(truncated[copy][:, None], final["obs"][copy], self.seen["obs"][copy])
                step["present"] = goes_on[copy] | truncated[copy]
                step["terminated"] = not step["present"].any()
                steps = self.under_way[copy]
                if active[copy].any():
                    if steps and not steps[-1]["present"].any():  # nobody had acted between
                        joined = active[copy][:, None]
                        steps[-1] |= {"present": active[copy], "terminated": False}
                        steps[-1]["after"] = np.where(joined, step["obs"], steps[-1]["after"])
                    steps.append(step)
                if over[copy]:
                    self.whole.append(self.under_way[copy])
                    self.under_way[copy] = []
            for name, value in {
                **before,
                "action": action,
                "reward": reward,
                "active": active,
                "begins": begins,
            }.items():
                rows[name].append(value)
            ends["terminated"].append(terminated)
            ends["truncated"].append(truncated)
            ends["final_obs"].append(final["obs"][truncated])
            ends["final_state"].append(final["state"][truncated])
        for name in ("obs", "state"):
            rows[name].append(self.seen[name])
        stacked = {name: torch.from_numpy(np.stack(value)) for name, value in rows.items()}
        ended = {name: torch.from_numpy(np.stack(ends[name])) for name in ("terminated", "truncated")}
        finals = {name: torch.from_numpy(np.concatenate(ends[name])) for name in ("final_obs", "final_state")}
        nothing = torch.zeros(T, E, A)
        return Trajectory(
            **stacked, **ended, **finals, cost=nothing, lost=nothing.bool(), memory=torch.zeros(E, A, 0),
            extras={"drawn": stacked["action"][..., None]},
        )  # fmt: skip


def kept_and_played(seed: int, chunks: int = 6, capacity: int = 1000) -> tuple[EpisodeReplay, Play]:
    replay, play = EpisodeReplay(env(), capacity, "bootstrap"), Play(seed)
    for _ in range(chunks):
        replay.add(play.chunk())
    return replay, play


def test_episodes_are_those_of_a_plain_loop():
    for seed in range(5):
        replay, play = kept_and_played(seed)
        found = replay.newest(len(replay))
        # an episode is known to be over when the next begins: the last of a chunk may not be known yet
        assert len(play.whole) - E <= len(replay) <= len(play.whole)
        for index, slot in enumerate(replay.finished):
            length = int(replay.length[slot])
            same = [steps for steps in play.whole if np.array_equal(steps[0]["obs"], found.obs[0, index].numpy())]
            assert len(same) == 1
            assert len(same[0]) == length
            for t, step in enumerate(same[0]):
                assert np.array_equal(found.action[t, index][step["active"]], step["action"][step["active"]])
                assert np.array_equal(found.active[t, index], step["active"])
                assert float(found.reward[t, index]) == pytest.approx(step["reward"])
                assert np.array_equal(found.present[t + 1, index], step["present"])
                there = step["present"]
                assert np.array_equal(found.obs[t + 1, index][there], step["after"][there])
                assert bool(found.terminated[t, index]) == step["terminated"]
                first = int(step["active"].argmax())
                assert np.array_equal(found.state[t, index, :S], step["state"][first])
                assert found.state[t, index, S:].argmax() == first
            assert bool(found.ended[length - 1, index])
            assert found.filled[:, index].sum() == length
            assert not found.obs[length + 1 :, index].any()


def test_the_oldest_episodes_give_way_and_their_slots_are_used_again():
    replay, play = kept_and_played(0, chunks=40, capacity=10)
    assert len(replay) == 10
    assert replay.count > 50
    found = replay.newest(10)
    recent = [steps[0]["obs"] for steps in play.whole[-(10 + 2 * E) :]]
    for index in range(10):
        assert any(np.array_equal(found.obs[0, index], obs) for obs in recent)


def test_with_terminal_time_limits_nothing_is_bootstrapped():
    replay, play = EpisodeReplay(env(), 1000, "terminal"), Play(0)
    for _ in range(6):
        replay.add(play.chunk())
    found = replay.newest(len(replay))
    assert torch.equal(found.terminated, found.ended)


def test_a_common_reward_is_counted_once():
    replay, play = EpisodeReplay(env(common_reward=True), 1000, "bootstrap"), Play(0)
    chunk = play.chunk()
    first = chunk.active.int().argmax(-1, keepdim=True)
    replay.add(chunk)
    played = chunk.active.any(-1)
    due = chunk.reward.gather(-1, first).squeeze(-1)[played]
    slots = torch.tensor([*replay.finished, *replay.slot.tolist()])
    assert float(replay.cut_out(slots)["reward"].sum()) == pytest.approx(float(due.sum()), rel=1e-5)


def test_a_buffer_read_back_from_its_files_is_the_same(tmp_path):
    replay, play = kept_and_played(0, chunks=2, capacity=10)
    for _ in range(12):
        replay.add(play.chunk())
        replay_files.write(tmp_path, replay)
        replay_files.drop_old(tmp_path, replay)
    again = EpisodeReplay(env(), 10, "bootstrap")
    again.load_state_dict(replay.state_dict())
    replay_files.read(tmp_path, again, len(replay))
    first, second = replay.newest(10), again.newest(10)
    for name in ("obs", "state", "action", "reward", "active", "present", "terminated", "filled"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert len(list((tmp_path / "replay").iterdir())) < 12
    oldest = min((tmp_path / "replay").iterdir())
    oldest.unlink()
    third = EpisodeReplay(env(), 10, "bootstrap")
    third.load_state_dict(replay.state_dict())
    with pytest.raises(ValueError, match="lacks episode"):
        replay_files.read(tmp_path, third, len(replay))


def test_a_pipe_in_place_of_a_file_is_none(tmp_path):
    replay, _ = kept_and_played(0)
    replay_files.write(tmp_path, replay)
    (path,) = (tmp_path / "replay").iterdir()
    path.unlink()
    os.mkfifo(path)
    again = EpisodeReplay(env(), 1000, "bootstrap")
    again.load_state_dict(replay.state_dict())
    with pytest.raises(CheckpointError, match="lacks episode 0"):
        replay_files.read(tmp_path, again, len(replay))
    with pytest.raises(ValueError, match="no regular file"):
        load_tensors(path)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    replay, _ = kept_and_played(0)
    replay_files.write(tmp_path, replay)
    (tmp_path / "replay" / ".episodes_000000000000_000000000003.pt.1af3ceb3.part").write_bytes(b"half")
    replay_files.drop_old(tmp_path, replay)
    assert not list((tmp_path / "replay").glob(".*"))


@pytest.mark.parametrize(
    ("name", "number", "wrong"),
    [
        ("action", 3, "actions beyond the 3"),
        ("action", -1, "action holds numbers"),
        ("reward", np.nan, "reward holds numbers"),
        ("reward", 1e38, "reward holds numbers"),
        ("obs", np.inf, "obs holds numbers"),
        ("active", 0, "nobody acts"),
        ("length", 0, "at least 1"),
    ],
)
def test_episodes_that_were_not_played_here_are_refused(name, number, wrong, tmp_path):
    replay, _ = kept_and_played(0)
    replay_files.write(tmp_path, replay)
    (path,) = (tmp_path / "replay").iterdir()
    kept = load_tensors(path)
    (kept["length"] if name == "length" else kept["arrays"][name])[0] = number
    save_tensors(path, kept)
    again = EpisodeReplay(env(), 1000, "bootstrap")
    again.load_state_dict(replay.state_dict())
    with pytest.raises(CheckpointError, match=f"{path.name} holds no episodes of this run.*{wrong}.*--no-keep-buffer"):
        replay_files.read(tmp_path, again, len(replay))


@pytest.mark.parametrize("error", [0.0, 1e-30, 3e38])
def test_priorities_of_errors_of_any_size_stay_within_episodes(error):
    replay, play = EpisodeReplay(env(), 6, "bootstrap"), Play(3)
    while len(replay) < 6:
        replay.add(play.chunk())
    priorities, generator = Priorities(replay, 10.0), torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = priorities.draw(64, 1.0, generator)
        assert bool((drawn.first < replay.length[drawn.slot]).all())
        assert bool(drawn.weight.isfinite().all()) and float(drawn.weight.max()) == 1
        priorities.update(drawn, torch.full((64,), error))


def test_windows_are_drawn_by_their_priorities_and_weighed_back():
    """Schaul et al.: chances are as `(|error| + 1e-6)^alpha`, weights `(N P)^-beta` over the greatest of them."""
    replay, play = EpisodeReplay(env(), 6, "bootstrap"), Play(3)
    while len(replay) < 6:
        replay.add(play.chunk())
    priorities, generator = Priorities(replay, 0.6), torch.Generator().manual_seed(0)
    drawn = priorities.draw(20_000, 0.4, generator)
    assert torch.equal(drawn.weight, torch.ones(20_000))  # all are new
    assert int((drawn.first >= replay.length[drawn.slot]).sum()) == 0
    keys = sorted({(int(s), int(t)) for s in replay.finished for t in range(int(replay.length[s]))})
    slot, first = (torch.tensor(part) for part in zip(*keys, strict=True))
    error = torch.rand(len(keys), generator=generator) * 3
    priorities.update(Drawn(slot, first, torch.ones(len(keys))), error)
    chance = (error + 1e-6) ** 0.6
    chance = chance / chance.sum()
    drawn = priorities.draw(200_000, 0.4, generator)
    place = {key: i for i, key in enumerate(keys)}
    index = torch.tensor([place[int(s), int(t)] for s, t in zip(drawn.slot, drawn.first, strict=True)])
    counts = torch.bincount(index, minlength=len(keys)) / 200_000
    assert float((counts - chance).abs().max()) < 0.005
    weight = (len(keys) * chance) ** -0.4
    torch.testing.assert_close(drawn.weight, (weight / weight[index].max())[index], rtol=1e-4, atol=1e-6)


def test_windows_begin_at_every_step_and_stay_in_their_episode():
    replay, play = EpisodeReplay(env(), 6, "bootstrap"), Play(4)
    while len(replay) < 6:
        replay.add(play.chunk())
    slots = torch.tensor(replay.finished)
    for slot in slots.tolist():
        length = int(replay.length[slot])
        whole = replay.episodes(torch.tensor([slot]), torch.device("cpu"))
        for first in range(length):
            part = replay.episodes(torch.tensor([slot]), torch.device("cpu"), torch.tensor([first]), 3)
            steps = min(3, length - first)
            assert int(part.filled.sum()) == steps
            for name in ("obs", "state", "present"):
                assert torch.equal(getattr(part, name)[: steps + 1], getattr(whole, name)[first : first + steps + 1])
            for name in ("action", "reward", "active", "terminated", "ended"):
                assert torch.equal(getattr(part, name)[:steps], getattr(whole, name)[first : first + steps]), name
    drawn = replay.sample_windows(30_000, 1, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert abs(float(drawn.ended.float().mean()) - 6 / replay.steps) < 0.01
