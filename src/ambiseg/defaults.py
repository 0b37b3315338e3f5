"""Numbers that decide what is kept of a prediction, shared by library and command line, without torch."""

SCORE_THRESHOLD = 0.5
"""Proposals with a lower selection score are left out (mode proposals, section 3.1)."""
DUPLICATE_IOU = 0.95
"""Two proposals with a higher IoU count as near-duplicates."""
FOREGROUND_THRESHOLD = 0.5
"""Pixels with a higher probability are foreground (binary labels)."""
LEAST_PROBABILITY = 1e-6
"""Probabilities of proposals are not given below this, so that none vanishes from the set."""
