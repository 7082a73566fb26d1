"""Which side of a known threshold does training end on? `python -m benchmarks.gambles` (docs/games.md, docs/truth.md).

Every risk measure at half and twice the parameter at which it is indifferent, on the gambles M1 (drawn at once), M2
(drawn later) and M5 (a cliff), for lambda in {0, .5, .95, 1}, with tables and with networks, with the advantage
`influence` and with `value`, whose errors are predicted; then what tells static from per-state risk, M3, M3b, M4, and
that from nested risk, M6.
Writes results/gambles.csv: the side foretold, and the probability of the risky action at the end of training.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.optimize import brentq

from benchmarks import tables
from benchmarks.silent import trained
from rqe_mappo.config import default_config
from rqe_mappo.envs.gambles import SCENARIOS, BatchedGamble
from rqe_mappo.envs.gambles.model import RISKY, SAFE, gamble_game
from rqe_mappo.envs.tabular.exact import return_distribution
from rqe_mappo.envs.tabular.model import FiniteGame
from rqe_mappo.functional.risk import RiskMeasure, parse_risk
from rqe_mappo.nets import PolicyActor

RESULT = tables.RESULTS / "gambles.csv"
LAMBDAS = (0.0, 0.5, 0.95, 1.0)
ACTORS = ("table", "network")
ORDER = ("m1", "m2", "m5", "m3", "m3b", "m4", "m6")
# A measure's spelling for its parameter x, and where to look for the x at which it is indifferent.
FAMILIES: dict[str, tuple[Callable[[float], tuple[str, float]], float, float]] = {
    "entropic": (lambda x: ("entropic", x), 1.0, 100.0),
    "mean-variance": (lambda x: ("mean-variance", x), 1.0, 100.0),
    "mean-std": (lambda x: (f"mean-std:{x}", 1.0), 0.01, 2.0),
    "cvar": (lambda x: (f"cvar:{x}", 1.0), 0.06, 0.999),
    "wang": (lambda x: (f"wang:{x}", 1.0), 0.01, 2.0),
    "dual-power": (lambda x: (f"dual-power:{x}", 1.0), 1.01, 6.0),
    "power": (lambda x: (f"power:{x}", 1.0), 1.01, 6.0),
    "gini": (lambda x: (f"gini:{x}", 1.0), 0.01, 1.0),
    "expectile": (lambda x: (f"expectile:{x}", 1.0), 0.05, 0.499),
}


def measure_of(risk: tuple[str, float]) -> RiskMeasure:
    """The measure that `--risk` and `--tau` name, without the clip."""
    return parse_risk(*risk, clip=None)


@cache
def game(scenario: str) -> FiniteGame:
    return gamble_game(SCENARIOS[scenario])


def worth(scenario: str, action: int, measure: RiskMeasure, gamma: float = 1.0) -> float:
    """The measure's value of always taking `action`."""
    return of_law(measure, *law(scenario, action, gamma=gamma))


