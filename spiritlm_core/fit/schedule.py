"""Learning rates, as a function of the step alone."""

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine", "wsd"]


def learning_rate_scale(
    step: int,
    steps: int,
    schedule: Schedule = "linear",
    *,
    warmup: int | None = None,
    floor: float = 0.0,
    decay_share: float = 0.2,
) -> float:
    """Share of the peak in `step` (from 0) out of `steps`: linear warm-up, then the schedule.

    ``linear`` falls to the share `floor` from the end of the warm-up on (as in HuBERT, arXiv 2106.07447); so does
    ``cosine``; ``wsd`` (warm-up, stable, decay; arXiv 2404.06395) from the last `decay_share` of the steps on. The
    warm-up takes a tenth of all steps if not given, at least one.
    """
    warmup = max(1, round(0.1 * steps)) if warmup is None else warmup
    if step < warmup:
        return (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup)
    if schedule == "constant":
        left = 1.0
    elif schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * min(1.0, 1 - left)))
    elif schedule == "wsd":
        left = min(1.0, (steps - step) / max(1.0, decay_share * steps))
    return floor + (1 - floor) * left
