"""A simulated building to drive through."""
