"""Reading and writing image and mask files, and what a valid one is."""
