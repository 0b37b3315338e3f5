"""What is kept of a prediction unless asked otherwise: numbers that library and command line share, without
torch."""

SCORE_THRESHOLD = 0.5
"""Proposals with a lower selection score are left out (mode proposals, section 3.1)."""
DUPLICATE_IOU = 0.95
"""Two proposals with a higher IoU count as near-duplicates."""
FOREGROUND_THRESHOLD = 0.5
"""Pixels with a higher probability are foreground (binary labels)."""
