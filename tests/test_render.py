"""Pictures without a display, films, and scripted policies in rqe-eval."""

import numpy as np
import pytest

pytest.importorskip("libsumo")

from PIL import Image

from rqe_mappo import cli
from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, parallel_env, scripted
from rqe_mappo.envs.sumo_intersection.render import AGENTS, CRASH, Camera


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    size = ["--total-timesteps", "3000", "--num-envs", "8", "--num-steps", "16", "--eval-episodes", "0"]
    size += ["--horizon-s", "10"]
    cli.train(["--env", "sumo", *size, "--out", str(folder)])
    return folder


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)


def near(image: np.ndarray, colour: str) -> int:
    """Pixels of about that colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image.astype(int) - wanted).max(-1) < 12).sum())


def test_a_frame_shows_vehicles_where_sumo_has_them():
    env = BatchedIntersection(SCENARIOS["easy"], 1)
    camera = Camera(env, size=400)
    env.reset(0)
    for _ in range(6):
        env.drive(scripted.always_go(env))
        env.observed()
    camera.look()
    image = np.asarray(camera.frame("6 decisions"))
    assert image.shape == (400, 400, 3)
    for j, (place, _) in camera.scene.vehicles.items():
        inside = np.abs(place).max() < 46
        assert (near(image, AGENTS[j]) > 20) == inside
    env.close()


@pytest.mark.slow
def test_a_crash_is_marked_and_forgotten_with_the_episode():
    env = BatchedIntersection(SCENARIOS["easy"], 1)
    camera = Camera(env)
    crashed, seed = False, 0
    frames = []
    camera.watch(lambda: frames.append(np.asarray(camera.frame())))
    while not crashed:
        env.reset(seed)
        seed += 1
        camera.forget()
        frames.clear()
        while env.active.any() and not crashed:
            crashed = env.drive(scripted.always_go(env)).crashed.any()
            env.observed()
    env.close()
    assert near(frames[-1], CRASH) > 50
    assert near(frames[0], CRASH) == 0


def test_risk_colours_a_halo_and_distributions_are_drawn_beside():
    env = BatchedIntersection(SCENARIOS["easy"], 1)
    camera = Camera(env)
    env.reset(0)
    for _ in range(8):
        env.drive(scripted.caution(1.0)(env))
        env.observed()
    camera.look()
    atoms = np.linspace(-40, 0, 41)
    calm, grave = (np.asarray(camera.frame(value=np.full(4, value))).astype(int) for value in (0.0, -30.0))
    assert (grave[..., 0] - grave[..., 1] > calm[..., 0] - calm[..., 1] + 20).sum() > 200
    gone = np.asarray(camera.frame(value=np.full(4, np.nan)))
    assert np.array_equal(gone, np.asarray(camera.frame()))
    wide = camera.frame(value=np.full(4, -10.0), atoms=atoms, probs=np.full((4, 41), 1 / 41))
    assert wide.size == (720, 480)
    env.close()


def test_pettingzoo_render_gives_an_array():
    env = parallel_env(render_mode="rgb_array", own_process=True)
    env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, 3))
    image = env.render()
    env.close()
    assert image.shape == (480, 480, 3)
    assert image.dtype == np.uint8
    with pytest.raises(ValueError, match="render_mode"):
        parallel_env(render_mode="human")


@pytest.mark.slow
def test_rqe_eval_films_a_trained_policy_without_a_display(run, tmp_path, capsys):
    film = tmp_path / "out.gif"
    cli.evaluate([str(run), "--episodes", "8", "--render", str(film), "--render-episodes", "1", "--laws"])
    with Image.open(film) as shown:
        assert shown.n_frames > 20
        assert shown.size == (720, 480)
        assert shown.info["duration"] == 100
    assert "collision rate" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out.gif"]


@pytest.mark.slow
def test_rqe_eval_films_a_scripted_policy_as_mp4(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    film = tmp_path / "out.mp4"
    args = ["sumo/easy", "--driver", "caution:0.5", "--episodes", "8", "--render", str(film), "--render-episodes", "1"]
    cli.evaluate(args)
    assert film.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sumo", "--driver", "careless"], "--driver careless is unknown"),
        (["sumo", "--driver", "caution:x"], "needs a level"),
        (["cliff", "--driver", "caution:1"], "no scripted policy"),
        (["nowhere", "--driver", "sumo"], "--env nowhere is unknown"),
        (["sumo", "--driver", "sumo", "--render", "out.png"], "must end in .gif or .mp4"),
        (["sumo", "--driver", "sumo", "--render", "no/such/out.gif"], "there is no folder"),
        (["sumo", "--driver", "sumo", "--gui"], "needs a screen"),
        (["cartpole", "--driver", "lqr:0", "--render", "out.gif"], "no pictures of --env cartpole"),
        (["cartpole", "--driver", "pid"], "--driver pid is unknown"),
        (["sumo", "--driver", "sumo", "--render", "out.gif", "--laws"], "leave it out"),
    ],
)
def test_bad_input_is_answered_in_one_line(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.evaluate([*args, "--episodes", "4"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


@pytest.mark.slow
def test_a_scripted_policy_can_take_a_trained_ones_place(run, capsys):
    cli.evaluate([str(run), "--driver", "caution:1", "--episodes", "8"])
    assert "mean return" in capsys.readouterr().out
    cli.evaluate(["cartpole", "--driver", "lqr:-0.1", "--episodes", "8"])
    assert "fall rate" in capsys.readouterr().out
