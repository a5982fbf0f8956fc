"""The strategies of `datagen respond --strategy NAME`, one file each; strategy.py is what they share."""
