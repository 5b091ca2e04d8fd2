"""Checked, immutable tables of configuration, and the one format of their errors."""
