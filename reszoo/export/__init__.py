"""Artefacts to deploy."""
