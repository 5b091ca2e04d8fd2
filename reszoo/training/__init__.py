"""Recipes, schedules and the training engine."""
