"""Limits of the service; no heavy import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """What a request may ask for.

    Attributes:
        timeout: seconds in which a body must have arrived, in which it must be answered, and in which the client must
            have taken the answer.
        body_bytes: largest body.
        stored_bytes: all bodies together that are read or decoded at one time.
        pixels: largest height times width of an image.
        samples: most masks that a request may ask of the model.
        queue_size: most images that wait.
        batch_size: most images in one pass.
        connections: most connections at one time; the one that has been idle longest ends for a new one.
        hosts: names in the header ``Host`` that are answered; any if empty.
    """

    timeout: float = 60.0
    body_bytes: int = 32 << 20
    stored_bytes: int = 512 << 20
    pixels: int = 1 << 22
    samples: int = 128
    queue_size: int = 64
    batch_size: int = 16
    connections: int = 400
    hosts: frozenset[str] = frozenset()
