"""A sequence classifier of any kind as a reward: the logit, or the log-probability, of one of its labels.

It reads the answer's text with its own tokenizer, which adds the special tokens that it was trained with. With `,chat`
it reads prompt and answer, as public reward models do: by its chat template, or as a pair of texts if it has none.
"""

from collections.abc import Sequence
from typing import Any

import torch

from datagen.errors import InputError
from datagen.llm.local.chat_template import TemplateRefusal, render_chat
from datagen.llm.local.generation import in_batches, inference_mode
from datagen.records.record import Text, as_messages, request_text
from datagen_train.models.classifier import open_classifier
from datagen_train.rewards.functions import Score, completion_text

MAX_BATCH, MAX_TOKENS = 64, 1 << 15
"""Limits of a batch: texts, and padded tokens."""
LOG_PROB, CHAT = "logprob", "chat"
"""What may stand after the label, behind commas."""


class Classifier:
    """A sequence classifier that reads the answer, alone or after its prompt.

    Args:
        path: A folder, or a name on the hub.
        label: The name or number of a label; after it `,logprob` for the log-probability, and `,chat` to show the
            prompt as well.

    Raises:
        InputError: The classifier cannot be loaded, or has no such label.
    """

    def __init__(self, path: str, label: str) -> None:
        name, *forms = label.split(",")
        if unknown := sorted(set(forms) - {LOG_PROB, CHAT}):
            raise InputError(f"--reward classifier:{path}#{label}: {unknown[0]} is none of {LOG_PROB}, {CHAT}")
        tokenizer: Any
        model: Any
        model, tokenizer, labels = open_classifier(path)
        self._model, self._tokenizer = model, tokenizer
        self._log_prob, self._has_prompt = LOG_PROB in forms, CHAT in forms
        self._label = label_index(path, name, labels)
        positions = getattr(model.config, "max_position_embeddings", None)
        self._max_length = min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)
        self._most = MAX_BATCH if model.config.pad_token_id is not None else 1
        """Texts in a batch; a model that does not say what pads finds the end of one text alone."""

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        answers = [completion_text(completion) for completion in completions]
        read = [
            self._conversation(prompt, answer) if self._has_prompt else self._answer(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        scores: list[Score] = [None] * len(answers)
        usable = [i for i, encoding in enumerate(read) if encoding is not None]
        with inference_mode(self._model):
            for group in in_batches([len(read[i]["input_ids"]) for i in usable], self._most, MAX_TOKENS):
                batch = [usable[i] for i in group]
                logits = self._model(**self._tensors([read[i] for i in batch])).logits.float()
                values = (logits.log_softmax(-1) if self._log_prob else logits)[:, self._label]
                for i, score in zip(batch, values.tolist(), strict=True):
                    scores[i] = score
        return scores

    def _answer(self, text: str) -> Any:
        """Encode an answer, cut at the longest length; None without tokens."""
        encoding = self._tokenizer(text, truncation=True, max_length=self._max_length)
        return encoding if encoding["input_ids"] else None

    def _conversation(self, prompt: Text, answer: str) -> Any:
        """Encode a prompt with its answer; None if the template refuses them, or they are too long to be read whole."""
        if self._tokenizer.chat_template is None:
            encoding = self._tokenizer(request_text(prompt), answer)
        else:
            try:
                text = render_chat(self._tokenizer, [*as_messages(prompt), {"role": "assistant", "content": answer}])
            except TemplateRefusal:
                return None
            encoding = self._tokenizer(text, add_special_tokens=False)
        return encoding if len(encoding["input_ids"]) <= self._max_length else None

    def _tensors(self, encodings: Sequence[Any]) -> Any:
        """Return the encodings as a batch, padded if there are several."""
        if len(encodings) == 1:
            return {name: torch.tensor([value], device=self._model.device) for name, value in encodings[0].items()}
        return self._tokenizer.pad(encodings, return_tensors="pt").to(self._model.device)


def label_index(path: str, name: str, labels: Sequence[str]) -> int:
    """Return the index of a label, by its name or number; a classifier with one label needs no name."""
    if name in labels:
        return labels.index(name)
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    if not name and len(labels) == 1:
        return 0
    raise InputError(f"--reward classifier:{path}#{name}: name one of its labels: {', '.join(labels)}")
