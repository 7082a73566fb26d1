"""Which advantage learns the averse choice: a tabular actor and critic on gambles whose optima are known exactly.

One agent chooses between a sure 0.5 and a gamble, +4 or -2 at even odds (mean 1, variance 9). `at once`: the gamble
is drawn within the step of the choice. `late`: a second, idle step comes first, so that the state after the choice
still holds the risk. The gamble is the better choice for an entropic tau above 8.8321, a CVaR level above 6/7, a
mean-variance tau above 9.

GAE on rho(Z) is blind to what is drawn within a step, and for lambda near 1 to everything (docs/risk.md): it takes
the at-once gamble always, and the late one where (1 - lambda) rho + lambda * 1 > 0.5, that is above
lambda = (0.5 - rho) / (1 - rho): 0.783 for tau = 1 (rho = -1.309), 0.616 for tau = 3 (rho = -0.301).
"""

import pytest
import torch

from rqe_mappo.functional import categorical, policy_gradient, returns
from rqe_mappo.functional.risk import CVaR, Entropic, MeanVariance, Neutral

ATOMS = categorical.aligned_support(-2, 4, 0.5, 13)
SURE, GAMBLE = 0, 1
EPISODES, ITERATIONS = 256, 150
CRITIC_FIRST = 30  # iterations before the actor moves: the influence under an untrained critic is another measure's


def roll_out(gambles, late, generator):
    """States and rewards `[T, E]`; state 0 is the choice, states 1 and 2 the idle step after either."""
    won = torch.rand(len(gambles), generator=generator) < 0.5
    reward = torch.where(gambles, torch.where(won, 4.0, -2.0), 0.5)[None]
    state = torch.zeros(1, len(gambles), dtype=torch.long)
    if late:
        reward = torch.cat((torch.zeros_like(reward), reward))
        state = torch.cat((state, 1 + gambles[None].long()))
    return state, reward


def advantages(advantage, measure, lam, reward, log_probs):
    """Advantage and critic target of every step of the rollout, whose last step terminates."""
    terminated = torch.zeros(reward.shape, dtype=torch.bool)
    terminated[-1] = True
    probs = log_probs.exp()
    following = torch.cat((probs[1:], probs[-1:]))  # the last one does not count
    target = returns.lambda_targets(ATOMS, reward, following, terminated, terminated, 1.0, lam)
    if advantage == "influence":
        return returns.influence_advantage(measure.influence(ATOMS, log_probs), target, probs), target
    value = measure.value(ATOMS, log_probs)
    following = torch.cat((value[1:], value[-1:]))
    if advantage == "nested":  # for the entropic measure without discount this value is the nested one
        surplus = measure.utility(reward + following * ~terminated - value)
        return returns.traced(surplus, terminated, lam), target
    return returns.gae(reward, value, following, terminated, terminated, 1.0, lam), target


def probability_of_gambling(advantage, schedule, lam, late, start):
    """After training from probability `start`; `schedule` gives the measure at each iteration."""
    generator = torch.Generator().manual_seed(0)
    actor = torch.tensor([1 - start, start]).log().requires_grad_()
    critic = (-0.5 * ATOMS**2).repeat(3, 1).requires_grad_()
    actor_optimizer = torch.optim.Adam([actor], lr=0.05, fused=True)
    critic_optimizer = torch.optim.Adam([critic], lr=0.3, fused=True)
    for iteration in range(ITERATIONS):
        log_policy = actor.log_softmax(-1)
        gambles = torch.rand(EPISODES, generator=generator) < log_policy[GAMBLE].detach().exp()
        state, reward = roll_out(gambles, late, generator)
        logits = critic[state]
        with torch.no_grad():
            log_probs = logits.log_softmax(-1)
            advantage_t, target = advantages(advantage, schedule(iteration), lam, reward, log_probs)
        critic_optimizer.zero_grad()
        categorical.cross_entropy(target, logits).mean().backward()
        critic_optimizer.step()
        if iteration >= CRITIC_FIRST:
            log_prob = log_policy[gambles.long()]
            normalised = policy_gradient.normalise(advantage_t[0], float(advantage_t[0].std(correction=0)))
            actor_optimizer.zero_grad()
            policy_gradient.clipped_surrogate(log_prob - log_prob.detach(), normalised, 0.2).mean().backward()
            actor_optimizer.step()
    return actor.detach().softmax(-1)[GAMBLE].item()