@cache
def law(scenario: str, action: int, state: int | None = None, gamma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values and probabilities of the return of always taking `action`, from the start or from `state`."""
    known = game(scenario)
    policy = np.eye(2)[np.full(known.n_states, action)]
    start = None if state is None else (np.arange(known.n_states) == state).astype(float)
    return return_distribution(known, [policy], gamma=gamma, start=start)


def of_law(measure: RiskMeasure, values: np.ndarray, probs: np.ndarray) -> float:
    """The measure's value of a law; a sure return is worth itself."""
    if len(values) == 1:
        return float(values[0])
    return float(measure.value(torch.from_numpy(values), torch.from_numpy(probs).log()))


def threshold(scenario: str, family: str) -> float:
    """The parameter at which a family is indifferent."""
    spell, low, high = FAMILIES[family]

    def excess(x: float) -> float:
        measure = measure_of(spell(x))
        return worth(scenario, RISKY, measure) - worth(scenario, SAFE, measure)

    return float(brentq(excess, low, high, xtol=1e-10))


def side_of_value(scenario: str, measure: RiskMeasure, lam: float) -> int | None:
    """The action that GAE on V leans to, with an exact critic, on the way of either action taken throughout.

    `g(s) = E[r + (1 - lam) V(s') + lam g(s')]` enters linearly, so that of the first step's risk nothing is left.
    """
    known = game(scenario)

    def g(state: int, action: int) -> float:
        if known.terminal[state]:
            return 0.0
        total = 0.0
        for prob, reward, following in zip(
            known.prob[state, action], known.reward[0, state, action], known.next_state[state, action], strict=True
        ):
            if prob > 0:
                v = 0.0
                if not known.terminal[following]:
                    v = of_law(measure, *law(scenario, action, following))
                total += prob * (reward + (1 - lam) * v + lam * g(following, action))
        return total

    first = int(known.start.argmax())
    lead = g(first, RISKY) - g(first, SAFE)
    return None if abs(lead) < 1e-6 else RISKY if lead > 0 else SAFE


@dataclass(frozen=True)
class Case:
    """One training run and the side of each choice that theory foretells (None: indifferent).

    remembers: the actor starts near the policy that gambles without the hidden prize, not with it; else it starts even.
    """

    scenario: str
    risk: tuple[str, float]
    advantage: str
    lam: float
    actor: str
    foretold: tuple[int | None, ...]
    discount_tau: bool = False
    remembers: bool = False
    note: str = ""


def cases(scenarios: Sequence[str] = ORDER, families: Sequence[str] = tuple(FAMILIES)) -> list[Case]:
    """All cases of the table that belong to the given scenarios and, on M1, M2 and M5, measures."""
    found = []
    for scenario in ("m1", "m2", "m5"):
        if scenario in scenarios:
            found += [case for family in families for case in _by_threshold(scenario, family)]
    others = [case for lam in LAMBDAS for actor in ACTORS for case in _static(lam, actor) + _nested(lam, actor)]
    return found + [case for case in others if case.scenario in scenarios]


def _by_threshold(scenario: str, family: str) -> list[Case]:
    """A measure on either side of its threshold."""
    spell, _, _ = FAMILIES[family]
    at, found = threshold(scenario, family), []
    for x in (at / 2, 2 * at):
        try:
            measure = measure_of(spell(x))
        except ValueError:  # twice a level may be no level
            continue
        right = RISKY if worth(scenario, RISKY, measure) > worth(scenario, SAFE, measure) else SAFE
        for lam in LAMBDAS:
            side = side_of_value(scenario, measure, lam)
            note = "" if side in (right, None) else "as foretold, the wrong side"
            for actor in ACTORS:
                found.append(Case(scenario, spell(x), "influence", lam, actor, (right,)))
                found.append(Case(scenario, spell(x), "value", lam, actor, (side,), note=note))
    return found


def _static(lam: float, actor: str) -> list[Case]:
    """What tells the risk of whole episodes from that of states; choices without the prize, and with it."""
    half = ("cvar:0.5", 1.0)
    found = [
        # The static optimum gambles without the prize; with it, nothing counts.
        Case("m3", half, "static", lam, actor, (RISKY, None)),
        Case("m3", half, "influence", lam, actor, (SAFE, SAFE)),
        # The hidden prize is known to who remembers what was gained, and to gamble without it alone is best. From an
        # even start the exact gradient leads away from there: the outcomes with the prize lie above the tail.
        Case("m3b", half, "static", lam, actor, (SAFE, None), note="as foretold, a local optimum"),
        Case("m3b", ("entropic", 3.0), "static", lam, actor, (SAFE, SAFE)),
        Case("m4", ("entropic", 6.0), "influence", lam, actor, (SAFE,)),
        Case("m4", ("entropic", 6.0), "influence", lam, actor, (RISKY,), discount_tau=True),
        Case("m4", ("entropic", 6.0), "static", lam, actor, (RISKY,)),
    ]
    if actor == "table":
        found.append(Case("m3b", half, "static", lam, actor, (RISKY, SAFE), remembers=True))
    return found


def _nested(lam: float, actor: str) -> list[Case]:
    """What tells nested from per-state risk: a gamble that is drawn late and discounted."""
    return [
        Case("m6", ("entropic", 5.0), "nested", lam, actor, (SAFE,)),  # its own threshold is at tau = 8.83
        Case("m6", ("entropic", 5.0), "influence", lam, actor, (RISKY,)),  # and that of the whole return at 1.10
        Case("m6", ("entropic", 20.0), "nested", lam, actor, (RISKY,)),
        Case("m6", ("expectile:0.3", 1.0), "nested", lam, actor, (SAFE,)),
        Case("m6", ("cvar:0.95", 1.0), "nested", lam, actor, (RISKY,)),
    ]


def choices(scenario: str, advantage: str, dims: int) -> torch.Tensor:
    """The observations at which the action matters, `[choices, D]`, in the order of `Case.foretold`."""
    known, config = game(scenario), SCENARIOS[scenario]
    rows = [known.obs[i, 0] for i, name in enumerate(known.state_names) if name.startswith("choice")]
    if advantage == "static":  # sees the past return, in units of the largest, and the discount where there is one
        unit = _unit(scenario)
        pasts = (0.0, config.prize) if scenario in ("m3", "m3b") else (0.0,)
        rows = rows * len(pasts) if len(rows) < len(pasts) else rows
        more = [[past / unit] + ([0.5] if scenario == "m4" else []) for past in pasts]
        rows = [np.concatenate((row, extra)) for row, extra in zip(rows, more, strict=True)]
    assert all(len(row) == dims for row in rows)
    return torch.tensor(np.array(rows), dtype=torch.float32)


def _unit(scenario: str) -> float:
    """The unit in which `History` shows past returns."""
    return max(abs(bound) for bound in BatchedGamble(SCENARIOS[scenario], 1).return_bounds)


def learn(case: Case) -> dict:
    """Train one case; gives its row."""
    risk, tau = case.risk
    steps = game(case.scenario).horizon
    table = case.actor == "table"
    envs, updates, alone, epochs = 256, 80 if table else 100, 0.25, 4
    rate = 0.1 if table else 0.01
    if case.scenario == "m5":  # long: where lambda is small, news of the end needs an update a step to reach the start
        envs, epochs, rate = 64, 8, 0.3 if table else 0.02
        updates, alone = (80, 0.25) if case.lam > 0.5 else (120, 0.5)
    if case.scenario == "m6":
        updates, epochs = 160, 8  # the nested value travels by one step per pass
    pace = {"critic_first": alone, "critic_epochs": epochs, "critic_learning_rate": rate}
    network = {"actor_hidden": (16,), "critic_hidden": (32,)}
    config = default_config("gamble", case.scenario).replace(
        risk=risk, tau=tau, eps=0.0, advantage=case.advantage,
        gae_lambda=case.lam, discount_tau=case.discount_tau, num_envs=envs, num_steps=steps,
        total_timesteps=updates * envs * steps, num_minibatches=1, update_epochs=2,
        norm_adv=True, learning_rate=0.05 if table else 0.01, **pace, **({} if table else network),
    )  # fmt: skip

    def prepare(actor: PolicyActor) -> None:
        if case.remembers:  # logits of +-1, for the two pasts 0 and prize
            unit, past = _unit(case.scenario), SCENARIOS[case.scenario].prize
            actor.nets[0][-1].bias += torch.tensor([-1.0, 1.0])
            actor.nets[0][-1].weight[:, -1] += torch.tensor([2.0, -2.0]) * unit / past

    run = trained(config, prepare)
    obs = choices(case.scenario, case.advantage, run.algorithm.actor.spec.obs_dim)
    with torch.no_grad():
        risky = run.algorithm.actor.logits(obs, torch.zeros(len(obs), dtype=torch.int64)).softmax(-1)[:, RISKY].tolist()
    right = [side is None or (p > 0.5) == (side == RISKY) for p, side in zip(risky, case.foretold, strict=True)]
    name = {SAFE: "safe", RISKY: "risky", None: "either"}
    return {
        "gamble": case.scenario, "risk": risk, "tau": tau if risk in ("entropic", "mean-variance") else "",
        "advantage": case.advantage + (" with --discount-tau" if case.discount_tau else ""), "lambda": case.lam,
        "actor": case.actor, "foretold": " ".join(name[side] for side in case.foretold), "note": case.note,
        "P(risky)": " ".join(f"{p:.3f}" for p in risky), "as foretold": all(right),
        "decided": all(side is None or not 0.1 < p < 0.9 for p, side in zip(risky, case.foretold, strict=True)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--only", default="", help="only the gambles and measures that hold this; writes nothing")
    args = parser.parse_args()
    chosen = [case for case in cases() if args.only in f"{case.scenario} {case.risk[0]} {case.advantage}"]
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(learn, chosen, chunksize=4))
    for row in rows:
        if not (row["as foretold"] and row["decided"]):
            print("  ".join(f"{key} {value}" for key, value in row.items()))
    for advantage in dict.fromkeys(row["advantage"] for row in rows):
        of = [row for row in rows if row["advantage"] == advantage]
        wrong = sum(row["note"] != "" for row in of)
        kept = sum(row["as foretold"] for row in of)
        print(f"{advantage}: {kept} of {len(of)} as foretold; {wrong} of them foretold to be wrong")
    if not args.only:
        tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
