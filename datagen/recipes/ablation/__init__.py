"""`datagen ablate`: a recipe with one switch on and off, on equally many training tokens, over several seeds."""
