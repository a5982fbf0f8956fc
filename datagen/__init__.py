"""Grow SFT and preference data with a large model; `datagen --help` lists the commands."""

__version__ = "0.1.0"
