"""Policies in folders for strangers, and on the Hugging Face Hub: what the methods of `Policy` with these names do.

A folder holds `model.safetensors`, the weights of actors and critic; `config.json`, everything else; and `README.md`, a
model card of known facts. Reading them executes nothing.
"""

import hashlib
import json
import math
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rqe_mappo import schema, upgrade
from rqe_mappo.checkpoint import LARGEST_POLICY, CheckpointError, checked
from rqe_mappo.files import write_atomically

FORMAT, OLDER = "rqe_mappo pretrained policy 2", "rqe_mappo pretrained policy 1"
CHECKSUM = "sha256"  # in config.json: of its other entries and the weights
WEIGHTS, CONFIG, CARD = FILES = ("model.safetensors", "config.json", "README.md")
REPOSITORY = r"[\w.-]+/[\w.-]+"


class HubMissing(ImportError):
    """The extra packages are not installed."""

    def __init__(self, name: str):
        super().__init__(f"{name} is not installed: pip install 'rqe-mappo[hub]'")


def save_pretrained(content: dict[str, Any], folder: Path, evaluation: Path | None = None) -> None:
    """Write the contents of a policy file into `folder`; see `Policy.save_pretrained`."""
    tensors = _safetensors()
    measured = None if evaluation is None else _evaluation(evaluation, content["timesteps"])
    ours = not (folder / CONFIG).exists() or _described(folder).get("format") in (FORMAT, OLDER)
    if not ours:  # a run's settings, perhaps
        raise ValueError(f"{folder} holds a {CONFIG} of something else: give the policy a folder of its own")
    weights = {
        f"{module}.{name}": value.detach().cpu().contiguous()
        for module, state in content["modules"].items()
        for name, value in state.items()
    }
    packed = tensors.save(weights)
    known = _known(content)
    known[CHECKSUM] = _checksum(known, packed)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, packed)
    write_atomically(folder / CONFIG, json.dumps(known, indent=2, allow_nan=False).encode())
    write_atomically(folder / CARD, model_card(known, measured).encode())


def load_pretrained(source: str | Path, revision: str | None = None) -> dict[str, Any]:
    """The contents of a policy file, from a folder or a repository of the Hub; see `Policy.from_pretrained`."""
    tensors = _safetensors()
    folder = Path(source) if Path(source).is_dir() else _downloaded(str(source), revision)
    known = _described(folder)
    if known.get("format") not in (FORMAT, OLDER):
        raise CheckpointError(f"{source} was not written by save_pretrained: its {CONFIG} is no '{FORMAT}'")
    try:
        if (folder / WEIGHTS).stat().st_size > LARGEST_POLICY:
            raise ValueError(f"{WEIGHTS} is larger than {LARGEST_POLICY / 2**30:.0f} GiB")
        packed = (folder / WEIGHTS).read_bytes()
        told = known.pop(CHECKSUM, None)  # older folders have none
        if told is not None and told != _checksum(known, packed):
            raise ValueError("the checksum is wrong: something was changed after it was saved")
        weights = tensors.load(packed)
        known.pop("package", None)
        if known["risk"] is not None:
            known["risk"]["tau"] = [float(tau) for tau in known["risk"]["tau"]]
        known["config"] = json.dumps(known["config"], indent=2)
        modules: dict[str, dict[str, Any]] = {}
        for name, value in weights.items():
            module, _, parameter = name.partition(".")
            modules.setdefault(module, {})[parameter] = value
        return checked(upgrade.policy(known | modules) if known["format"] == OLDER else known | {"modules": modules})
    except Exception as error:  # safetensors' own class derives from no other
        raise CheckpointError(f"{source} holds no whole policy ({error}): save it again") from None


def push_to_hub(
    content: dict[str, Any], repo: str, evaluation: Path | None = None, private: bool = True, token: str | None = None
) -> str:
    """Upload what `save_pretrained` writes; see `Policy.push_to_hub`."""
    _check_repository(repo)
    api = _hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(content, Path(folder), evaluation)
        api.create_repo(repo_id=repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=list(FILES),
            commit_message=f"Policy after {content['timesteps']} decisions",
        )  # fmt: skip
    return f"https://huggingface.co/{repo}"


