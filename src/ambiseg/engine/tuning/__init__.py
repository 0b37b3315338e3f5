"""Search of settings: which are tried, one trial, the study of all trials."""
