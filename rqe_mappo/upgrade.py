"""What version 0.1 wrote, in today's form: settings, policy files, training states. All that is known of it is here."""

import json
from typing import Any

RUN_SETTINGS = {
    "env", "scenario", "algo", "seed", "total_timesteps", "device", "out", "num_envs", "num_workers", "worker_timeout",
    "num_steps", "gamma", "time_limit", "keep", "save_interval", "log_interval", "eval_episodes",
}  # fmt: skip
NOT_HEEDED = {
    "exact-rqe": {
        "advantage", "risk", "discount_tau", "gae_lambda", "num_minibatches", "clip_coef", "norm_adv", "average",
    },
    "c51-cvar": {"rqe_form", "rqe_penalty", "discount_tau"},
    "rqe-mappo": {"rqe_form", "rqe_penalty"},
}  # fmt: skip
RISK_SETTINGS = {
    "advantage", "risk", "discount_tau", "rqe_form", "rqe_penalty", "n_atoms", "risk_clip", "warmup_fraction",
    "risk_anneal_fraction", "return_scale",
}  # fmt: skip
"""Of which the rivals with a critic of means heed none; but mean-variance, see `settings`."""
HEEDED_BY_MEAN_VARIANCE = {"warmup_fraction", "risk_anneal_fraction", "return_scale"}


def settings(fields: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run as `TrainConfig` nests them, from the flat ones of version 0.1 or from today's.

    Settings that an algorithm did not heed are left out. `--advantage rqe` was an advantage of rqe-mappo.
    """
    if "algorithm" in fields:
        return fields
    old = dict(fields)
    env_config, own = old.pop("knobs"), old.pop("options", {})
    old.setdefault("algo", "rqe-mappo")
    if old.get("advantage") == "rqe":
        old["algo"] = "exact-rqe"
        if old.get("risk") == "neutral":
            old["tau"] = "inf"
    if old["algo"] in NOT_HEEDED:
        unheeded = NOT_HEEDED[old["algo"]]
    elif old["algo"] == "mean-variance":
        unheeded = RISK_SETTINGS - HEEDED_BY_MEAN_VARIANCE
    else:
        unheeded = RISK_SETTINGS | {"tau"}
    algorithm = {name: value for name, value in old.items() if name not in RUN_SETTINGS | unheeded}
    run = {name: value for name, value in old.items() if name in RUN_SETTINGS}
    return {**run, "algorithm": algorithm | own, "env_config": env_config}


def policy(content: dict[str, Any]) -> dict[str, Any]:
    """The contents of a policy file of format 1, as of format 2."""
    shapes = content["shapes"]
    known = json.loads(content["config"])
    agents = {"n_agents": shapes["n_agents"]}
    actor = agents | {
        "kind": "actor",
        "obs_dim": shapes["obs_dim"],
        "actions": {"kind": "discrete", "sizes": [shapes["n_actions"]], "counts": shapes.get("action_counts", ())},
        "hidden": shapes["actor_hidden"],
        "shared": shapes["shared_actor"],
        "groups": shapes.get("attitudes", ()),
    }
    critic = agents | {"view_dim": shapes["state_dim"], "hidden": shapes["critic_hidden"]}
    if values := shapes.get("critic_values", 0):
        view = "obs" if shapes.get("critic_sees_obs", False) else "state"
        critic |= {"kind": "value critic", "values": values, "view": view}
    elif joint := shapes.get("joint_actions", 0):
        critic |= {"kind": "joint critic", "joint_actions": joint, "n_atoms": shapes["n_atoms"]}
    else:
        critic |= {"kind": "distribution critic", "n_atoms": shapes["n_atoms"]}
    neutral = known.get("algo") in ("mappo", "ippo", "reward-shaped")
    return {
        **{name: content[name] for name in ("agents", "timesteps")},
        "config": json.dumps(settings(known), indent=2),
        "networks": {"actor": actor, "critic": critic},
        "returns": None if critic["kind"] == "joint critic" else "critic",
        "risk": None if neutral else {**content["risk"], "return_scale": content["return_scale"]},
        "modules": {
            "actor": content["actor"],
            "critic": {name.replace("net.", "nets.0.", 1): weights for name, weights in content["critic"].items()},
        },
    }


def training(content: dict[str, Any]) -> dict[str, Any]:
    """The contents of a training state of format 1, as of format 2."""
    learner, schedule = content["learner"], content["schedule"]
    weights = learner.get("mean_weights", {"total": {}, "count": 0})
    variances = learner["advantage_variance"]
    return {
        "algorithm": {
            "actor_optimizer": learner["actor_optimizer"],
            "critic_optimizer": learner["critic_optimizer"],
            "advantage_variance": variances,
            "mean_weights": weights,
            "risk": schedule,
        },
        "collector": {},
        "worker_restarts": content.get("worker_restarts", []),
        **{name: content[name] for name in ("generator", "env", "step", "updates", "resumed")},
    }


def risk_state(state: Any) -> Any:
    """The state of a risk schedule, without the sums of undiscounted returns that version 0.1 kept.

    A unit that is known stays; one that is not is measured anew.
    """
    if not isinstance(state, dict) or "squares" not in state:
        return state
    return {name: value for name, value in state.items() if name in ("return_scale", "started")} | {"measured": []}
