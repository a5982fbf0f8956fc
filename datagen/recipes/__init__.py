"""Recipes: commands written down in a file, with names for the models, the files and the numbers that change."""
