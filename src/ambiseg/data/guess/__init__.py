"""What a stranger's folder holds: where images and masks lie, whose they are, and what the numbers in them mean."""
