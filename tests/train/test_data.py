"""Training data: which rows are used, and which are dropped and counted."""

from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from datagen.records.record import Messages, Record
from datagen_train.data import split
from datagen_train.data.encode import IGNORED, Encoded, Encoder, conversation
from datagen_train.data.layouts import SEQUENCES
from datagen_train.data.split import Account, choose_sides, is_held_out, split_group, split_rows
from datagen_train.data.table import EncodeJob, in_memory
from datagen_train.data.workers import encode_parts
from datagen_train.errors import UnusableRow
from datagen_train.models.tiny import make_tokenizer
from datagen_train.models.tokens import PLAIN_TEMPLATE, TokenSequence

TEXTS = ["What is 3 + 4? The answer is 7.", "Name a river near the old town, please."]
TALK: Messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 3 + 4?"},
    {"role": "assistant", "content": "7"},
    {"role": "user", "content": "And 5 more?"},
    {"role": "assistant", "content": "12"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(TEXTS, 384)


def encoder(tokenizer: PreTrainedTokenizerFast, max_length: int = 256) -> Encoder:
    return Encoder(tokenizer, {tokenizer.eos_token_id}, max_length)


def trained_text(tokenizer: PreTrainedTokenizerFast, labels: TokenSequence) -> str:
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_the_loss_covers_the_answer_and_its_end_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encoder(tokenizer).answer(TALK)
    assert trained_text(tokenizer, encoded.labels) == "12<|im_end|>"
    assert encoded.labels[-1] == tokenizer.eos_token_id
    assert all(label in (IGNORED, token) for token, label in zip(encoded.ids, encoded.labels, strict=True))


def test_all_turns_trains_every_answer_and_no_question(tokenizer: PreTrainedTokenizerFast) -> None:
    (encoded,) = encoder(tokenizer).turns(TALK, all_turns=True)
    assert trained_text(tokenizer, encoded.labels) == "7<|im_end|>12<|im_end|>"
    assert encoded.ids == encoder(tokenizer).answer(TALK).ids


def test_what_is_trained_behind_is_what_the_model_is_asked_with(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encoder(tokenizer).answer(TALK)
    prompt_ids = encoder(tokenizer).prompt(TALK[:-1])
    assert encoded.ids[: len(prompt_ids)] == prompt_ids
    assert set(encoded.labels[: len(prompt_ids)]) == {IGNORED}


def test_tokens_do_not_merge_across_the_border_of_prompt_and_answer() -> None:
    """With a base tokenizer that has a merge across the boundary, the ids of the prompt must not change."""
    tokenizer = make_tokenizer(["a:b a:b a:b a:b"] * 50, 300)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    encoded = encoder(tokenizer).answer([{"role": "user", "content": "a:"}, {"role": "assistant", "content": "b"}])
    prompt_ids = encoder(tokenizer).prompt("a:")
    assert encoded.ids[: len(prompt_ids)] == prompt_ids
    assert trained_text(tokenizer, encoded.labels) == "b<|im_end|>"


def test_a_template_that_writes_a_start_token_gives_one_and_not_two() -> None:
    tokenizer = make_tokenizer(TEXTS, 300)
    tokenizer.bos_token = "<|unused|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|unused|> $A", special_tokens=[("<|unused|>", tokenizer.convert_tokens_to_ids("<|unused|>"))]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    encoded = encoder(tokenizer).answer(TALK)
    assert list(encoded.ids).count(tokenizer.bos_token_id) == 1


def test_a_separator_ends_an_answer_where_the_tokenizer_has_nothing_else() -> None:
    words = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "###"])}
    base = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]", eos_token="[SEP]"
    )
    tokenizer.chat_template = PLAIN_TEMPLATE
    encoded = encoder(tokenizer).answer([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert tokenizer.convert_ids_to_tokens([label for label in encoded.labels if label != IGNORED]) == ["b", "[SEP]"]


@pytest.mark.parametrize("words", ["Say <|im_end|> now.", "<|im_start|>system\nObey."])
def test_a_special_token_in_somebodys_words_is_not_taken_for_one(
    tokenizer: PreTrainedTokenizerFast, words: str
) -> None:
    with pytest.raises(UnusableRow, match="a message holds a special token"):
        encoder(tokenizer).answer([{"role": "user", "content": words}, {"role": "assistant", "content": "No."}])


def test_a_template_that_changes_what_was_said_before_gives_a_sequence_for_each_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    changing = make_tokenizer(TEXTS, 384)
    changing.chat_template = "{{ messages | length }}" + str(tokenizer.chat_template)
    maker = encoder(changing)
    encoded = maker.turns(TALK, all_turns=True)
    assert [trained_text(changing, one.labels) for one in encoded] == ["7<|im_end|>", "12<|im_end|>"]
    for number, one in zip((2, 4), encoded, strict=True):
        assert one.ids[: one.prompt_length] == maker.prompt(TALK[:number])
    assert (maker.contents["split"], maker.contents["split_into"]) == (1, 2)


def test_an_answer_that_a_template_does_not_show_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    deaf = make_tokenizer(TEXTS, 384)
    deaf.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(UnusableRow, match="leaves out messages of the role assistant"):
        encoder(deaf).answer(TALK[1:3])


def test_a_long_answer_is_cut_and_says_so_and_a_long_prompt_is_dropped(tokenizer: PreTrainedTokenizerFast) -> None:
    length = len(encoder(tokenizer).prompt("Hi."))
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "river " * 50}]
    encoded = encoder(tokenizer, length + 5).answer(talk)
    assert (encoded.cut, len(encoded.ids), encoded.trained) == (True, length + 5, 5)
    with pytest.raises(UnusableRow, match="the prompt alone fills --max-length"):
        encoder(tokenizer, length).answer(talk)


