"""Whether a budget of minutes can train the chosen network on this machine, and which narrower one it could train.

Measured on simulated wildfires of 64x64 with mode proposals of width 16: HM IoU* of .900 after 600 updates of 16 images,
.930 after 2092, .972 after 16215. In the suite ``cpu`` 600 updates sufficed for the order of the published methods. So
`UPDATES` of `IMAGES` are the fewest that are worth a training, or as many images in larger batches.

The number of updates is estimated from above: the whole budget, forward and backward pass alone. So what the warning says
is too few is too few.
"""

from __future__ import annotations

import math
from collections.abc import Callable

UPDATES, IMAGES = 600, 16
NARROWEST = 8


def fewest_updates(batch_size: int) -> int:
    """How many updates a training should have.

    Example:
        >>> fewest_updates(8), fewest_updates(64)
        (600, 150)
    """
    return math.ceil(UPDATES * IMAGES / max(IMAGES, batch_size))


def short_budget(
    minutes: float,
    batch_size: int,
    rate: float,
    width: int | None,
    rate_of: Callable[[int], float],
) -> str:
    """What is wrong with a budget and what would suit it, in one sentence; empty where it suffices.

    Args:
        minutes: the budget.
        batch_size: images of an update.
        rate: images per second of the chosen network.
        width: of the network, None where another one has no meaning.
        rate_of: measures the images per second of a narrower network.

    Example:
        >>> said = short_budget(5, 16, 18, 32, {16: 36}.__getitem__)
        >>> said.partition(": ")[0]
        '5 minutes are time for at most 337 updates of 16 images (18 images/s here), and fewer than 600 seldom train a network'
        >>> said.partition(": ")[2]
        '--set backbone.width=16 is time for about 675, or give --minutes 9'
    """
    least = fewest_updates(batch_size)
    updates = _updates(minutes, batch_size, rate)
    if updates >= least:
        return ""
    longer = f"give --minutes {math.ceil(least * batch_size / (60 * rate))}"
    narrower = 0 if width is None else width // 2
    remedy = longer
    while narrower >= NARROWEST:
        found = _updates(minutes, batch_size, rate_of(narrower))
        if found >= least:
            remedy = f"--set backbone.width={narrower} is time for about {found}, or {longer}"
            break
        narrower //= 2
    return (
        f"{minutes:g} minute{'s are' if minutes != 1 else ' is'} time for at most {updates} updates of {batch_size} images"
        f" ({rate:.3g} images/s here), and fewer than {least} seldom train a network: {remedy}"
    )


def _updates(minutes: float, batch_size: int, rate: float) -> int:
    return int(60 * minutes * rate / batch_size)
