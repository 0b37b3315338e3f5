"""Data sets whose distribution of masks is known, made from a seed."""
