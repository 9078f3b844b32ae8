"""What `effovpr bench` measures: speed, size and accuracy on this machine, side by side in one run."""
