"""Settings of the kitchen and their named combinations."""

from dataclasses import dataclass

from rqe_mappo.envs.fixed_length.game import LONGEST, require_whole, require_within

MOST_COOKS = 6  # beside 19 cells to walk on
DEAREST = 1000.0


@dataclass(frozen=True)
class KitchenConfig:
    """Cooks carry onions to a pot; who works pays for it, and all are paid for what is delivered."""

    n_agents: int = 2
    """How many cooks there are."""
    pickup_reward: float = 1.0
    """What each cook is paid when any of them takes an onion."""
    delivery_reward: float = 10.0
    """What each cook is paid when any of them brings one to the pot."""
    move_cost: float = 0.2
    """What a cook alone pays for each action but `stay`."""
    collision_cost: float = 2.0
    """What a cook alone pays for walking into another."""
    respawn_probability: float = 0.2
    """Probability that a new onion comes to an empty station in a step."""
    horizon: int = 50
    """Length of an episode, in steps."""
    observe_time: bool = False
    """Show the time left, so that the time limit may be learned as an end; the published game does not."""

    def __post_init__(self):
        require_whole(self, "n_agents", 1, MOST_COOKS)
        require_whole(self, "horizon", 1, LONGEST)
        require_within(self, 0, DEAREST, "pickup_reward", "delivery_reward", "move_cost", "collision_cost")
        require_within(self, 0, 1, "respawn_probability")


SCENARIOS = {"default": KitchenConfig()}
