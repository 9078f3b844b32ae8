"""A server of maps: HTTP around recognition; imported by nothing that a robot runs."""
