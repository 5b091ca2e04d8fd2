"""Searches over depth, shortcuts and any other key of a recipe, with KerasTuner."""
