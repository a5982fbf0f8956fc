"""A generator, a verifier and a model for datagen, each in a file of its own."""
