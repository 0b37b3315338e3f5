"""
First steps
===========

Simulate fires, train for a few steps, look at the masks.
"""

import ambiseg

print(ambiseg.__version__)
