"""Ways to answer a prompt, one file each: `datagen respond --strategy NAME` (generators/respond.py)."""
