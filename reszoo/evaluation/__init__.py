"""Exact scores, predictions and pictures of both."""
