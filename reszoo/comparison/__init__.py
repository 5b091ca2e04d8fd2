"""Runs over several seeds, and the comparison of recipes by them."""