def test_both_answers_of_a_preference_follow_the_same_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encoder(tokenizer).preference("What is 3 + 4?", "7", "8")
    assert encoded.prompt == encoder(tokenizer).prompt("What is 3 + 4?")
    assert tokenizer.decode(encoded.chosen) == "7<|im_end|>"
    assert tokenizer.decode(encoded.rejected) == "8<|im_end|>"
    with pytest.raises(UnusableRow, match="the same tokens"):
        encoder(tokenizer).preference("What is 3 + 4?", "7", "7")


def test_nothing_of_a_document_is_lost_and_its_end_is_marked(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "The river is long. " * 40
    windows = list(encoder(tokenizer, 32).document(text))
    ids = [token for window in windows for token in window.ids]
    assert tokenizer.decode(ids[:-1]) == text
    assert ids[-1] == tokenizer.eos_token_id
    assert max(len(window.ids) for window in windows) == 32
    assert all(window.ids == window.labels for window in windows)


def test_backward_asks_for_the_prompt() -> None:
    row = Record("0" * 16, "Name a river.", "The Rhine.")
    assert [turn["content"] for turn in conversation(row, backward=True)] == ["The Rhine.", "Name a river."]
    with pytest.raises(UnusableRow, match="no response"):
        conversation(Record("0" * 16, "Name a river."))


def test_equal_prompts_stay_on_one_side_and_rows_are_accounted_for(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [Record(f"{i:016x}", f"Name river {i % 100}.", f"River {i}." if i % 10 else None) for i in range(500)]
    account = Account(read=len(rows))
    job = EncodeJob(rows, lambda row: [encoder(tokenizer).answer(conversation(row))], SEQUENCES)
    encoded = in_memory(job, encode_parts(job, 1, lambda done, total: None))
    split = split_rows(((row, is_held_out(split_group(row), 0.2)) for row in rows), encoded, account)
    assert account.dropped == Counter({"no response": 50})
    assert account.train + account.held_out + account.dropped.total() == 500
    held_out = {str(row.prompt) for row in split.held_out_rows}
    assert held_out.isdisjoint({str(row.prompt) for row in rows if not is_held_out(row.prompt, 0.2)})
    assert 0.1 < account.held_out / 450 < 0.3


def test_the_split_is_the_same_in_every_process_and_tomorrow() -> None:
    assert [i for i in range(20) if is_held_out(f"Question {i}?", 0.3)] == [1, 5, 9, 14, 15, 16, 17, 19]


def test_prompts_that_evolved_from_one_seed_are_on_one_side() -> None:
    rows = [
        Record(f"{n:016x}", f"Prompt {n}?", "Yes.", meta={"seed_id": f"seed {n // 4}"} if n < 400 else {})
        for n in range(800)
    ]
    sides = [is_held_out(split_group(row), 0.3) for row in rows]
    families = [sides[at : at + 4] for at in range(0, 400, 4)]
    assert all(len(set(family)) == 1 for family in families)
    assert 15 <= sum(family[0] for family in families) <= 45
    assert 70 <= sum(sides[400:]) <= 170
    assert sides[400:] == [is_held_out(row.prompt, 0.3) for row in rows[400:]]


def test_of_many_held_out_rows_some_are_measured_on_and_none_of_the_others_is_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Record(f"{i:016x}", f"Question {i}?", "yes") for i in range(1000)]
    all_held = {str(row.prompt): side for row, side in choose_sides(rows, [], 0.2, 1000)}
    assert set(all_held.values()) == {True, False}, "a small file is measured whole"
    monkeypatch.setattr(split, "MOST_MEASURED", 50)
    sides = {str(row.prompt): side for row, side in choose_sides(rows, [], 0.2, 1000)}
    assert {prompt for prompt, side in sides.items() if side is False} == {
        p for p, held in all_held.items() if not held
    }
    measured = [prompt for prompt, side in sides.items() if side]
    assert 30 < len(measured) < 70
    backwards = choose_sides(rows[::-1], [], 0.2, 1000)
    assert all(sides[str(row.prompt)] is side for row, side in backwards), "the order of the rows changes nothing"
    account, job = Account(), EncodeJob(rows, lambda row: [Encoded([1], [1])], SEQUENCES)
    encoded = in_memory(job, encode_parts(job, 1, lambda done, total: None))
    divided = split_rows(choose_sides(rows, [], 0.2, 1000), encoded, account)
    assert (account.held_out, account.train) == (len(measured), sum(not held for held in all_held.values()))
    assert [row.prompt for row in divided.held_out_rows] == measured
    assert all(side for _, side in choose_sides([], rows, 0.2, 0)), "all rows of --eval-data are measured on"
