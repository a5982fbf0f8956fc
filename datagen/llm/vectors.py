"""Vectors of texts: what an embedding model answers, in the form of the embeddings API, as numpy reads it.

A reply holds one vector, since a call holds one text: so its tokens are known, a refusal meets that text alone, and
neither the journal nor the account of a run depends on which texts were on their way together.
"""

import json
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from datagen.llm.call import EMBEDDING, BadAnswer, Reply, error_message
from datagen.records.record import canonical

MOST_NUMBERS = 65_536
"""Of a vector: sixteen times those of the longest that a public model gives."""
NO_VECTOR = "no vector"
"""The reason of a failed row whose vector cannot be used."""
Vector = npt.NDArray[np.float32]


def read_vector(reply: Reply) -> Vector:
    """Return the vector of a reply, of length 1.

    Args:
        reply: A refusal, or a body with the shape of a list of embeddings.

    Raises:
        BadAnswer: The text was refused, or the vector holds something else than finite numbers, or only zeros.
    """
    if reply.status >= 400:
        raise BadAnswer(f"refused (HTTP {reply.status})", error_message(reply.body), final=True)
    vectors = reply.parsed["data"] if reply.is_embedding else []
    if len(vectors) != 1 or vectors[0].get("index", 0) != 0:
        raise BadAnswer(NO_VECTOR, f"{len(vectors)} vectors came for one text, or that of another")
    numbers = numbers_of(vectors[0]["embedding"])
    if not numbers.size:
        raise BadAnswer(NO_VECTOR, "it is no list of numbers, nor float32 in base64")
    if not np.isfinite(numbers).all():
        raise BadAnswer(NO_VECTOR, f"a number is not finite, the first at place {int(np.isfinite(numbers).argmin())}")
    largest = np.abs(numbers).max()
    if not largest:
        raise BadAnswer(NO_VECTOR, "all of its numbers are 0, so it has no direction")
    numbers = numbers / largest  # so that no square is too large or too small
    unit: Vector = (numbers / np.sqrt(numbers @ numbers)).astype(np.float32)
    return unit


def numbers_of(value: object) -> npt.NDArray[np.float64]:
    """Return the numbers of a vector, a list or float32 in base64; none if it is something else, or too long."""
    none = np.zeros(0)
    if isinstance(value, str):
        try:
            data = b64decode(value, validate=True)
        except (BadBase64, ValueError):
            return none
        return none if len(data) % 4 or len(data) > 4 * MOST_NUMBERS else np.frombuffer(data, "<f4").astype(np.float64)
    if not isinstance(value, list) or len(value) > MOST_NUMBERS or not all(map(is_number, value)):
        return none
    try:
        return np.array(value, np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        return none


def is_number(value: object) -> bool:
    """Check that a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def vector_reply(name: str, numbers: Sequence[float] | Vector, tokens: int) -> Reply:
    """Return the reply of a model that runs here.

    Args:
        name: Of the model.
        numbers: The vector, of any length.
        tokens: Of the text.
    """
    data = b64encode(np.asarray(numbers, "<f4").tobytes()).decode()
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": [{"index": 0, "embedding": data}], "model": name, "usage": usage}
    return Reply(200, json.dumps(body))


def vector_key(model: str, text: str, params: Mapping[str, Any], version: int) -> bytes:
    """Return the digest of everything that decides the vector of a text: 32 bytes, never those of a chat request."""
    return sha256(canonical([version, EMBEDDING, model, text, params])).digest()
