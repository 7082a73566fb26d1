"""The gambles as a Gymnasium environment."""

from typing import Any

from rqe_mappo.envs.gambles.config import SCENARIOS
from rqe_mappo.envs.gambles.model import gamble_game
from rqe_mappo.envs.tabular.env import TabularEnv, configure


class GambleEnv(TabularEnv):
    """
    ## Description
    One choice between something sure and a gamble with the higher mean, in six settings in which risk measures, and
    ways to optimise them, choose differently. Which choice is right is known exactly for every measure.

    ## Action space
    `Discrete(2)`: 0 is safe, 1 is risky. Outside the choice both actions do the same.

    ## Observation space
    `Box` of float32: the one-hot state. Every state but the end has a place.

    ## Scenarios and rewards

    | scenario | steps | what happens |
    |---|---|---|
    | `m1`, `default` | 1 | safe pays 0.5; risky pays 4 or -2 at even odds (mean 1, variance 9) |
    | `m2` | 2 | the same, but paid one step after the choice, without anything left to choose |
    | `m3` | 2 | first a prize of 10 or 0 at even odds, seen; then safe 1 or risky 4 or -1 at even odds |
    | `m3b` | 2 | first a prize of 6 or 0 at even odds, not seen; then safe 1 or risky 9 or -3 at even odds |
    | `m4` | 2 | an idle step, then the choice of `m1`; meant for a discount of 0.5 |
    | `m5` | up to 20 | safe: 20 steps to the goal; risky: 3 steps, falling with probability 0.05 in each. A step pays -0.2, the goal +5 and a fall -10 on top, and both end the episode |
    | `m6` | 4 | as `m2`, but paid three steps after the choice; meant for a discount of 0.5 |

    ## Exact thresholds
    The risky action is the better one if and only if

    | measure | `m1`, `m2` | `m5` |
    |---|---|---|
    | entropic, `-tau log E exp(-Z/tau)` | tau > 8.8321 | tau > 13.29 |
    | CVaR, mean of the worst share | level > 6/7 | level > 0.6206 |
    | mean - b variance | b < 1/18 (tau > 9) | b < 0.0482 (tau > 10.38) |
    | mean - k std | k < 1/6 | k < 0.2494 |
    | expectile | level > 5/12 | level > 0.3579 |
    | dual power, mean of the worse of k draws | k < 1.2630 | |
    | Wang, shift of the normal quantile | shift < 0.2104 | |
    | mean - g half the mean difference | g < 1/3 | |

    The short path of `m5` has mean 2.2901 and variance 26.764, the long one pays 1.

    * `m3` with CVaR at level 0.5. Seen from the start (static), gambling only without the prize is best, worth 1.5
      against 1 for never gambling; the choice with the prize makes no difference. Seen from the choice (per
      state, nested), safe is right in both states: 1 against -1.
    * `m3b` with CVaR at level 0.5. Risky without the prize and safe with it is worth 2; no policy that does not remember
      the prize is worth more than 1. With entropic tau = 3 safe is best throughout (2.699), remembered or not.
    * `m4` with discount 0.5. Seen from the choice the entropic threshold is tau > 8.8321, seen from the start half of
      that, tau > 4.4161.
    * `m6` with discount 0.5. The nested entropic threshold is tau > 8.8321, that of the whole return seen from the choice
      an eighth of it, tau > 1.1040.

    ## Episode end
    Terminated after the last step. Nothing is truncated: no episode can outlast its horizon.

    ## Arguments
    `scenario`, and any field of `GambleConfig` (of `PathConfig` for `m5`) on top of it.

    ```python
    >>> import gymnasium, rqe_mappo.envs.gambles
    >>> env = gymnasium.make("rqe/Gamble-v0", scenario="m3", sure=1.5)

    ```

    ## Version history
    * v0: first version.
    """  # noqa: E501  (one row of a table is one line)

    def __init__(self, scenario: str = "default", render_mode: None = None, **overrides: Any):
        self.config = configure(SCENARIOS, scenario, overrides)
        self.render_mode = render_mode
        super().__init__(gamble_game(self.config))
