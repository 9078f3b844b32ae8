"""Places, their store, their index and the map directory."""
