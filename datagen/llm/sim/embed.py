"""A vector for a text, without a model: its character n-grams, hashed (Weinberger et al. 2009, arXiv 0902.2206).

Texts with the same letters have near vectors, whatever they mean: "buy a car" and "purchase an automobile" are far
apart. It shows how a command works, and it is no judge of meaning.
"""

from collections.abc import Mapping
from math import nan
from random import Random
from zlib import crc32

import numpy as np

from datagen.llm.call import Call, Reply
from datagen.llm.vectors import Vector, vector_reply
from datagen.text import count_words, tokens

NUMBERS = 256
"""Of a vector."""
SIZES = (3, 4, 5)
"""Characters of an n-gram; a word begins and ends with a space."""


def reply(call: Call, rates: Mapping[str, float]) -> Reply:
    """Return the reply to a call for a vector; the fault `malformed` makes it none that can be used."""
    text = str(call.messages[-1]["content"])
    is_faulty = Random(f"{call.key.hex()}:{call.attempt}").random() < rates.get("malformed", 0.0)
    return vector_reply("sim", [nan] if is_faulty else vector_of(text), count_words(text))


def vector_of(text: str) -> Vector:
    """Return the vector of a text: each n-gram adds 1 to one of its numbers, or takes 1 from it."""
    padded = f" {' '.join(tokens(text))} "
    grams = [padded[place : place + size] for size in SIZES for place in range(len(padded) - size + 1)] or [padded]
    hashes = np.array([crc32(gram.encode(errors="surrogatepass")) for gram in grams], np.int64)
    vector = np.zeros(NUMBERS, np.float32)
    np.add.at(vector, hashes % NUMBERS, np.where(hashes // NUMBERS % 2, 1, -1))
    return vector
