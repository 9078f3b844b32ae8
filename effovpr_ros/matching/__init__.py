"""Mutual nearest neighbours and the scores made of them."""
