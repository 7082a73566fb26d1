"""Whether learned values are such as returns allow."""

import torch

from rqe_mappo.data.replay import EpisodeReplay
from rqe_mappo.functional import q_learning

AT_ONCE = 256  # episodes
BEYOND = 0.25  # of the range of values that returns allow: a mean value this far outside has diverged


def allowed(replay: EpisodeReplay, gamma: float) -> tuple[float, float]:
    """The lowest and the highest value that replayed returns to go allow, in reward; 0 always is.

    With episodes that are cut after L steps on average, and go on behind, `G / (1 - gamma^L)` for the lowest and the
    highest return to go G: what follows brings as much at most in each L steps. Else G. The best play can be worth more
    where no episode was played well to its end, as it hardly is at random.
    """
    low = high = 0.0
    cut = steps = 0
    for slots in torch.tensor(replay.finished).split(AT_ONCE) if len(replay) else ():
        part = replay.episodes(slots, torch.device("cpu"))
        nothing = torch.zeros_like(part.reward)
        to_go = q_learning.lambda_returns(part.reward, nothing, part.ended, part.ended, gamma, 1.0)
        low, high = min(low, float(to_go.min())), max(high, float(to_go.max()))
        goes_on = (part.ended & ~part.terminated).any(0)
        cut, steps = cut + int(goes_on.sum()), steps + int(part.filled[:, goes_on].sum())
    more = 1 / (1 - gamma ** (steps / cut)) if cut and gamma < 1 else 1.0  # simulations may be lost with gamma 1
    return more * low, more * high


def warnings(mean: float, replay: EpisodeReplay, gamma: float, worst_case: bool = False) -> list[str]:
    """What to say where values have this mean; those of a worst case may lie below all that was seen."""
    low, high = allowed(replay, gamma)
    margin = BEYOND * (high - low)
    if (worst_case or low - margin <= mean) and mean <= high + margin:
        return []
    return [
        f"values have diverged: their mean is {mean:.3g}, and replayed returns allow {low:.3g} to {high:.3g} (or no "
        "episode was played well, with much --exploration): use a lower --learning-rate or --polyak, or --double-q"
    ]
