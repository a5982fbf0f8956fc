"""`datagen haiku`: ask for a haiku about each prompt."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from datagen.engine.method import Method
from datagen.engine.options import option
from datagen.errors import CallFailed
from datagen.llm.model import Roles
from datagen.records.record import Candidate, Record, fail, keep, request_text, row_id


@dataclass(frozen=True)
class Options:
    """Options of `datagen haiku`."""

    season: str = option("any", "The season that the haiku names.", choices=("any", "spring", "autumn"))


class Haiku(Method):
    """Ask for a haiku about each prompt."""

    name = "haiku"
    options_type = Options
    options: Options
    roles = {"teacher": "writes the haiku"}
    templates = ("haiku/write",)
    prompt_folder = Path(__file__).parent / "prompts"

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield one row: the prompt, and the haiku."""
        meta = self.row_meta(record, self.options.season, model=None, finish_reason=None, usage=None)
        request = self.prompts["haiku/write"].render(subject=request_text(record.prompt), season=self.options.season)
        try:
            reply = await llm.chat("teacher", request, sample=record.sample(0), temperature=0.7)
        except CallFailed as error:
            yield fail(error, record=record.row, meta=meta)
            return
        meta |= {"model": reply.model, "finish_reason": reply.finish_reason, "usage": reply.usage}
        name = row_id(self.name, [record.id], record.pass_no, reply.text)
        yield keep({"id": name, "prompt": record.prompt, "response": reply.text, "meta": meta, **record.carried})

    def bound(self, record: Record, llm: Roles) -> int:
        return 1
