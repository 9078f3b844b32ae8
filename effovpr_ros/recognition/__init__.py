"""From an image to a decision about the place."""
