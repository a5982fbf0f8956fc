"""The models of a command that names none: DATAGEN_MODEL, else `default` in the file models.toml, else `sim`."""

import os

from datagen.llm.models_file import read_models_file

VARIABLE = "DATAGEN_MODEL"


def default_models() -> list[str]:
    """Return the names of the default models; empty if the user has set none.

    Raises:
        InputError: models.toml cannot be used.
    """
    if spec := os.environ.get(VARIABLE):
        return [spec]
    return read_models_file().default
