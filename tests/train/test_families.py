"""What is trained for models of well-known families: exactly what the model has to generate after its prompt."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from datagen.llm.local.chat_template import render_chat
from datagen.llm.local.generation import split_answer
from datagen.records.record import Message, Messages, Record, Row
from datagen_train.data.encode import IGNORED, Encoded, Encoder, conversation, encode_row
from datagen_train.errors import UnusableRow
from datagen_train.models.reward_model import close_answers, end_token
from datagen_train.models.template import set_defaults
from datagen_train.models.tokens import call_closer
from tests.train.families import FAMILIES

TOOLS: list[Row] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a town.",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
    }
]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str | None, thought: str = "", **fields: Any) -> Message:
    return {"role": "assistant", "content": text, **({"reasoning_content": thought} if thought else {}), **fields}


def call(arguments: object, name: str = "weather") -> list[Row]:
    return [{"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}}]


RESULT: Message = {"role": "tool", "tool_call_id": "call12345", "content": '{"celsius": 3}'}
SYSTEM: Message = {"role": "system", "content": "Be brief."}
PLAIN = [user("How much?"), answer("It is 2.")]
THOUGHTFUL = [user("How much?"), answer("It is 2.", "I add 1 and 1.")]
TALK = [user("One?"), answer("First.", "Thought one."), user("Two?"), answer("Second.", "Thought two.")]
TOOL_TALK = [user("Warm?"), answer(None, tool_calls=call('{"town": "Bonn"}')), RESULT, answer("3 degrees.")]
TEXTS = [str([PLAIN, THOUGHTFUL, TALK, TOOL_TALK, TOOLS])]

NO_SYSTEM = "the chat template of the model refuses the messages: System role not supported"
NO_CALLS = "the chat template has no tool calls"
EMPTY = "<think>\n\n</think>\n\n"
FINAL = "<|channel|>final<|message|>"
GENERATED: dict[str, dict[str, list[str] | str]] = {
    "Qwen3": {
        "plain": [f"{EMPTY}It is 2.<|im_end|>"],
        "system": [f"{EMPTY}It is 2.<|im_end|>"],
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\nIt is 2.<|im_end|>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\nFirst.<|im_end|>",
            "<think>\nThought two.\n</think>\n\nSecond.<|im_end|>",
        ],
        "tools": [
            EMPTY + '<tool_call>\n{"name": "weather", "arguments": {"town": "Bonn"}}\n</tool_call><|im_end|>',
            f"{EMPTY}3 degrees.<|im_end|>",
        ],
    },
    "Llama 3": {
        "plain": ["It is 2.<|eot_id|>"],
        "system": ["It is 2.<|eot_id|>"],
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\nIt is 2.<|eot_id|>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\nFirst.<|eot_id|>",
            "<think>\nThought two.\n</think>\n\nSecond.<|eot_id|>",
        ],
        "tools": ['{"name": "weather", "parameters": {"town": "Bonn"}}<|eot_id|>3 degrees.<|eot_id|>'],
    },
    "Gemma": {
        "plain": ["It is 2.<end_of_turn>"],
        "system": NO_SYSTEM,
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\nIt is 2.<end_of_turn>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\nFirst.<end_of_turn>",
            "<think>\nThought two.\n</think>\n\nSecond.<end_of_turn>",
        ],
        "tools": NO_CALLS,
    },
    "Mistral": {
        "plain": [" It is 2.</s>"],
        "system": [" It is 2.</s>"],
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\n It is 2.</s>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\n First.</s>",
            "<think>\nThought two.\n</think>\n\n Second.</s>",
        ],
        "tools": ['[TOOL_CALLS] [{"name": "weather", "arguments": {"town": "Bonn"}}]</s> 3 degrees.</s>'],
    },
    "Phi": {
        "plain": ["It is 2.<|end|>"],
        "system": ["It is 2.<|end|>"],
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\nIt is 2.<|end|>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\nFirst.<|end|>",
            "<think>\nThought two.\n</think>\n\nSecond.<|end|>",
        ],
        "tools": NO_CALLS,
    },
    "GPT-OSS": {
        "plain": [f"{FINAL}It is 2.<|return|>"],
        "system": [f"{FINAL}It is 2.<|return|>"],
        "thought": [
            f"<|channel|>analysis<|message|>I add 1 and 1.<|end|><|start|>assistant{FINAL}It is 2.<|return|>",
        ],
        "talk": [
            f"<|channel|>analysis<|message|>Thought one.<|end|><|start|>assistant{FINAL}First.<|return|>",
            f"<|channel|>analysis<|message|>Thought two.<|end|><|start|>assistant{FINAL}Second.<|return|>",
        ],
        "tools": [
            ' to=functions.weather<|channel|>commentary json<|message|>{"town": "Bonn"}<|call|>'
            f"{FINAL}3 degrees.<|return|>",
        ],
    },
    "DeepSeek-R1 distill": {
        "plain": ["\n</think>\n\nIt is 2.<｜end▁of▁sentence｜>"],
        "system": ["\n</think>\n\nIt is 2.<｜end▁of▁sentence｜>"],
        "thought": ["I add 1 and 1.\n</think>\n\nIt is 2.<｜end▁of▁sentence｜>"],
        "talk": [
            "Thought one.\n</think>\n\nFirst.<｜end▁of▁sentence｜>",
            "Thought two.\n</think>\n\nSecond.<｜end▁of▁sentence｜>",
        ],
        "tools": "the chat template has no tools",
    },
    "SmolLM3": {
        "plain": ["It is 2.<|im_end|>"],
        "system": ["It is 2.<|im_end|>"],
        "thought": ["<think>\nI add 1 and 1.\n</think>\n\nIt is 2.<|im_end|>"],
        "talk": [
            "<think>\nThought one.\n</think>\n\nFirst.<|im_end|>",
            "<think>\nThought two.\n</think>\n\nSecond.<|im_end|>",
        ],
        "tools": [
            '<tool_call>{"name": "weather", "arguments": {"town": "Bonn"}}</tool_call><|im_end|>3 degrees.<|im_end|>'
        ],
    },
}
CONVERSATIONS: dict[str, tuple[Messages, list[Row]]] = {
    "plain": (PLAIN, []),
    "system": ([SYSTEM, *PLAIN], []),
    "thought": (THOUGHTFUL, []),
    "talk": (TALK, []),
    "tools": (TOOL_TALK, TOOLS),
}


def encoder(family: str, reasoning: str = "train", values: dict[str, Any] | None = None) -> Encoder:
    tokenizer = FAMILIES[family].tokenizer(TEXTS)
    set_defaults(tokenizer, values or {})
    ends = {tokenizer.convert_tokens_to_ids(token) for token in FAMILIES[family].ends}
    return Encoder(tokenizer, ends, 4096, reasoning)


def trained_text(tokenizer: Any, sequence: Encoded) -> str:
    return str(tokenizer.decode([label for label in sequence.labels if label != IGNORED]))


@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_the_model_has_to_generate(family: str, kind: str) -> None:
    maker, expected = encoder(family), GENERATED[family][kind]
    messages, tools = CONVERSATIONS[kind]
    if isinstance(expected, str):
        with pytest.raises(UnusableRow, match=f"^{expected}"):
            maker.turns(messages, tools, all_turns=True)
        assert not maker.contents
        return
    sequences = maker.turns(messages, tools, all_turns=True)
    assert [trained_text(maker.tokenizer, sequence) for sequence in sequences] == expected
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    for sequence, number in zip(sequences, answers, strict=False):
        assert sequence.ids[: sequence.prompt_length] == maker.prompt(messages[:number], tools)
        assert sequence.labels[-1] in maker.ends
        assert all(label in (IGNORED, token) for label, token in zip(sequence.labels, sequence.ids, strict=True))
    split = len(sequences) if len(sequences) > 1 else 0
    assert (maker.contents["split"], maker.contents["split_into"]) == (bool(split), split)
    assert (maker.contents["tools"], maker.contents["reasoning"]) == (kind == "tools", kind in ("thought", "talk"))


@pytest.mark.parametrize("thought", ["", "I add 1 and 1."])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_model_generates_is_split_into_what_was_trained(family: str, thought: str) -> None:
    maker = encoder(family)
    sequence = maker.answer([user("How much?"), answer("It is 2.", thought)])
    start = sequence.prompt_length
    reasoning, text = split_answer(maker.tokenizer, list(sequence.ids[:start]), list(sequence.ids[start:]))
    assert (reasoning, text.lstrip()) == (thought, "It is 2.")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_cut_while_it_thinks_has_no_answer_yet(family: str) -> None:
    maker = encoder(family)
    sequence = maker.answer([user("How much?"), answer("It is 2.", "I add 1 and 1.")])
    start = sequence.prompt_length
    whole = maker.tokenizer.decode(sequence.ids[start:])
    ids = maker.ids(whole[: whole.index("and 1.")])
    assert split_answer(maker.tokenizer, list(sequence.ids[:start]), ids) == ("I add 1", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_reasoning_that_is_dropped_trains_as_a_row_without_it(family: str) -> None:
    maker = encoder(family, "drop")
    assert maker.turns(THOUGHTFUL) == encoder(family).turns(PLAIN)
    assert maker.contents == {"reasoning_left_out": 1}


def test_thinking_that_the_template_turns_off_is_no_part_of_the_answer() -> None:
    """The prompt holds the empty block then, and what is trained follows it."""
    for family in ("Qwen3", "SmolLM3"):
        maker = encoder(family, values={"enable_thinking": False})
        (sequence,) = maker.turns(THOUGHTFUL)
        assert trained_text(maker.tokenizer, sequence) == "It is 2.<|im_end|>"
        assert maker.tokenizer.decode(sequence.ids[: sequence.prompt_length]).endswith(EMPTY)
        assert maker.contents == {"reasoning_left_out": 1}


def test_values_of_a_template_are_saved_with_it_and_can_be_changed(tmp_path: Any) -> None:
    maker = encoder("Qwen3", values={"enable_thinking": False, "note": 'a "b" {% c', "nothing": None})
    maker.tokenizer.save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ask: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template(PLAIN[:1], **ask).endswith(EMPTY)
    assert not tokenizer.apply_chat_template(PLAIN[:1], enable_thinking=True, **ask).endswith(EMPTY)
    set_defaults(tokenizer, {"enable_thinking": True})
    assert not tokenizer.apply_chat_template(PLAIN[:1], **ask).endswith(EMPTY)


@pytest.mark.parametrize("family", FAMILIES)
def test_reasoning_in_the_text_of_an_answer_is_reasoning(family: str) -> None:
    written = [user("How much?"), answer("<think>I add 1 and 1.</think>It is 2.")]
    assert encoder(family).turns(written) == encoder(family).turns(THOUGHTFUL)


@pytest.mark.parametrize("family", ["Qwen3", "Llama 3", "GPT-OSS"])
@pytest.mark.parametrize("arguments", ['{"town": "Bonn"}', {"town": "Bonn"}])
def test_arguments_of_a_call_may_be_text_or_a_mapping(family: str, arguments: object) -> None:
    messages = [user("Warm?"), answer("", tool_calls=call(arguments))]
    assert encoder(family).turns(messages) == encoder(family).turns(TOOL_TALK[:2])


def test_a_template_that_leaves_out_messages_of_a_role_refuses_them() -> None:
    with pytest.raises(UnusableRow, match="the chat template leaves out messages of the role developer"):
        encoder("Phi").turns([{"role": "developer", "content": "Be brief."}, *PLAIN])


def test_two_users_in_turn_are_refused_in_the_words_of_the_template() -> None:
    with pytest.raises(UnusableRow, match="Conversation roles must alternate"):
        encoder("Gemma").turns([user("Hello"), *PLAIN])
    with pytest.raises(UnusableRow, match="Conversation roles must alternate"):
        encoder("Gemma").prompt([user("Hello"), user("How much?")])


@pytest.mark.parametrize("family", FAMILIES)
def test_both_answers_of_a_preference_have_their_reasoning_or_neither(family: str) -> None:
    maker = encoder(family)
    both = maker.preference("How much?", "It is 2.", "It is 3.", thoughts=("I add 1 and 1.", "I add 1 and 2."))
    assert list(both.sequences()[0].ids) == list(maker.answer(THOUGHTFUL).ids)
    one = maker.preference("How much?", "It is 2.", "It is 3.", thoughts=("I add 1 and 1.", None))
    assert list(one.sequences()[0].ids) == list(maker.answer(PLAIN).ids)
    assert maker.contents == {"reasoning": 1, "reasoning_left_out": 1}


def test_the_token_behind_a_call_ends_an_answer() -> None:
    closers = {"Qwen3": "<|im_end|>", "GPT-OSS": "<|call|>", "Mistral": "</s>", "Llama 3": "<|eot_id|>", "Gemma": None}
    for family, closer in closers.items():
        tokenizer = FAMILIES[family].tokenizer(TEXTS)
        assert call_closer(tokenizer) == (closer and tokenizer.convert_tokens_to_ids(closer))


def test_turns_of_weight_0_are_read_and_not_learned() -> None:
    maker = encoder("Llama 3")
    messages = [user("Town?"), answer("Wrongville", weight=0), user("Really?"), answer("No: Bonn.", weight=1)]
    (sequence,) = maker.turns(messages, all_turns=True)
    assert trained_text(maker.tokenizer, sequence) == "No: Bonn.<|eot_id|>"
    assert "Wrongville" in maker.tokenizer.decode(sequence.ids)
    assert maker.contents == {"weight_0": 1}
    with pytest.raises(UnusableRow, match=r"nothing to train on \(weight 0\)"):
        maker.turns(messages[:2], all_turns=True)


def test_a_bad_answer_is_never_learned() -> None:
    row = Record("0" * 16, "Name a river.", "The Alps.", label=False)
    with pytest.raises(UnusableRow, match="label false"):
        conversation(row)
    with pytest.raises(UnusableRow, match="label false"):
        encode_row(encoder("Llama 3"), row)


def test_by_default_the_calls_that_led_to_the_last_answer_are_trained_and_no_earlier_turn() -> None:
    maker = encoder("Llama 3")
    (sequence,) = maker.turns([user("One?"), answer("First."), *TOOL_TALK], TOOLS)
    assert [trained_text(maker.tokenizer, sequence)] == GENERATED["Llama 3"]["tools"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_for_scores_ends_an_answer_in_its_end_token_and_asks_as_before(name: str) -> None:
    tokenizer, plain = (FAMILIES[name].tokenizer(TEXTS) for _ in range(2))
    end = tokenizer.decode([end_token(tokenizer)])
    close_answers(tokenizer)
    template = tokenizer.chat_template
    close_answers(tokenizer)
    assert tokenizer.chat_template == template, "once is enough"
    for talk in (PLAIN, TALK):
        assert render_chat(tokenizer, talk[:-1], ask=True) == render_chat(plain, talk[:-1], ask=True)
        before, after = render_chat(plain, talk), render_chat(tokenizer, talk)
        assert after.endswith(f"{talk[-1]['content']}{end}")
        assert before.startswith(after) or after == before + end
    assert render_chat(tokenizer, talk[:-1]) == render_chat(plain, talk[:-1]), "nothing is answered yet"
