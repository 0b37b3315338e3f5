"""Probability paths between noise and masks, solvers of their differential equations, guidance of samples."""
