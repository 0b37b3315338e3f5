"""Probabilities of given masks: from the velocity of a flow, from posteriors, from class flips."""
