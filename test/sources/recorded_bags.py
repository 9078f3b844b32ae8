"""Bags as people record them."""
