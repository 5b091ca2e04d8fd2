"""Serving of an exported model over HTTP, on this machine only."""
