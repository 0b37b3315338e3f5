"""Data sets that are objects in Python: lists, datasets of torch, MONAI, TorchIO and Hugging Face."""
