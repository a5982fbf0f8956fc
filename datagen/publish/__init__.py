"""Data sets and models for the hub: made ready with their cards (`datagen pack`), and uploaded (`datagen push`)."""
