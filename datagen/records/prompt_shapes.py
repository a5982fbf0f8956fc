"""The shapes of prompts and documents: how one row is laid out.

    prompt          {"prompt"} or {"prompt", "response"}; the prompt a string or a list of messages (our own rows)
    completion      {"prompt", "completion"}: each a string or a list of messages, the completion one of the assistant's
    chosen          {"prompt", "chosen"}: the chosen answer of a preference; by --format alone
    messages        {"messages": [{"role", "content"}]}; a last assistant turn is the response
    sharegpt        {"conversations": [{"from", "value"}]}, with "system"; a last assistant turn is the response
    dialogue        {"conversation": [...]}, or "data": turns, or texts of two people who take turns
    alpaca          {"instruction", "input", "output"}, with "system" and "history" as [[user, assistant], ...]
    question        {"question", "answer"}, with "context", "system" and "history"
    input           {"input", "target"}
    self-instruct   {"instruction", "instances": [{"input", "output"}]}: one record per instance
    choice          {"question", "choices", "answer"}: a question with its options
    distractors     {"question", "correct_answer", "distractor1", ...}
    tree            {"message_tree_id", "prompt": {"text", "replies"}} (OpenAssistant): the best thread of a tree
    document        {"text"}
    text            one prompt, or one document, per line

The names are those of a typical file; columns.py has their synonyms. The shapes of preferences stand in preferences.py,
those of ranked answers and samples in ranked.py.

`prompt` and `messages` take turns in any order, elsewhere a conversation is read strictly (messages.py).
"""

from collections.abc import Sequence

from datagen.records.columns import Fields
from datagen.records.messages import ASSISTANT, USER, as_prompt, read_turn
from datagen.records.record import Message
from datagen.records.shapes import (
    BEFORE,
    Content,
    Roles,
    Shape,
    answer_message,
    conversation_field,
    join_input,
    request,
    single,
    with_system,
)
from datagen.records.trees import best_thread

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_single(fields: Fields, *, strict: bool = False) -> list[Content]:
    """Read a row whose request and response stand in columns of their own."""
    prompt = request(fields, strict=strict)
    return single(fields, prompt, answer_of(fields, "completion" if strict else "response"))


def answer_of(fields: Fields, role: str) -> Message | None:
    """Read the answer of a row: text, messages, calls of tools; None if there is none."""
    if role not in fields and "spans" in fields:
        return answer_of_spans(fields)
    name = fields.name(role)
    value = fields.row.get(name)
    holds_messages = isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    if role == "completion" or holds_messages:
        return answer_message(fields, role)
    if value is not None and not isinstance(value, str) and name not in ("response", "output"):
        return None  # a number, or a list of answers: no response, but perhaps a reference
    # An "answer" beside "prompt" stays a column too: it is the reference answer as well.
    text = value or "" if name == "answer" and "prompt" in fields else fields.text(role)
    has_calls = "tool_calls" in fields and bool(fields.row["tool_calls"])
    return {"role": ASSISTANT, "content": text} if text or has_calls else None


def answer_of_spans(fields: Fields) -> Message | None:
    """Read "answers" as {"text": [...]}, passages of a context (SQuAD), or as the JSON text of calls (xLAM)."""
    value, name = fields.value("spans"), fields.name("spans")
    if isinstance(value, str):
        return read_turn({"role": ASSISTANT, "tool_calls": value}, 1, name)
    text = first_text(fields, "spans", value.get("text"))
    unread = sorted(key for key in value if key != "text" and value[key] not in (None, [], ""))
    fields.notes += [f'"{key}" in "{name}", which is left out' for key in unread]
    return {"role": ASSISTANT, "content": text} if isinstance(text, str) and text.strip() else None


def read_chosen(fields: Fields) -> list[Content]:
    prompt = request(fields, strict=True)
    before = prompt if isinstance(prompt, list) else [{"role": USER, "content": prompt}]
    return single(fields, prompt, answer_message(fields, "chosen", before))


def read_conversation(fields: Fields, role: str) -> list[Content]:
    """Read a whole conversation; a last turn of the assistant is the response."""
    messages = with_system(fields, conversation_field(fields, role, strict=role != "messages"))
    answer = messages[-1] if messages and messages[-1]["role"] == ASSISTANT else None
    prompt = as_prompt(messages[:-1] if answer else messages, ends_in_tool=True)
    return single(fields, prompt, answer)


