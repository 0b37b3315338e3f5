"""Splits: assignment of images to them, re-reading a data set by another one, near-copies across them."""
