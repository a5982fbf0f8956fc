"""`--template`: chat templates by name, for a base model that has none, or in place of its own; or of a file.

They stand in the folder templates. A template is used only where the vocabulary has its special tokens, each as one
token: others would be read as text, and an answer would have no end. The vocabulary never grows for one, since a new
token means nothing to a trained model.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from datagen.errors import InputError
from datagen.llm.local.chat_template import TemplateRefusal, render_chat
from datagen.records.files import open_input
from datagen.records.record import Messages
from datagen_train.models.tokens import PLAIN_TEMPLATE, start_token
from datagen_train.options import TEMPLATES, is_template_file

FOLDER = Path(__file__).parent / "templates"
MARK = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|<(?:start|end)_of_turn>|</s>")
"""What looks like a special token, in a template or in what it renders."""
QUESTION: Messages = [{"role": "user", "content": "PROBE 1"}]
ANSWERED: Messages = [*QUESTION, {"role": "assistant", "content": "PROBE 2"}]


def template_text(spec: str) -> str:
    """Return the text of a template: of a file, or by its name.

    Raises:
        InputError: There is no such file, or it is not UTF-8.
    """
    if spec == "plain":
        return PLAIN_TEMPLATE
    if not is_template_file(spec):
        return (FOLDER / f"{spec}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    with open_input(spec) as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError:
            raise InputError(f"--template {spec}: is not UTF-8") from None


def template_identity(spec: str) -> str:
    """Return the digest of a template's text, after its name if it has one: an edited file makes another run."""
    digest = sha256(template_text(spec).encode()).hexdigest()
    return digest if is_template_file(spec) else f"{spec} {digest}"


def choose_template(tokenizer: PreTrainedTokenizerBase, spec: str) -> list[str]:
    """Give a tokenizer the chat template of `--template`; return notes for the report.

    Raises:
        InputError: The vocabulary lacks a special token of the template, or a file holds no template.
    """
    text, start = template_text(spec), "{{ bos_token }}" if start_token(tokenizer) is not None else ""
    if is_template_file(spec):
        tokenizer.chat_template = text
        return [f"chat template: that of {spec}", *check_template(tokenizer, spec)]
    if missing := list(missing_tokens(tokenizer, special_tokens(spec))):
        fitting = [name for name in TEMPLATES if not any(missing_tokens(tokenizer, special_tokens(name)))]
        raise InputError(
            f"--template {spec}: the model's vocabulary lacks {', '.join(missing)}; those that fit it: "
            f"{', '.join(fitting)}"
        )
    tokenizer.chat_template = start + text
    return [f"chat template: {spec}, saved with the model"]


def special_tokens(name: str) -> list[str]:
    """Return the special tokens that a named template writes."""
    return list(dict.fromkeys(MARK.findall(template_text(name))))


def missing_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[str]:
    """Yield those of some texts that are no special token of a tokenizer, in any text."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] not in special:
            yield text


def check_template(tokenizer: PreTrainedTokenizerBase, spec: str) -> list[str]:
    """Render a question and its answer with the template of a file; return a note on marks that are text.

    Raises:
        InputError: It cannot be rendered, or leaves out what is said.
    """
    try:
        request, answered = render_chat(tokenizer, QUESTION, ask=True), render_chat(tokenizer, ANSWERED)
    except TemplateRefusal as refusal:
        raise InputError(f"--template {spec}: {refusal}") from refusal
    if "PROBE 1" not in request or "PROBE 2" not in answered:
        raise InputError(f"--template {spec}: leaves out what the user or the assistant says; it is no chat template")
    marks = list(missing_tokens(tokenizer, dict.fromkeys(MARK.findall(request + answered))))
    return [f"no token of the vocabulary, so the model reads it as text: {', '.join(marks)}"] if marks else []
