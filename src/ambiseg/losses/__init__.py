"""Losses between sets of masks: of masks, one-to-one matching, optimal transport, the energy score."""
