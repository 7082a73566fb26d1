"""The training loop, readable top to bottom."""

import json
import math
import platform
import signal
import threading
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete

from rqe_mappo import checkpoint, registry
from rqe_mappo import config as configs
from rqe_mappo.algorithms.exact_rqe import ExactLearner, joint_actions
from rqe_mappo.algorithms.rqe_mappo import Learner, RiskSchedule, choose_support
from rqe_mappo.config import ConfigError, TrainConfig, each_agent
from rqe_mappo.data import vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.envs.contract import BatchedEnv, action_counts
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.nets import Shapes
from rqe_mappo.training.logs import RunLog, summarise

EDGE_MASS_WARNING = 0.01
RESUME_SEED_STRIDE = 1009  # environments that cannot go on exactly start their next episodes from a fresh seed


@dataclass
class Run:
    """A run in its folder: everything that a checkpoint must hold to go on as if nothing had happened."""

    folder: Path
    config: TrainConfig
    env: BatchedEnv
    learner: Learner
    schedule: RiskSchedule
    collector: Collector
    generator: torch.Generator
    step: int = 0
    updates: int = 0
    resumed: int = 0
    saved: int = -1

    def save(self, environments: bool = True) -> None:
        """Write a checkpoint of this moment; without its `environments` a resumed run starts new episodes."""
        workers = vector.workers_of(self.env)
        config, learner = self.config, self.learner
        policy = {
            "config": configs.to_json(config),
            "shapes": learner.shapes.as_dict(),
            "agents": list(self.env.possible_agents),
            "risk": {
                "name": config.risk,
                "tau": list(each_agent(config.tau)),
                "clip": config.risk_clip,
            },
            "return_scale": self.schedule.return_scale,
            "timesteps": self.step,
            "actor": learner.actor.state_dict(),
            "critic": learner.critic.state_dict(),
        }
        training = {
            "learner": learner.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "env": checkpoint.to_plain(self.env.snapshot()) if environments else None,
            "worker_restarts": workers.restarts if workers else [],
            "step": self.step,
            "updates": self.updates,
            "resumed": self.resumed,
        }
        checkpoint.save(self.folder, self.step, policy, training, config.keep)
        self.saved = self.step

    def restore(self) -> None:
        """Go on from the folder's newest checkpoint: exactly, where the environment can."""
        policy_file, training_file = checkpoint.newest(self.folder)
        policy = checkpoint.load_policy_file(policy_file)
        training = checkpoint.load_training_file(training_file)
        self.learner.actor.load_state_dict(policy["actor"])
        self.learner.critic.load_state_dict(policy["critic"])
        self.learner.load_state_dict(training["learner"])
        self.schedule.load_state_dict(training["schedule"])
        self.generator.set_state(training["generator"])
        self.step = self.saved = training["step"]
        self.updates = training["updates"]
        self.resumed = training["resumed"] + 1
        if workers := vector.workers_of(self.env):
            workers.restarts = training.get("worker_restarts") or workers.restarts  # older files hold none
        if training["env"] is not None:
            self.collector.start(self.env.restore(checkpoint.to_arrays(training["env"])))
        else:
            self.collector.start(self.env.reset(self.config.seed + RESUME_SEED_STRIDE * self.resumed))


