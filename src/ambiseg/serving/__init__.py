"""`ambiseg serve`: a run that answers requests over HTTP."""
