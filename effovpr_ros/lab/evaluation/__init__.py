"""How good is a setting on a set of images? Ground truth, metrics, and runs of the real pipeline."""
