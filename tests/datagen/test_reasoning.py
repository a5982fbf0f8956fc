"""What a model thought is kept apart from its answer, in whatever spelling it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.llm.dialects import Spoken, read_message
from datagen.reasoning import END_TOKENS, MARKS, Marks, split_thinking
from tests.spellings import SPELLINGS

THOUGHT, ANSWER = "Two and two:\n\n```\n2 + 2 = 4\n```\nSo it is 4.", "The answer is 4."
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[◁`|"), min_size=1).filter(str.strip)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_thought_and_the_answer(name: str) -> None:
    spoken = read_message({"role": "assistant", **SPELLINGS[name](THOUGHT, ANSWER)})
    assert (spoken.text, spoken.reasoning, spoken.is_cut) == (ANSWER, THOUGHT, False)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>hm</think>Yes.", "hm", "Yes."),
        ("\n <think>\nhm\nso\n</think>\n\nYes.\n", "hm\nso", "Yes.\n"),
        ("<think></think>Yes.", "", "Yes."),
        ("<think>a</think>\n<think>b</think>\nYes.", "a\n\nb", "Yes."),
        ("<thinking>a</thinking><reasoning>b</reasoning>Yes.", "a\n\nb", "Yes."),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>hm</think>", "hm", ""),
        ("hm</think>", "hm", ""),
        ("Yes.", "", "Yes."),
        (" Yes.\n", "", " Yes.\n"),
        ("", "", ""),
        ("Use <think>x</think> tags.", "", "Use <think>x</think> tags."),
        ("```xml\n<think>x</think>\n```", "", "```xml\n<think>x</think>\n```"),
        ("The mark `</think>` ends it.", "", "The mark `</think>` ends it."),
        ('The mark "</think>" ends it.', "", 'The mark "</think>" ends it.'),
        ("```\nprint('</think>')\n```\nDone.", "", "```\nprint('</think>')\n```\nDone."),
        ("I use `<think>` here.</think>Yes.", "I use `<think>` here.", "Yes."),
        ("<think>hm</think>Write `<think>x</think>`.", "hm", "Write `<think>x</think>`."),
        ("<think>hm</think>So:\n<think>x</think>", "hm", "So:\n<think>x</think>"),
        ("<|channel|>final<|message|>Yes.<|return|>", "", "Yes."),
        ("analysis of variance is a test.", "", "analysis of variance is a test."),
        ("Here is my thought process: none.", "", "Here is my thought process: none."),
        ("Yes.<|im_end|>", "", "Yes."),
        ("Yes.\n<|eot_id|>\n<|end_of_text|> ", "", "Yes."),
        ("Yes.</s>", "", "Yes."),
        ("<s>No.</s>", "", "<s>No.</s>"),
        ("<s>No.</s> \n", "", "<s>No.</s> \n"),
        ("The token <|im_end|> ends a turn.", "", "The token <|im_end|> ends a turn."),
    ],
)
def test_only_blocks_at_the_beginning_are_reasoning(text: str, reasoning: str, answer: str) -> None:
    assert split_thinking(text) == (reasoning, answer, False)


@pytest.mark.parametrize("opening", [marks.opening for marks in MARKS if marks.alone])
def test_a_block_that_does_not_end_is_cut(opening: str) -> None:
    assert split_thinking(f"\n{opening}hm") == ("", f"\n{opening}hm", True)
    assert split_thinking(f"<think>a</think>{opening}hm") == ("a", f"{opening}hm", True)


@given(PLAIN)
def test_a_text_without_marks_is_left_as_it_is(text: str) -> None:
    assert split_thinking(text) == ("", text, False)


@given(PLAIN, PLAIN, st.sampled_from(MARKS), st.data())
def test_a_block_is_split_at_its_marks(thought: str, answer: str, marks: Marks, data: st.DataObject) -> None:
    closing = data.draw(st.sampled_from(marks.closings))
    end = data.draw(st.sampled_from(["", *END_TOKENS]))
    text = f"{marks.opening}{thought}{closing}{answer}{end}"
    assert split_thinking(text) == (thought.strip(), answer.strip() if end else answer.lstrip(), False)


@pytest.mark.parametrize("content", [None, "", [], [{}], [{"type": []}], [{"type": "text", "text": [[[[[["x"]]]]]]}]])
def test_a_content_without_text_says_nothing(content: object) -> None:
    assert read_message({"content": content, "reasoning": {"effort": None}, "thinking": 1}) == Spoken("", "")
