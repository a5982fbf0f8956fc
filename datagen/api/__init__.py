"""The Python API: the commands as functions (docs/python.md). `datagen` and `datagen.aio` name them."""
