"""Maps built and served on a Ray cluster; nothing that a robot runs imports it."""
