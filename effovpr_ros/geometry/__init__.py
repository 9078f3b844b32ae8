"""Points of pictures: which of two pictures are the same, and where a camera was that sees them."""
