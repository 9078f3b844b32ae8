"""Where frames come from: image folders, bags, trajectories."""