def pick_device(name: str) -> torch.device:
    """The device `name`; ConfigError with the mend where there is none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"--device {name} cannot be used ({reason}): use cpu, or cuda on a machine with one"
        ) from None
    return device


def new_folder(config: TrainConfig) -> Path:
    """An empty folder for a run; ConfigError where it cannot be written or already holds a run."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(config.out) if config.out else Path("runs") / f"{config.run_name}__{stamp}"
    if (folder / "config.json").exists():
        raise ConfigError(f"--out {folder} already holds a run: go on with --resume {folder}, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(folder / "config.json", configs.to_json(config).encode())
        checkpoint.write_atomically(folder / "versions.json", json.dumps(versions(), indent=2).encode())
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written ({error.strerror}): choose another folder") from None
    return folder


def versions() -> dict[str, str]:
    """What ran: the package, what it stands on, and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("rqe-mappo", "torch", "numpy", "gymnasium", "pettingzoo", "libsumo"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def build(config: TrainConfig, folder: Path, env: BatchedEnv) -> Run:
    """Networks, schedule and collector of a run, at its beginning."""
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    atoms = choose_support(config, env)
    different, attitudes = config.attitudes(len(env.possible_agents))
    exact = config.advantage == "rqe"
    options = config.options
    shapes = Shapes(
        obs_dim=env.observation_space.shape[0],
        state_dim=(env.observation_space if options.critic_sees_obs else env.state_space).shape[0],
        n_actions=int(env.action_space.n),
        n_agents=len(env.possible_agents),
        n_atoms=len(atoms),
        actor_hidden=config.actor_hidden,
        critic_hidden=config.critic_hidden,
        shared_actor=config.shared_actor,
        attitudes=attitudes if len(different) > 1 else (),
        joint_actions=joint_actions(env) if exact else 0,
        action_counts=action_counts(env) or (),
        critic_values=options.critic_values,
        critic_sees_obs=options.critic_sees_obs,
    )
    kind = ExactLearner if exact else registry.load(registry.algorithm(config.algo).learner)
    learner = kind(config, shapes, atoms, generator)
    collector = Collector(env, config.num_steps, device, generator)
    return Run(folder, config, env, learner, RiskSchedule(config), collector, generator)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or SIGTERM); it has saved its state in `folder`."""

    def __init__(self, folder: Path):
        super().__init__(f"interrupted; go on with: rqe-train --resume {folder}")


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a run stops between updates; the second acts."""

    def __init__(self):
        self.asked = False
        self.previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(number, self.previous[number])

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as for jobs that a shell put in the background
                    self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def train(config: TrainConfig, resume: Path | None = None) -> Path:
    """Train to `config.total_timesteps`, from the start or from the newest checkpoint of the folder `resume`.

    Returns the run folder. Raises Interrupted, with everything saved, on Ctrl-C or SIGTERM.
    """
    torch.set_num_threads(1)  # at these sizes a second thread costs more than it gives; run two runs instead
    pick_device(config.device)
    if resume is not None:
        checkpoint.newest(resume)
    env = vector.make(config, config.num_envs, config.num_workers)
    try:
        if config.time_limit == "terminal" and not env.time_in_observation:
            raise ConfigError("--time-limit terminal needs an environment that shows the time left: use bootstrap")
        config.attitudes(len(env.possible_agents))
        if not isinstance(env.action_space, Discrete) or env.action_space.start != 0:
            raise ConfigError(f"--env {config.env}: actions must be Discrete, from 0 on (got {env.action_space})")
        if config.advantage == "rqe":
            joint_actions(env)
        folder = resume or new_folder(config)
        run = build(config, folder, env)
        if resume is None:
            run.collector.start(env.reset(config.seed))
            run.save()  # from here on there is always something to go on from
        else:
            run.restore()
        log = RunLog(folder, run.step, config.total_timesteps)
        if workers := vector.workers_of(env):
            workers.log = log.say
        log.say(f"{'resuming' if resume else 'training'} in {folder}")
        smallest = min(each_agent(config.tau))
        if config.risk == "entropic" and config.risk_clip * smallest < 0.85 and config.advantage != "rqe":
            log.say(f"note: below 1 / --risk-clip a smaller --tau may be less averse, not more (got {smallest:g})")
        try:
            with StopRequest() as stop:
                finished = loop(run, log, stop)
        finally:
            log.close()
    finally:
        env.close()
    if not finished:
        raise Interrupted(folder)
    return folder


def loop(run: Run, log: RunLog, stop: StopRequest) -> bool:
    """Collect, update, log, save, until the budget is spent (True) or `stop` is asked for (False)."""
    config, schedule = run.config, run.schedule
    episodes: list[dict[str, np.ndarray]] = []
    shown: dict[str, float] = {}
    warned = False
    began, first_step = time.monotonic(), run.step
    while run.step < config.total_timesteps and not stop.asked:
        progress = config.progress(run.step)
        measures = schedule.measures(progress)
        try:
            rollout, finished = run.collector.collect(run.learner.actor)
        except RuntimeError:  # the environments cannot go on
            if run.step > run.saved:
                run.save(environments=False)
            log.say(f"the run cannot go on; what was learned is saved: rqe-train --resume {run.folder}")
            raise
        if not rollout.active.any():
            continue  # all workers were lost at every step
        scalars = run.learner.update(rollout, measures, progress)
        run.step += int(rollout.active.sum())
        run.updates += 1
        episodes += finished
        for record in finished:
            schedule.observe(torch.from_numpy(record["return"][record["length"] > 0]), progress)

        save = run.step >= config.total_timesteps or stop.asked or run.updates % config.save_interval == 0
        if save or run.updates % config.log_interval == 0:
            shown |= summarise(episodes)
            episodes.clear()
            speed = (run.step - first_step) / (time.monotonic() - began)
            charts = {"charts/SPS": speed}
            if workers := vector.workers_of(run.env):
                charts["charts/worker_restarts"] = float(sum(workers.restarts))
            log.row(run.step, shown | scalars | risk_scalars(run, measures, scalars) | charts)
            log.progress(run.step, shown)
            edge = max(scalars.get(f"critic/edge_mass_{end}", 0.0) for end in ("low", "high"))
            if edge > EDGE_MASS_WARNING and not warned and progress > config.warmup_fraction:
                warned = True
                log.say(f"warning: {edge:.1%} of the return distribution lies on an edge atom: its tail is cut off")
        if save:
            run.save()
    if run.step > run.saved:  # asked to stop after the last update had been looked at
        run.save()
    finished = run.step >= config.total_timesteps
    if finished and schedule.return_scale is None and not schedule.neutral:
        log.say("warning: too few episodes ended to measure the unit of --tau, so this run stayed risk-neutral: "
                "train longer, or give --return-scale")  # fmt: skip
    return finished


def risk_scalars(run: Run, measures: list[RiskMeasure], scalars: dict[str, float]) -> dict[str, float]:
    """What the risk schedule is doing, for the log; of several attitudes the most averse.

    risk/tractability_margin: the smallest `16 eps_i eps_j / (tau_i tau_j)` over pairs of agents, eps being what acts
    under advantage scaling. A diagnostic: above 1, and for covered pairs of risk and regulariser alone, the equilibrium
    is unique (docs/equilibrium.md); entropic risk with an entropy bonus is no such pair.
    """
    unit = run.schedule.return_scale
    inverse = [1 / getattr(measure, "tau", math.inf) for measure in measures]
    shown = {"risk/inverse_tau": max(inverse), "risk/return_scale": math.nan if unit is None else unit}
    if run.learner.shapes.n_agents > 1:
        _, attitude = run.config.attitudes(run.learner.shapes.n_agents)
        eps = run.learner.eps * scalars.get("advantage/scale", 1.0)
        acting = sorted(float(eps[agent]) * inverse[index] for agent, index in enumerate(attitude))
        shown["risk/tractability_margin"] = 16 * acting[0] * acting[1]
    return shown
