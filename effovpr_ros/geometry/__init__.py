"""Geometric verification of a candidate pair: do matched points agree with one rigid motion, and with which."""