def first_text(fields: Fields, role: str, value: object) -> object:
    """Return the first of a list of texts, and note the others; anything else as it is."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        return value
    fields.notes += [f'several texts in "{fields.name(role)}", of which the first is used'] * (len(value) > 1)
    return value[0]


def read_instances(fields: Fields) -> list[Content]:
    """Read a task with its instances, as Self-Instruct and Natural Instructions have them."""
    instances = fields.value("instances")
    if not isinstance(instances, list) or not instances or not all(isinstance(item, dict) for item in instances):
        raise ValueError('"instances" is not a list of {input, output}')
    instruction = first_text(fields, "definition", fields.value("definition"))
    contents: list[Content] = []
    for instance in instances:
        output = first_text(fields, "instances", instance.get("output"))
        task = Fields({**instance, "instruction": instruction, "output": output}, (*ALPACA.roles,))
        contents += read_single(task)
        unread = sorted(task.row.keys() - task.read - {"id"})
        fields.notes += [f'"{name}" in "{fields.name("instances")}", which is left out' for name in unread]
    return contents


def choice_text(fields: Fields, options: Sequence[str], right: int) -> list[Content]:
    """Return a question with its options, one a line, and the right one as the response; its letter is the reference
    answer."""
    if not 0 <= right < len(options) <= len(LETTERS):
        raise ValueError(f'"{fields.name("answer_key")}" names none of the {len(options)} options')
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    question = "\n".join([fields.text("question", required=True), *lines])
    fields.passed_on["answer"] = LETTERS[right]
    context = fields.text("context")
    return [Content((join_input(context, question) if context.strip() else question, lines[right]), {})]


def read_choice(fields: Fields) -> list[Content]:
    """Read options as a list, as {"text", "label"} of lists, or by their letters; and the right one by its letter,
    place or text."""
    options, key, name = fields.value("choices"), fields.value("answer_key"), fields.name("choices")
    labels: Sequence[object] = LETTERS
    if isinstance(options, dict):
        columns = ("text", "label") if "text" in options else ("", "")
        labels, options = options.get(columns[1], list(options)), options.get(columns[0], list(options.values()))
    elif options and all(isinstance(option, dict) for option in options):
        labels, options = [o.get("label") for o in options], [o.get("text") for o in options]
    if not isinstance(options, list) or not isinstance(labels, Sequence):
        raise ValueError(f'"{name}" is not a list of options')
    texts = [str(option) for option in options if isinstance(option, str | int | float)]
    if len(texts) != len(options) or len(labels) < len(texts):
        raise ValueError(f'"{name}" is not a list of options')
    places = [*labels[: len(texts)]]
    right = places.index(key) if key in places else texts.index(key) if key in texts else key
    return choice_text(fields, texts, right if isinstance(right, int) and not isinstance(right, bool) else -1)


def read_distractors(fields: Fields) -> list[Content]:
    """Read a question with its right answer and the wrong ones; the options stand in the order of the alphabet."""
    right = fields.text("correct_answer", required=True)
    options = sorted([right, *(fields.text(role) for role in ("distractor1", "distractor2", "distractor3"))])
    return choice_text(fields, [option for option in options if option], [o for o in options if o].index(right))


def read_tree(fields: Fields) -> list[Content]:
    messages, unused = best_thread(fields.value("tree"))
    if unused:
        fields.notes.append('other replies than the best thread in "prompt", which are not read as prompts')
    fields.value("message_tree_id")
    answer = messages.pop() if messages and messages[-1]["role"] == ASSISTANT else None
    return single(fields, as_prompt(messages), answer)


def read_document(fields: Fields) -> list[Content]:
    return [Content((fields.text("text", required=True),), {})]


RESPONSE: Roles = ("response", "reasoning", "label", "weight", "tools")
SAID_AGAIN: Roles = ("prompt", "instruction", "question", "response")
ALPACA = Shape(read_single, ("instruction",), ("input", "context", "question", *BEFORE, *RESPONSE), unless=("outputs",))
OURS = {"prompt": Shape(read_single, ("prompt",), ("response", "reasoning", "label", "weight", "tool_calls", "tools"))}
"""Rows that commands of ours write."""
PROMPT_SHAPES = {
    "messages": Shape(
        lambda fields: read_conversation(fields, "messages"), ("messages",), ("system", "tools", "label"),
        repeats=SAID_AGAIN,
    ),
    "sharegpt": Shape(
        lambda fields: read_conversation(fields, "conversations"), ("conversations",), ("system", "tools", "label"),
        repeats=SAID_AGAIN,
    ),
    "dialogue": Shape(
        lambda fields: read_conversation(fields, "conversation"), ("conversation",), ("system", "tools", "label"),
        repeats=SAID_AGAIN,
    ),
    "completion": Shape(
        lambda fields: read_single(fields, strict=True), ("prompt", "completion"),
        ("system", "reasoning", "label", "weight", "tools"), unless=("own_response",),
    ),
    "prompt": Shape(read_single, ("prompt",), ("input", "context", *BEFORE, *RESPONSE)),
    "self-instruct": Shape(read_instances, ("instances",), ("definition",)),
    "choice": Shape(read_choice, ("question", "choices", "answer_key"), ("context",)),
    "distractors": Shape(
        read_distractors, ("question", "correct_answer", "distractor1"), ("distractor2", "distractor3", "context")
    ),
    "alpaca": ALPACA,
    "question": Shape(read_single, ("question",), ("input", "context", "spans", *BEFORE, *RESPONSE)),
    "input": Shape(read_single, ("input", "response"), ("context", *BEFORE, *RESPONSE)),
    "tree": Shape(read_tree, ("tree", "message_tree_id")),
    "chosen": Shape(read_chosen, ("prompt", "chosen"), ("system", "tools"), detected=False),
    "text": Shape(read_single, ("prompt",), detected=False),
}  # fmt: skip
OUR_DOCUMENTS = {"document": Shape(read_document, ("text",))}
DOCUMENT_SHAPES = {
    **OUR_DOCUMENTS,
    "text": Shape(read_document, ("text",), detected=False),
}
