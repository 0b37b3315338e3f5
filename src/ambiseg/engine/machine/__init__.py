"""What a machine computes in and how much memory it has: chosen, measured, remembered."""
