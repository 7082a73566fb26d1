"""Mixtures of policies: their formulas, their ends to the last bit, their laws of returns, and rqe-eval --mix."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from rqe_mappo import cli, nets, registry
from rqe_mappo.config import default_config
from rqe_mappo.deploy.interpolation import Mixture, interpolate
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import chooser, drive
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import ActionSpec, ActorSpec, DistributionCritic, DistributionCriticSpec, PolicyActor
from rqe_mappo.nets.utilities import Utilities, UtilitySpec
from rqe_mappo.sweeps import front_plots, mixing, pools, tables
from tests import toy

AGENTS = ("a", "b", "c")
KINDS = ("probability", "episode", "logit")
OBS = np.random.default_rng(0).normal(size=(50, 3, 5)).astype(np.float32)
WHO = np.broadcast_to(np.arange(3), (50, 3))


def policy(
    seed: int, agents=AGENTS, config=None, sharpness=3.0, obs_dim=5, n_actions=4, counts=(), greedy=False
) -> Policy:
    """One that was never trained."""
    torch.manual_seed(seed)
    actions = ActionSpec("discrete", (n_actions,), (), counts)
    spec = UtilitySpec if greedy else ActorSpec
    of = spec(obs_dim=obs_dim, n_agents=len(agents), actions=actions, hidden=(8,))
    actor = Utilities(of) if greedy else PolicyActor(of)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.normal_(0, sharpness / parameter.shape[-1] ** 0.5)
    sees = DistributionCriticSpec(view_dim=4, n_agents=len(agents), hidden=(8,), n_atoms=7)
    modules = {"actor": actor, "critic": DistributionCritic(sees, torch.linspace(-1, 1, 7))}
    return Policy({
        "agents": agents, "config": json.dumps({"env": "toy", "algorithm": {}, **(config or {})}), "timesteps": 0,
        "networks": {name: nets.describe(module) for name, module in modules.items()}, "returns": "critic",
        "risk": {"name": "entropic", "tau": 1.0, "clip": 3.0, "return_scale": None},
        "modules": {name: module.state_dict() for name, module in modules.items()},
    })  # fmt: skip


@pytest.fixture
def pair():
    return policy(1), policy(2)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_probabilities_are_mixed_by_the_formula(pair, alpha):
    safe, neutral = (p.probabilities(OBS, WHO).astype(float) for p in pair)
    mixed = interpolate(*pair, alpha).probabilities(OBS, WHO)
    assert np.abs(mixed.sum(-1) - 1).max() < 1e-6
    assert np.abs(mixed - (alpha * safe + (1 - alpha) * neutral)).max() < 1e-6
    geometric = safe**alpha * neutral ** (1 - alpha)
    geometric /= geometric.sum(-1, keepdims=True)
    assert np.abs(interpolate(*pair, alpha, "logit").probabilities(OBS, WHO) - geometric).max() < 1e-6


@pytest.mark.parametrize("counts", [(), (2, 3, 4)], ids=["all alike", "some lack actions"])
@pytest.mark.parametrize("greedy", [(True, True), (True, False), (False, True)])
def test_policies_that_act_by_values_are_mixed_by_the_formula(greedy, counts):
    """Their other actions have no probability, and are there all the same."""
    pair = [policy(seed, counts=counts, greedy=by_value) for seed, by_value in zip((1, 2), greedy, strict=True)]
    one, other = (each.probabilities(OBS, WHO).astype(float) for each in pair)
    mixture = interpolate(*pair, 0.3)
    assert np.abs(mixture.probabilities(OBS, WHO) - (0.3 * one + 0.7 * other)).max() < 1e-6
    heard = one if greedy == (True, False) else other
    geometric = interpolate(*pair, 0.3, "logit").probabilities(OBS, WHO)
    assert np.array_equal(geometric.argmax(-1), heard.argmax(-1))  # by weight, but who forbids before who prefers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [lambda a: a, lambda a: [a] * 3, lambda a: dict.fromkeys(AGENTS, a),
                                  lambda a: lambda obs: np.full(obs.shape[:-1], a)])  # fmt: skip
def test_the_ends_are_the_policies_to_the_last_bit(pair, kind, form):
    for alpha, alone in ((1.0, pair[0]), (0.0, pair[1])):
        mixture = interpolate(*pair, form(alpha), kind)
        mixture.begin(of=50)
        for deterministic in (False, True):
            mixture.seed(7)
            alone.seed(7)
            for _ in range(20):
                assert (mixture.act(OBS, WHO, deterministic) == alone.act(OBS, WHO, deterministic)).all()
        assert (mixture.probabilities(OBS, WHO) == alone.probabilities(OBS, WHO)).all()


def test_alpha_acts_from_the_next_decision_on(pair):
    mixture = interpolate(*pair, 0.0)
    for alpha, alone in ((1.0, pair[0]), (0.0, pair[1])):
        mixture.alpha = alpha
        assert mixture.alpha == alpha
        assert (mixture.probabilities(OBS, WHO) == alone.probabilities(OBS, WHO)).all()
    mixture.weights = (0.25, 0.75)
    assert mixture.alpha == 0.25


def test_each_agent_and_each_observation_may_have_its_own_alpha(pair):
    safe, neutral = (p.probabilities(OBS, WHO) for p in pair)
    by_name = interpolate(*pair, {"c": 0.5, "a": 1.0, "b": 0.0}).probabilities(OBS, WHO)
    assert (by_name[:, 0] == safe[:, 0]).all()
    assert (by_name[:, 1] == neutral[:, 1]).all()
    assert np.abs(by_name[:, 2] - (safe + neutral)[:, 2] / 2).max() < 1e-6
    share = 1 / (1 + np.exp(-OBS[..., :1]))
    seen = interpolate(*pair, lambda obs: 1 / (1 + np.exp(-obs[..., 0]))).probabilities(OBS, WHO)
    assert np.abs(seen - (share * safe + (1 - share) * neutral)).max() < 1e-6


def test_three_policies_with_weights(pair):
    three = (*pair, policy(3))
    mixture = Mixture(three, (0.2, 0.3, 0.5))
    wanted = sum(w * p.probabilities(OBS, WHO) for w, p in zip((0.2, 0.3, 0.5), three, strict=True))
    assert np.abs(mixture.probabilities(OBS, WHO) - wanted).max() < 1e-6
    with pytest.raises(ValueError, match="here are 3"):
        mixture.alpha = 0.5
    drawn = Mixture(three, (0.2, 0.3, 0.5), "episode")
    drawn.begin(of=50)
    logits = drawn.probabilities(OBS, WHO)
    own = [[(logits[c] == p.probabilities(OBS, WHO)[c]).all() for p in three] for c in range(50)]
    assert np.sum(own, 1).tolist() == [1] * 50


def test_dicts_of_agents_are_understood(pair):
    mixture = interpolate(*pair, 0.5)
    mixture.seed(3)
    rows = mixture.act(OBS[0, 1:], [1, 2])
    mixture.seed(3)
    assert mixture.act({"b": OBS[0, 1], "c": OBS[0, 2]}) == {"b": rows[0], "c": rows[1]}


@pytest.mark.parametrize("kind", KINDS)
def test_lacking_actions_are_never_drawn(kind):
    pair = [policy(seed, counts=(4, 2, 3)) for seed in (1, 2)]
    mixture = interpolate(*pair, [0.1, 0.37, 0.73], kind)
    mixture.begin(of=50)
    assert (mixture.probabilities(OBS, WHO)[:, 1, 2:] == 0).all()
    rows = torch.as_tensor(OBS), torch.as_tensor(WHO.copy())
    logits = mixture._choices_of(*rows, mixture._weights_of(*rows)).logits
    assert (logits[:, 1, 2:] <= NO_ACTION).all()
    assert (logits[:, 0] > NO_ACTION).all()


def test_one_draw_lasts_an_episode(pair):
    mixture = interpolate(*pair, 0.5, "episode")
    with pytest.raises(ValueError, match="begin"):
        mixture.act(OBS, WHO)
    mixture.begin(of=50)
    first = mixture.probabilities(OBS, WHO)
    assert (first == mixture.probabilities(OBS, WHO)).all()
    mixture.begin(range(10), of=50)
    second = mixture.probabilities(OBS, WHO)
    changed = (first != second).any((1, 2))
    assert changed[:10].any()
    assert not changed[10:].any()
    with pytest.raises(ValueError, match="50 copies"):
        mixture.act(OBS[:7], WHO[:7])


def test_episodes_fall_to_the_policies_in_proportion(pair):
    mixture = interpolate(*pair, 0.3, "episode")
    mixture.seed(5)
    safe, count = pair[0].probabilities(OBS[0], WHO[0]), 0
    for _ in range(2000):
        mixture.begin()
        count += bool((mixture.probabilities(OBS[0], WHO[0]) == safe).all())
    assert stats.binomtest(count, 2000, 0.3).pvalue > 0.001


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (dict(agents=("a", "b", "z")), "agents"),
        (dict(config={"env": "cliff"}), "environments"),
        (dict(obs_dim=6), "features"),
        (dict(n_actions=5), "actions"),
        (dict(counts=(4, 4, 3)), "actions"),
    ],
)
def test_strangers_are_not_mixed(other, what):
    with pytest.raises(ValueError, match=f"their {what}.* differ"):
        interpolate(policy(1), policy(2, **other))


def test_returns_so_far_must_be_discounted_alike():
    one, other = (policy(1, config={"algorithm": {"advantage": "static"}, "gamma": gamma}) for gamma in (0.9, 0.99))
    with pytest.raises(ValueError, match="discounts"):
        interpolate(one, other)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), [0.5, 0.5], {"a": 1.0}, lambda obs: np.full(2, 0.5)])
def test_bad_alphas_are_refused(pair, alpha):
    with pytest.raises(ValueError, match=r"weights|alpha"):
        interpolate(*pair, alpha).act(OBS, WHO)


def test_bad_kinds_and_numbers_of_policies_are_refused(pair):
    with pytest.raises(ValueError, match="'sum' is unknown"):
        interpolate(*pair, 0.5, "sum")
    with pytest.raises(ValueError, match="two policies"):
        Mixture(pair[:1], (1.0,))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A policy that mostly earns and one that mostly does not, in the toy environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
        folder = tmp_path_factory.mktemp("runs")
        for name in ("safe", "neutral"):
            cli.train(["--env", "toy", "--total-timesteps", "200", "--out", str(folder / name)])
        yield folder


def biased(run, action: int, by: float) -> Policy:
    """The policy of a run, whatever it sees as keen on an action as `by` says."""
    found = Policy.load(run)
    with torch.no_grad():
        found.actor.nets[0][-1].weight.zero_()
        found.actor.nets[0][-1].bias.copy_(torch.tensor([0.0, by if action else -by]))
    return found


def returns_of(acting, episodes: int, seed: int) -> np.ndarray:
    acting.seed(seed)
    return drive(default_config("toy", "default"), chooser(acting), episodes, seed)["return"].mean(1)


def test_returns_of_kind_episode_follow_the_mixture_of_both_laws(runs):
    safe, neutral = biased(runs / "safe", 1, 1.5), biased(runs / "neutral", 0, 1.5)
    mixed = returns_of(interpolate(safe, neutral, 0.3, "episode"), 1024, seed=1)
    parts = returns_of(safe, 1024, seed=2), returns_of(neutral, 1024, seed=3)
    rng = np.random.default_rng(4)
    mixture = np.where(rng.random(1024) < 0.3, *parts)
    assert stats.ks_2samp(mixed, mixture).pvalue > 0.001
    by_decision = returns_of(interpolate(safe, neutral, 0.3), 1024, seed=1)
    assert stats.ks_2samp(by_decision, mixture).pvalue < 1e-6  # another law, with a mean between


def test_the_three_lines_of_the_readme_load_two_runs_and_interpolate(runs):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "interpolate(" in block)
    known = {"observations": {"agent_0": np.zeros(2), "agent_2": np.ones(2)}}
    exec(code.replace('"runs/', f'"{runs}/'), known)
    assert set(known["actions"]) == {"agent_0", "agent_2"}
    assert known["policy"].alpha == 0.5


@pytest.mark.slow
def test_eval_mixes(runs, tmp_path, capsys):
    out = tmp_path / "mix"
    args = ["--mix", str(runs / "safe"), str(runs / "neutral"), "--alpha", "0,0.5,1", "--kind", "all", "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "ProcessPoolExecutor", InThisProcess)  # where the toy environment is known
        cli.evaluate([*args, "--episodes", "100", "--out", str(out)])
        assert "probability alpha 0.5" in capsys.readouterr().out
        rows = tables.read(out / "results.csv")
        assert [(row["kind"], row["alpha"]) for row in rows] == [(k, a) for k in KINDS for a in ("0", "0.5", "1")]
        ends = {row["kind"]: row["mean return (agent)"] for row in rows if row["alpha"] == "1"}
        assert len(set(ends.values())) == 1
        patch.setattr(mixing.MixtureRun, "measure", None)  # nothing is measured again
        cli.evaluate([*args, "--episodes", "100", "--out", str(out), "--front", str(out)])
    bends = {(row["kind"], row["metric"]): row for row in tables.read(out / "bends.csv")}
    means = [float(row["mean return (agent)"]) for row in rows if row["kind"] == "logit"]
    assert float(bends["logit", "mean return (agent)"]["bend"]) == pytest.approx(means[1] - (means[0] + means[2]) / 2)
    pair = tables.pairs_of(rows)[0]
    trained = [row | {"label": "tau 1", "family": "rqe-mappo", "point": "tau 1", "kind": ""} for row in rows[:1]]
    panels = front_plots.mixtures(rows + trained, tables.front_rows(rows + trained), pair).axes
    assert len(panels) == len(KINDS)
    for axes in panels:
        assert {"α 0", "α 0.5", "α 1", "τ 1"} <= {text.get_text() for text in axes.texts}
        assert len(axes.lines[0].get_xdata()) == 1 and 3 in [len(line.get_xdata()) for line in axes.lines]


class InThisProcess:
    """A pool of no processes."""

    def __init__(self, *args):
        pass

    def shutdown(self, cancel_futures):
        pass

    def map(self, function, values):
        return map(function, values)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--alpha", "0:2:0.5"], "must lie in"),
        (["--alpha", "0:1:0"], "FIRST:LAST:STEP"),
        (["--alpha", "much"], "FIRST:LAST:STEP"),
        (["--kind", "sum"], "--kind sum is unknown"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--front", "nowhere"], "no results.csv"),
    ],
)
def test_bad_flags_end_in_one_line(runs, capsys, args, message):
    with pytest.raises(SystemExit) as stop:
        cli.evaluate(["--mix", str(runs / "safe"), str(runs / "neutral"), *args])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_alphas_are_spelled_without_rounding():
    assert mixing.alphas("0:1:0.1") == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_actions_come_as_often_as_the_mixture_says(pair, seed, alpha):
    """Which policy acts must not tell how it acts: drawn by the same numbers, they do."""
    mixture = interpolate(*pair, alpha)
    if seed is not None:
        mixture.seed(seed)
    obs = np.full((20_000, mixture.spec.obs_dim), 0.3, np.float32)
    drawn = np.bincount(mixture.act(obs), minlength=4) / len(obs)
    assert drawn == pytest.approx(mixture.probabilities(obs[:1])[0], abs=0.015)


@pytest.mark.parametrize("kind", ["probability", "episode", "logit"])
def test_a_single_observation_gives_one_action(pair, kind):
    mixture = interpolate(*pair, 0.5, kind)
    mixture.begin()
    assert isinstance(mixture.act(np.zeros(mixture.spec.obs_dim)), int)