def chosen(advantage, measure, lam, late, start=0.5, anneal=False):
    """The action the policy settles on; fails if it settles on none."""

    def schedule(iteration):
        return measure.annealed(min(1.0, max(0, iteration - CRITIC_FIRST) / 100)) if anneal else measure

    probability = probability_of_gambling(advantage, schedule, lam, late, start)
    assert not 0.1 < probability < 0.9, f"undecided: P(gamble) = {probability:.2f}"
    return GAMBLE if probability > 0.5 else SURE


# Within a single step lambda has nothing to act on.
SETTINGS = [pytest.param(0.95, False, id="at_once")] + [
    pytest.param(lam, True, id=f"late-{lam:g}") for lam in (0.0, 0.95, 1.0)
]


@pytest.mark.slow
@pytest.mark.parametrize(("lam", "late"), SETTINGS)
@pytest.mark.parametrize(
    ("measure", "best"),
    [
        (Neutral(), GAMBLE),
        (Entropic(3), SURE),
        (Entropic(20), GAMBLE),
        (CVaR(3 / 7), SURE),  # half the threshold
        (CVaR(13 / 14), GAMBLE),  # half way from the threshold to 1, since twice is no level
        (MeanVariance(4.5), SURE),
        (MeanVariance(18), GAMBLE),
    ],
    ids=["neutral", "entropic-3", "entropic-20", "cvar-3/7", "cvar-13/14", "mean-variance-4.5", "mean-variance-18"],
)
def test_influence_learns_the_better_choice(measure, best, lam, late):
    assert chosen("influence", measure, lam, late) == best


@pytest.mark.slow
@pytest.mark.parametrize(("lam", "late"), SETTINGS)
@pytest.mark.parametrize(("tau", "best"), [(3, SURE), (20, GAMBLE)])
def test_nested_learns_the_better_choice(tau, best, lam, late):
    assert chosen("nested", Entropic(tau), lam, late) == best


@pytest.mark.parametrize(("tau", "enough"), [(1, 5), (3, 10)])
def test_value_sees_what_is_drawn_many_steps_later(tau, enough):
    lam, gamble = 0.95, torch.tensor([0.5, 0.5]).log()
    rho = float(Entropic(tau).value(torch.tensor([-2.0, 4.0]), gamble))
    for idle in range(15):
        reward = torch.zeros(idle + 1, 2)
        reward[-1] = torch.tensor([-2.0, 4.0])
        terminated = torch.zeros(idle + 1, 2, dtype=torch.bool)
        terminated[-1] = True
        value = torch.full_like(reward, rho)
        value[0] = 0.5  # a baseline: what the sure choice is worth
        following = torch.cat((value[1:], value[-1:]))
        lead = returns.gae(reward, value, following, terminated, terminated, 1.0, lam)[0].mean()
        assert float(lead) == pytest.approx((1 - lam**idle) * rho + lam**idle * 1 - 0.5, abs=1e-5)
        assert (lead < 0) == (idle >= enough)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [Entropic(1), Entropic(3), Entropic(20), CVaR(3 / 7), MeanVariance(4.5)], ids=str)
def test_value_is_risk_neutral_about_what_is_drawn_at_once(measure):
    assert chosen("value", measure, lam=0.95, late=False) == GAMBLE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tau", "lam", "predicted"),
    [
        (3, 0.0, SURE),
        (3, 0.50, SURE),
        (3, 0.75, GAMBLE),
        (3, 0.95, GAMBLE),
        (3, 1.0, GAMBLE),
        (1, 0.0, SURE),
        (1, 0.70, SURE),
        (1, 0.87, GAMBLE),
        (1, 0.95, GAMBLE),
        (1, 1.0, GAMBLE),
        (20, 0.0, GAMBLE),
        (20, 0.95, GAMBLE),
    ],
)
def test_value_loses_sight_of_late_risk_as_lambda_grows(tau, lam, predicted):
    rho = float(Entropic(tau).value(ATOMS, categorical.dirac(ATOMS, torch.tensor([-2.0, 4.0])).mean(0).log()))
    assert ((1 - lam) * rho + lam * 1 > 0.5) == (predicted == GAMBLE)
    assert chosen("value", Entropic(tau), lam, late=True) == predicted


def test_the_clip_does_not_matter_here():
    """The support is 2 tau wide at tau = 3; at tau = 1, with 6, the choice is the same with and without."""
    for clip in (3.0, None):
        assert chosen("influence", Entropic(1, clip), 0.95, late=True) == SURE


def test_annealing_frees_cvar_from_its_local_optimum():
    """Below P(gamble) = 1/7 the quantile at 13/14 is the sure 0.5 and every win above it counts for nothing."""
    for anneal, settled in ((False, SURE), (True, GAMBLE)):
        assert chosen("influence", CVaR(13 / 14), 0.95, late=True, start=0.05, anneal=anneal) == settled
