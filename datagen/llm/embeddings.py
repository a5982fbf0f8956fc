"""An embedding model on a server: POST /embeddings of an OpenAI-compatible API, one text in a request.

Vectors are asked for as float32 in base64, a quarter of the bytes of decimal numbers in the reply and in the journal;
where a server refuses `encoding_format`, it is left out, and a list of numbers is read as well.
"""

from collections.abc import Mapping
from typing import Any

from datagen.llm.call import Call, Reply
from datagen.llm.endpoint import Endpoint
from datagen.llm.parameters import LENGTHS

FORMAT = {"encoding_format": "base64"}


class EmbeddingEndpoint(Endpoint):
    """The innermost layer of an embedding model on a server. Every call, a probe too, asks for a vector."""

    path = "embeddings"
    answer = "list of embeddings"

    def adapted(self, call: Call) -> Mapping[str, Any]:
        asked_for = {name: value for name, value in call.params.items() if name not in LENGTHS}
        return self.parameters.adapted({**FORMAT, **asked_for}, call.messages)

    def _is_answer(self, reply: Reply) -> bool:
        return reply.is_embedding

    def _look_at(self, reply: Reply, call: Call, sent: Mapping[str, Any]) -> None:
        """Learn nothing: a vector has no length limit and no form."""
