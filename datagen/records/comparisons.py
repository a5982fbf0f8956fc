"""The shapes of two answers with a verdict on them, and of OpenAssistant's trees: what public sets of comparisons hold.

Each layout is two columns of answers and one of the verdict; a table holds them. An answer may be the last turn of a
whole conversation. Every one of them can be read as ranked answers, and as a preference unless the two are tied.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from datagen.records.columns import Fields
from datagen.records.messages import ASSISTANT, as_prompt
from datagen.records.record import Messages, Text
from datagen.records.shapes import Roles, conversation_field, request, with_system
from datagen.records.trees import forks, rank_of

Ranks = tuple[int, ...]
Scores = tuple[float | None, ...]
Verdict = Callable[[Any], Ranks | None]
"""Takes the value of a verdict and returns the ranks of the two answers; None if it says nothing."""
FIRST, SECOND, TIE = (1, 2), (2, 1), (1, 1)


class Comparison(NamedTuple):
    """Several answers to one prompt, and their ranks."""

    prompt: Text
    responses: tuple[str, ...]
    ranks: Ranks
    scores: Scores | None = None

    def best_first(self) -> tuple[str, ...]:
        """Return the best answer and the worst one."""
        by_rank = sorted(zip(self.ranks, self.responses, strict=True), key=lambda pair: pair[0])
        return by_rank[0][1], by_rank[-1][1]


class ComparisonShape(NamedTuple):
    """How to read such rows; the fields as in Shape."""

    read: Callable[[Fields], list[Comparison]]
    needs: Roles
    may: Roles = ()
    needs_any: Roles = ()


def dense_ranks(scores: Sequence[float | None]) -> Ranks:
    """Rank scores: the highest is 1, equal ones share a rank, the next has the next number; null comes last."""
    order = sorted({score for score in scores if score is not None}, reverse=True)
    places = {score: number for number, score in enumerate(order, 1)}
    return tuple(len(order) + 1 if score is None else places[score] for score in scores)


# Verdicts


def by_words(words: dict[Any, Ranks], value: Any) -> Ranks | None:
    """Return the ranks that a word or number stands for."""
    value = value.strip().lower() if isinstance(value, str) else value
    return words.get(value) if isinstance(value, str | int) else None


def by_sign(value: Any) -> Ranks | None:
    """Return the ranks that a number stands for: below 0 the first answer is better."""
    if not isinstance(value, int | float):
        return None
    return FIRST if value < 0 else SECOND if value > 0 else TIE


def by_annotation(value: Any) -> Ranks | None:
    """Return the ranks that the annotations of Label Studio stand for: the first result that selects a side."""
    results = [r for annotation in as_list(value) for r in as_list(annotation.get("result"))]
    sides = (as_dict(result.get("value")).get("selected") for result in results)
    return next((ranks for side in sides if (ranks := by_words(WINNERS, side))), None)


def as_list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


WINNERS: dict[Any, Ranks] = {
    **dict.fromkeys(("model_a", "a", "response_a", "left", "first", "model_1"), FIRST),
    **dict.fromkeys(("model_b", "b", "response_b", "right", "second", "model_2"), SECOND),
    **dict.fromkeys(("tie", "tie (bothbad)", "both", "both_bad", "bothbad"), TIE),
}
FROM_0: dict[Any, Ranks] = {0: FIRST, 1: SECOND}
FROM_1: dict[Any, Ranks] = {1: FIRST, 2: SECOND, 0: TIE}


# Prompts


def prompt_of(fields: Fields) -> Text:
    """Read the prompt of a comparison, wherever it stands."""
    if "context_turns" in fields:
        return as_prompt(with_system(fields, conversation_field(fields, "context_turns")))
    if "post" in fields:
        return fields.text("post", required=True)
    if "question_record" in fields:
        record = fields.value("question_record")
        fields.notes += [f'"{key}" in "question", which is left out' for key in sorted(record.keys() - {"full_text"})]
        return Fields(record, ("full_text",)).text("full_text", required=True)
    return request(fields)


def prompt_of_summary(fields: Fields) -> Text:
    """Read the post or article that was summed up, in the form in which the models were asked (arXiv 2009.01325)."""
    if "post_text" not in fields:
        return f"{fields.text('article', required=True)}\n\nTL;DR:"
    heads = [("SUBREDDIT: r/", fields.text("subreddit")), ("TITLE: ", fields.text("title"))]
    named = [name + text for name, text in heads if text]
    return "\n\n".join([*named, f"POST: {fields.text('post_text', required=True)}", "TL;DR:"])


# Readers


def read_two(
    first: str, second: str, verdict: str, decide: Callable[[Any], Ranks | None], fields: Fields
) -> list[Comparison]:
    """Read two columns of answers and one of the verdict."""
    ranks = decide(fields.value(verdict))
    if ranks is None:
        raise ValueError(f'"{fields.name(verdict)}" does not say which answer is better')
    if isinstance(fields.row[fields.name(first)], list):
        return [Comparison(*last_turns(fields, first, second), ranks)]
    return [
        Comparison(prompt_of(fields), (fields.text(first, required=True), fields.text(second, required=True)), ranks)
    ]


def last_turns(fields: Fields, first: str, second: str) -> tuple[Text, tuple[str, str]]:
    """Read two conversations that differ in the last turn alone; return what stands before it, and the two turns."""
    conversations: list[Messages] = [conversation_field(fields, role) for role in (first, second)]
    if conversations[0][:-1] != conversations[1][:-1]:
        raise ValueError(f'"{fields.name(first)}" and "{fields.name(second)}" part before their last turn')
    if any(messages[-1]["role"] != ASSISTANT for messages in conversations):
        raise ValueError(f'"{fields.name(first)}" does not end in the assistant\'s turn')
    one, other = (messages[-1]["content"] for messages in conversations)
    return as_prompt(conversations[0][:-1]), (one, other)


def read_scored_two(fields: Fields) -> list[Comparison]:
    """Read two answers with a score for each."""
    scores = fields.value("score_0"), fields.value("score_1")
    if not all(isinstance(score, int | float) for score in scores):
        raise ValueError('"score_0" and "score_1" are not numbers')
    numbers = tuple(map(float, scores))
    answers = fields.text("answer_0", required=True), fields.text("answer_1", required=True)
    return [Comparison(prompt_of(fields), answers, dense_ranks(numbers), numbers)]


def read_summaries(fields: Fields) -> list[Comparison]:
    """Read two summaries of a post, and the choice between them."""
    summaries, ranks = as_list(fields.value("summaries")), by_words(FROM_0, fields.value("choice"))
    texts = [summary.get("text") for summary in summaries]
    if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts) or ranks is None:
        raise ValueError('"summaries" and "choice" are not two texts and 0 or 1')
    unread = sorted({key for summary in summaries for key in summary} - {"text"})
    fields.notes += [f'"{key}" in "summaries", which is left out' for key in unread]
    return [Comparison(prompt_of_summary(fields), tuple(map(str, texts)), ranks)]


def read_forks(fields: Fields) -> list[Comparison]:
    """Read every place of a tree where the assistant has several ranked replies."""
    comparisons = []
    fields.value("message_tree_id")
    for before, replies in forks(fields.value("tree")):
        ranked = [reply for reply in replies if rank_of(reply) < float("inf")]
        if len(ranked) > 1:
            ranks = dense_ranks([-rank_of(reply) for reply in ranked])
            texts = tuple(Fields(reply, ("text",)).text("text", required=True) for reply in ranked)
            comparisons.append(Comparison(as_prompt(before), texts, ranks))
    if not comparisons:
        raise ValueError("no two ranked replies of the assistant to one message")
    return comparisons


REQUEST: Roles = ("prompt", "instruction", "question", "input", "system")


def two(first: str, second: str, verdict: str, decide: Callable[[Any], Ranks | None], *prompt: str) -> ComparisonShape:
    """Return a layout of the table: the columns of the answers and the verdict, and the roles of its prompt."""
    return ComparisonShape(
        partial(read_two, first, second, verdict, decide), (first, second, verdict), prompt or REQUEST
    )


winner = partial(by_words, WINNERS)
TWO_ANSWERS = {
    "better-id": two("response_0", "response_1", "better_response_id", partial(by_words, FROM_0)),
    "votes": two("human_ref_a", "human_ref_b", "labels", partial(by_words, {1: FIRST, 0: SECOND}), "post"),
    "overall": two("response1", "response2", "overall_preference", by_sign, "context_turns", *REQUEST),
    "arena": two("conversation_a", "conversation_b", "winner", winner),
    "battle": two("response_a", "response_b", "winner", winner),
    "numbered": two("output_1", "output_2", "preference", partial(by_words, FROM_1)),
    "label-studio": two("answer1", "answer2", "annotations", by_annotation),
    "scored": ComparisonShape(
        read_scored_two, ("answer_0", "answer_1", "score_0", "score_1"), ("question_record", *REQUEST)
    ),
    "summaries": ComparisonShape(
        read_summaries, ("summaries", "choice"), ("post_text", "article", "title", "subreddit")
    ),
    "tree": ComparisonShape(read_forks, ("tree", "message_tree_id")),
}  # fmt: skip
"""Names of layouts, as --format takes them: PKU-SafeRLHF, SHP, HelpSteer3, LMSYS and MT-bench, arena-style responses,
AlpacaEval, Label Studio, WebGPT, the TL;DR comparisons, OpenAssistant."""
