"""Settings that train well, one function an environment; each number has its reason.

Names are those of runs and of algorithms; an algorithm takes those that it has. `off_policy` holds settings for teams
that learn from replay; where there are none, none have been looked for.
"""

from typing import Any


def sumo(scenario: str) -> dict[str, Any]:
    """Vehicles at an unsignalised intersection."""
    return dict(
        total_timesteps=4_000_000,
        num_envs=64,  # copies in one SUMO simulation: fastest between 8 and 64
        num_steps=96,
        gamma=1.0,  # episodes are short, the elapsed time is observed, and rewards stay on the atoms' grid
        time_limit="terminal",
        num_minibatches=32,
        critic_epochs=3,
        # Of docs/learning.md: neutral runs of five seeds ended at -11.3 s with a std of 0.12, those with rollouts of 24
        # steps, a step size of 1e-3, eps = 0.01 throughout and the last weights at about -11.8 with 0.4.
        learning_rate=3e-3,
        eps=0.003,
        eps_start=10.0,  # with 0.003 from the start hard braking died out before it was learned where it helps
        average=0.4,  # the last checkpoint is a draw from bold and careful ones
        settle=0.05,
        off_policy=dict(
            window=10,  # of up to 80 steps; whole episodes left 3,000 learning steps in a run, pieces 20,000
            batch_episodes=64,
            value_unit=4.0,  # seconds, about the std of what one vehicle earns in the end; measured, it is 50
            normalise_obs=True,
            # One pilot each (benchmarks/results/sumo_pilots.csv): with 5e-4 and 0.05 at random to the end -11.8 s, with
            # these -11.0.
            learning_rate=1e-3,
            anneal_lr=True,
            exploration=0.02,
        ),
    )


def sumo_signals(scenario: str) -> dict[str, Any]:
    """Traffic lights: long episodes, of which the last second is no end."""
    return dict(
        total_timesteps=80_000,
        num_envs=2,  # a process each
        num_steps=120,
        gamma=0.95,  # 20 decisions ahead, about two cycles; 0.98 learned more slowly
        # Vehicle-minutes: about the std of the discounted return at the end of pilot runs. To measure it, 100 episodes
        # of agents would have to end, and in a whole run no more than about that many do.
        return_scale=2.5,
        warmup_fraction=0.2,  # until then lights learn to dissolve their jams
        shared_actor=False,  # lights differ in their lanes and phases
        critic_hidden=(128, 128),
        eval_episodes=4,
    )


def cartpole(scenario: str) -> dict[str, Any]:
    """Risky CartPole, and CartPole-v1 as its scenario `cartpole-v1`."""
    plain = scenario == "cartpole-v1"  # easy: larger batches are faster, and its returns need fewer atoms
    return dict(
        total_timesteps=1_000_000 if plain else 4_000_000,  # under two minutes
        num_envs=128 if plain else 64,
        num_steps=128,
        # A fall costs what is left of the episode, half of 500 steps on average. With gamma nearer 1 and time limits
        # bootstrapped it would seem to cost more, and even risk-neutral agents stayed in the calm half.
        gamma=0.99,
        num_minibatches=8,
        # At 2e-3 and half the steps neutral runs came to means of 540, not of 580; with the critic's at 2e-3,
        # runs at tau = 1 broke down.
        learning_rate=1e-3,
        critic_learning_rate=1e-3,
        critic_hidden=(64, 64),
        n_atoms=51 if plain else 101,
        # Neutral runs that were not bold at first stayed in the calm half, and those not sure at last fell too often.
        eps=0.01 if plain else 0.003,
        eps_start=1.0 if plain else 10.0,
        average=0.0 if plain else 0.1,  # where to stand swings; 2 of 15 runs at tau >= 2 stopped badly
        average_of="last" if plain else "best",  # 1 of 11 runs at tau = 0.3 broke down after three quarters
        settle=0.0 if plain else 0.1,  # the critic lags behind the policy: its KS was 0.14 or more without
        # The unit of tau hardly changes later: the std of the discounted return is 14 there (one run), and 15 to 20
        # under trained neutral policies. Older tables in docs/results.md are of the undiscounted one.
        warmup_fraction=0.03 if plain else 0.0075,
    )


