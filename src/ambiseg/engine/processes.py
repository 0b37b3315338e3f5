"""Which process of a training this one is."""

from __future__ import annotations

import os


def is_child() -> bool:
    """Whether this process was launched by another one of the same run."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("NODE_RANK", "0")) > 0
