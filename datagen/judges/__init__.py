"""The ways to judge of `datagen judge --by NAME`, one file each; judge_method.py is what they share."""