def gamble(scenario: str) -> dict[str, Any]:
    """One choice whose right answer is known: a table of logits, and tau in units of the reward."""
    return dict(
        total_timesteps=400_000 if scenario == "m5" else 100_000,  # of which an episode takes up to 20
        num_envs=32,
        num_steps=32,  # the longest episode is of 20
        gamma=0.5 if scenario in ("m4", "m6") else 1.0,  # these ask what discounting does to tau
        time_limit="terminal",
        return_scale=1.0,  # docs/games.md gives thresholds of tau in units of the reward
        warmup_fraction=0.0,  # nothing to measure, and a table that was taught to gamble is slow to unlearn it
        risk_anneal_fraction=0.0,
        norm_adv=False,  # eps too, in units of the reward
        learning_rate=3e-3,
        critic_learning_rate=1e-2,
        actor_hidden=(),  # of a one-hot state: a table
        critic_hidden=(),
    )


def matrix(scenario: str) -> dict[str, Any]:
    """Games in normal form: a table of logits a player, tau and eps in points of the game."""
    return dict(
        total_timesteps=400_000,
        num_envs=128,
        num_steps=4,  # every step is an episode
        gamma=1.0,
        time_limit="terminal",
        return_scale=1.0,
        warmup_fraction=0.0,  # nothing to measure
        norm_adv=False,
        learning_rate=5e-3,
        critic_learning_rate=3e-2,
        critic_first=0.2,  # with --advantage rqe, who trusts an untrained critic may give up an action before it knows
        shared_actor=False,  # all see the same, and shall not have to act the same
        actor_hidden=(),
        critic_hidden=(),
    )


def cliff(scenario: str) -> dict[str, Any]:
    """The two-agent cliff walk, undiscounted as in its exact solution."""
    return dict(
        total_timesteps=1_000_000,
        eps=0.1,  # in trials both found their goals only with so much, and the second not always
        num_envs=32,
        num_steps=32,
        gamma=1.0,
        time_limit="terminal",
        learning_rate=1e-2,
        shared_actor=False,  # their goals differ
        warmup_fraction=0.3,  # who is averse before it has found its goal does not look for it
        # Logits that depend on each cell apart: a hidden layer carried what was learned at the cliff's edge over to
        # cells hardly seen, and both agents hid.
        actor_hidden=(),
        critic_hidden=(64,),
        n_atoms=101,
    )


def step_games(scenario: str) -> dict[str, Any]:
    """The two-step and the m-step game: a table of logits an agent, tau and eps in units of the reward."""
    return dict(
        total_timesteps=200_000,
        num_envs=64,
        num_steps=16,  # longer than an episode of either
        gamma=1.0,
        time_limit="terminal",
        return_scale=1.0,  # docs/games.md gives payoffs, and tau in their unit
        warmup_fraction=0.0,  # nothing to measure
        risk_anneal_fraction=0.0,
        norm_adv=False,  # eps too, in units of the reward
        learning_rate=5e-3,
        critic_learning_rate=3e-2,  # at 1e-2 it predicted 7 where trained agents of the m-step game get 10
        shared_actor=False,  # both see the same, and shall not have to act the same
        actor_hidden=(),  # of one-hot states: a table
        critic_hidden=(),
    )


def predator_prey(scenario: str) -> dict[str, Any]:
    """Predators that catch together: alike, many, and without the time left."""
    return dict(
        total_timesteps=4_000_000,
        num_envs=64,
        num_steps=64,  # so that captures, rare at first, lie in every batch
        gamma=0.99,  # episodes last up to 200 steps, and their end is not observed
        num_minibatches=8,
        critic_hidden=(128, 128),  # it sees the whole grid
        # Batches of 32 whole episodes, of 200 steps, leave 600 learning steps in a run, and these 6,000.
        off_policy=dict(window=10, batch_episodes=64),
    )