def model_card(known: dict[str, Any], measured: dict[str, Any] | None = None) -> str:
    """README.md of a policy: what its settings say, and what rqe-eval measured, if given. Nothing else is claimed.

    known: contents of config.json; measured: those of eval.json.
    """
    config, actor = known["config"], known["networks"]["actor"]
    algorithm, risk = config["algorithm"], known["risk"]
    rows = {
        "environment": f"{config['env']}, scenario {config['scenario']}",
        "algorithm": config["algo"],
        "risk measure": "neutral" if risk is None else risk["name"],
        "tau, in units of the return's std": "inf" if risk is None else _listed(algorithm["tau"]),
        "that std": "not measured" if risk is None else _number(risk["return_scale"]),
        "eps": f"{_listed(algorithm.get('eps', 0))}, weight of the {algorithm.get('regulariser', 'entropy')}",
        "trained for": f"{known['timesteps']} decisions of single agents, seed {config['seed']}",
        "agents": ", ".join(known["agents"]),
        "observation, actions": f"{actor['obs_dim']} features, {_listed(actor['actions']['sizes'])} actions",
        "actor": "one for all agents" if actor.get("shared", True) else "one for each agent",
        "its hidden layers": _listed(actor.get("hidden", ())) or "none",
        "written by": known["package"],
    }  # fmt: skip
    lines = [
        "---", "library_name: rqe-mappo", "pipeline_tag: reinforcement-learning", "tags:", "- reinforcement-learning",
        "- multi-agent", "---", "", f"# A policy for {config['env']}", "",
        "Trained with rqe-mappo. Its settings:", "", "| | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()), "",
        "```python", "from rqe_mappo.deploy.policy import Policy", "",
        'policy = Policy.from_pretrained("...")  # this repository or a folder with its files', "```", "",
    ]  # fmt: skip
    if measured is None:
        return "\n".join([*lines, "No evaluation was given when this card was written.", ""])
    kind = "most probable actions" if measured["deterministic"] else "drawn actions"
    lines += [
        f"Measured by rqe-eval over {measured['episodes']} episodes, seed {measured['seed']}, {kind}:", "",
        "| metric | level | value | 95 % interval |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in measured["metrics"]:
        value, low, high = (_number(row.get(name)) for name in ("value", "low", "high"))
        lines.append(f"| {row['metric']} | {row['level']} | {value} | {low} to {high} |")
    return "\n".join([*lines, ""])


def _known(content: dict[str, Any]) -> dict[str, Any]:
    """All of a policy file but its weights, as JSON has it."""
    rest = {name: value for name, value in content.items() if name != "modules"}
    settings = json.loads(content["config"]) | {"out": None}  # a place on the disk of who trained it
    risk = content["risk"]
    if risk is not None:
        risk = risk | {"tau": [str(tau) for tau in risk["tau"]]}  # JSON has no infinity
    package = f"rqe-mappo {version('rqe-mappo')}"
    networks = _spelled(content["networks"])
    return {**rest, "format": FORMAT, "package": package, "networks": networks, "risk": risk, "config": settings}


def _spelled(value: Any) -> Any:
    """A network's description in which infinity, such as the bound of an action, is a word that `schema` reads."""
    if isinstance(value, dict):
        return {name: _spelled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _checksum(known: dict[str, Any], weights: bytes) -> str:
    """Of what config.json holds beside it, however that is laid out, and of the weights' file."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode() + weights).hexdigest()


def _described(folder: Path) -> dict[str, Any]:
    """Contents of config.json; CheckpointError if there is none, or it is damaged."""
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        return schema.read(dict[str, Any], schema.parse_json(text, CONFIG), CONFIG)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read ({error}): give what save_pretrained wrote") from None


def _evaluation(path: Path, timesteps: int) -> dict[str, Any]:
    """Contents of an eval.json that belongs to the checkpoint of `timesteps`."""
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        found = measured["timesteps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no eval.json of rqe-eval ({type(error).__name__}: {error})") from None
    if found != timesteps:
        raise ValueError(f"{path} is of a policy after {found} decisions, this one has had {timesteps}: run rqe-eval")
    return measured


def _downloaded(repo: str, revision: str | None) -> Path:
    _check_repository(repo)
    hub = _hub()
    try:
        return Path(hub.snapshot_download(repo_id=repo, revision=revision, allow_patterns=list(FILES)))
    except OSError as error:  # whatever the Hub or the network refuses
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{repo} could not be downloaded from the Hugging Face Hub: {reason}") from None


def _check_repository(repo: str) -> None:
    if not re.fullmatch(REPOSITORY, repo):
        raise CheckpointError(f"{repo} is neither a folder nor a repository of the Hub: give owner/name")


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise HubMissing("huggingface_hub") from None
    return huggingface_hub


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise HubMissing("safetensors") from None
    return safetensors.torch
