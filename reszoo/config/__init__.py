"""Configuration: the tables of a recipe as checked, immutable models, and the recipe that they form."""
