"""Distributions of logits and latent variables, and likelihoods by Monte Carlo."""
