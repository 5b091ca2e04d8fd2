"""Serving of an exported model over HTTP, for trials."""
