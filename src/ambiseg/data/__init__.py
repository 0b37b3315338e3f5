"""Files, simulators, label views and batches."""
