"""The chat templates of 45 model families, as TRL ships them: every turn is trained whole, or the row is dropped."""

import re
from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from datagen.llm.local.chat_template import TemplateRefusal
from datagen.records.record import Messages, Row
from datagen_train.data.encode import IGNORED, Encoded, Encoder
from datagen_train.errors import UnusableRow
from datagen_train.models.tiny import make_tokenizer
from datagen_train.models.tokens import TokenSequence, call_closer, turn_closer

FOLDER = Path(trl.__file__).parent / "chat_templates"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
TOKEN = re.compile(
    r"<\|[^<>\s]{1,40}?\|?>|<｜[^<>\s]{1,40}?｜>|<[^<>\s|]{1,40}\|>|<(?:start|end)_of_turn>|<end_of_utterance>"
)
"""Special tokens in the text of a template."""
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"town": "Bonn"}}}
OTHER = {"id": "call23456", "type": "function", "function": {"name": "weather", "arguments": {"town": "Rome"}}}
RESULT = {"role": "tool", "name": "weather", "content": "3"}
TALK: Messages = [
    {"role": "user", "content": "Warm?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "No."},
]
THOUGHTS: Messages = [
    message | ({"reasoning_content": f"Thought {i}."} if message["role"] == "assistant" else {})
    for i, message in enumerate(TALK)
]
SYSTEM: Messages = [{"role": "system", "content": "Be brief."}, *TALK]
CALLS: Messages = [
    TALK[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL, OTHER]},
    RESULT | {"tool_call_id": CALL["id"]},
    RESULT | {"tool_call_id": OTHER["id"]},
    TALK[3],
]
ONE_CALL = [CALLS[0], CALLS[1] | {"tool_calls": [CALL]}, CALLS[2], CALLS[4]]
TOOLS: list[Row] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string", "description": "A town."}}},
        },
    }
]
PARTS_ONLY = ("idefics3", "llava_next", "smolvlm")
"""Templates that read the parts of a message of text and images, and no text."""
QUICK = ("gemma4", "glm4moe", "gptoss", "lfm2_v2")
"""Families that are tested each time: each has a rule of its own for what ends a turn."""
EXPLAINED = (
    "the chat template leaves out messages of the role ",
    "the chat template has no tool",
    "the chat template of the model refuses the messages: System role not supported",
    "the chat template shows only the first of several tool calls in a turn",
    "the chat template of the model refuses the messages: This model only supports single tool-calls at once!",
)
"""How the reasons begin for which a row may be dropped."""


def family_encoder(name: str) -> Encoder:
    text = (FOLDER / f"{name}.jinja").read_text()
    tokenizer: PreTrainedTokenizerFast = make_tokenizer([str([TALK, CALLS, TOOLS])], 384)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted({*TOKEN.findall(text), "[BOS]", "[EOS]"})})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "[BOS]", "[EOS]", text
    tokenizer.model_max_length = 100_000
    closers = {turn_closer(tokenizer), call_closer(tokenizer)} - {None}
    return Encoder(tokenizer, {int(str(tokenizer.eos_token_id)), *(c for c in closers if c is not None)}, 100_000)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in FAMILIES
        if name not in PARTS_ONLY
    ],
)
def test_each_turn_of_a_conversation_is_trained_up_to_its_end(family: str) -> None:
    encoder = family_encoder(family)
    for messages, tools in ((TALK, []), (THOUGHTS, []), (SYSTEM, []), (CALLS, TOOLS), (ONE_CALL, TOOLS)):
        sequences = encoded_or_explained(encoder, messages, tools)
        turns = [turn for sequence in sequences for turn in trained_turns(encoder, sequence.ids, sequence.labels)]
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        assert len(turns) == len(answers) or not sequences
        for (prompt, answer), number in zip(turns, answers, strict=False):
            assert prompt == encoder.template.prompt(messages[:number], tools)
            towns = [call["function"]["arguments"]["town"] for call in messages[number].get("tool_calls") or []]
            if towns and encoder.template.call_form:
                rest = encoder.template.exchange(messages[: number + 1], tools).answer.removeprefix(
                    answer.removesuffix("[EOS]")
                )
                assert not rest.strip(), "the turn goes on behind its end token"
            assert all(text in answer for text in [messages[number]["content"], *towns])


def encoded_or_explained(encoder: Encoder, messages: Messages, tools: list[Row]) -> list[Encoded]:
    """Return the sequences of a conversation; none where the row is dropped for a reason that explains it."""
    try:
        return encoder.turns(messages, tools, all_turns=True)
    except UnusableRow as dropped:
        if messages not in (SYSTEM, CALLS, ONE_CALL) or not str(dropped).startswith(EXPLAINED):
            raise
        return []


def trained_turns(encoder: Encoder, ids: TokenSequence, labels: TokenSequence) -> list[tuple[str, str]]:
    """Return each trained turn of a sequence with all that stands before it; each must end in an end token."""
    turns = []
    for i, token in enumerate(ids):
        if labels[i] != IGNORED and token in encoder.ends:
            start = next(j for j in range(i, -1, -1) if j == 0 or labels[j - 1] == IGNORED)
            turns.append((encoder.tokenizer.decode(ids[:start]), encoder.tokenizer.decode(ids[start : i + 1])))
    assert labels[-1] in encoder.ends
    return turns


@pytest.mark.parametrize("family", PARTS_ONLY)
def test_a_template_that_reads_no_text_drops_the_row(family: str) -> None:
    with pytest.raises((UnusableRow, TemplateRefusal), match=r"leaves out messages of the role|refuses the messages"):
        family_encoder(family).turns(TALK)
