"""Recipes, schedules, and training step by step."""
