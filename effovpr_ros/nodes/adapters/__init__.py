"""Thin adapters from this package's messages to SLAM and navigation stacks; each is off by default."""
