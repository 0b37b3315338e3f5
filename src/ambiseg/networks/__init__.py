"""U-Net and other blocks; they know nothing of ambiguity."""