def macf(scenario: str) -> dict[str, Any]:
    """Two cars that follow each other to a goal; numbers of RiskQ's release where they have a counterpart."""
    return dict(
        total_timesteps=4_000_000,  # two million steps of both cars, as released
        num_envs=64,
        num_steps=64,  # two episodes of cars that know the way
        gamma=0.99,  # as released; an episode of 30 steps is well within sight, and the time limit is not observed
        num_minibatches=8,
        normalise_obs=True,  # cars that act at random end far behind the start, where x is of order 10
        # Units of the reward. The std of returns is 1 to 2 where cars know the way (docs/games.md), but 680 where they
        # act at random, and in units of that every tau would be risk-neutral.
        return_scale=1.0,
        warmup_fraction=0.25,  # until then they find the goal, whatever that costs
        # Of a car that stands at the start, discounted, to the best. Atoms that follow the returns of lost cars end 11
        # apart, and a critic of those predicted a std of 33 where it was 5 (KS 0.30; with these 0.07).
        return_low=-500.0,
        return_high=20.0,
        n_atoms=521,
        off_policy=dict(
            window=10,  # whole episodes of lost cars left 400 learning steps in 600,000 decisions
            batch_episodes=64,
            value_unit=20.0,  # not the 100 and more of lost cars
            anneal_lr=True,
        ),
    )


def kitchen(scenario: str) -> dict[str, Any]:
    """Cooks who share what is delivered; numbers of SRPO's appendix D where they have a counterpart."""
    return dict(
        total_timesteps=4_000_000,  # two million steps of both cooks, as published
        num_envs=32,
        num_steps=100,  # two episodes
        gamma=0.99,  # as published; the time limit is not observed
        num_minibatches=8,
        learning_rate=6e-4,  # as published
        # As published, in points. In units of the advantages' std, 5 to 7 points among cooks who learn and 17 beside
        # partners who know the kitchen (`--algo fcp`), 0.1 of it left those as random as they began.
        eps=0.1,
        norm_adv=False,
        shared_actor=False,  # as published: who works and who rests may be each cook's own habit
    )


def stag_hunt(scenario: str) -> dict[str, Any]:
    """Two hunters who meet again and again, and see neither the time left nor each other's intentions."""
    return dict(
        total_timesteps=4_000_000,
        num_envs=64,
        num_steps=75,  # an episode
        gamma=0.99,  # a meeting takes three to six steps
        num_minibatches=8,
        learning_rate=1e-3,
        shared_actor=False,  # so that it can be asked what strangers make of each other
    )


def tag(scenario: str) -> dict[str, Any]:
    """Chasers of one prey: catches are rare at first, and far fewer than steps."""
    return dict(
        total_timesteps=8_000_000,
        num_envs=64,
        num_steps=100,  # an episode, or four of `mpe`
        gamma=0.95,  # two seconds ahead; with 0.99 (SRPO's) short runs ended below random play
        num_minibatches=4,
        learning_rate=1e-3,  # SRPO's, as the networks' size
        critic_learning_rate=1e-3,
        actor_hidden=(128, 128),
        critic_hidden=(128, 128),
        normalise_obs=True,  # who leaves the field is soon far outside of it
        shared_actor=scenario != "mpe",  # chasers are alike; prey that learns is not
    )


def by_name(scenario: str) -> dict[str, Any]:
    """An environment of another package: nothing is known of it, so these are CleanRL's settings for PPO, in short."""
    return dict(
        num_envs=8,
        num_steps=128,
        learning_rate=2.5e-4,
        critic_learning_rate=1e-3,
    )
