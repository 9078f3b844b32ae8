"""Loop closure: keyframes of a drive in a map that grows, and the loops among them."""
