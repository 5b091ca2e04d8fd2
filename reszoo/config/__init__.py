"""Recipes: their tables as checked, immutable models."""
