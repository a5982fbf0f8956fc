"""Which instructions and instances are dropped, why, and that similar but acceptable ones are kept."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.select import first_reason
from datagen.select.instructions import CHINESE, ENGLISH, USER_TURN, Instance, instance_reasons
from tests.conftest import REAL_DATA

PAPER = re.compile(r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to)\b", re.IGNORECASE)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Write a poem", "too_short"),
        ("Write a short poem", None),
        ("  \n", "too_short"),
        ("word " * 150, None),
        ("word " * 151, "too_long"),
        ("Write a program to sort a list of numbers.", "writes_program"),
        ("write a program that prints primes", "writes_program"),
        ("Write a programme for the spring concert.", None),
        ("Explain how to write a program in C.", None),
        (": a list of ten animals", "starts_with_punctuation"),
        ("- Name three kinds of cheese.", "starts_with_punctuation"),
        (". Tell me a long joke.", "starts_with_punctuation"),
        ("“To be or not to be”: who said it?", None),
        ('"Bonjour" is which word in English?', None),
        ("(Choose one) Is a whale a fish?", None),
        ("$50 is shared by four people. What does each get?", None),
        ("Écris un poème sur la mer.", "not_english"),
        ("写一首关于大海的诗", "not_english"),
        ("Translate 你好 into plain English.", None),
        ("Describe the café on the corner.", None),
    ],
)
def test_english_instructions(instruction: str, reason: str | None) -> None:
    assert first_reason(ENGLISH, instruction) == reason


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("How can I help you today?", "answers"),
        ("Hello! What can I do? How may I assist you?", "answers"),
        ("I'm sorry, but I can't help with that.", "answers"),
        ("I am sorry, but I cannot provide medical advice.", "answers"),
        ("As an AI language model, I have no opinions.", "answers"),
        ("您好！有什么可以帮您的吗？", "answers"),
        ("How can I help my son with his homework?", None),
        ("I'm sorry to ask again, but how do I boil an egg?", None),
        ("I can't find my keys. Where should I look?", None),
        ("As an AI researcher, which journals should I read?", None),
        ("Summarise this text for me:", "trailing_colon"),
        ("请翻译下面的句子：", "trailing_colon"),
        ("Write it as key: value, please.", None),
        ("What does https://example.org say about it?", "has_link"),
        ("Écris un poème sur la mer.", None),
        ("怎样做一碗好吃的面条？", None),
        ("Write a program that prints primes.", None),
    ],
)
def test_what_is_said_in_the_users_place(turn: str, reason: str | None) -> None:
    assert first_reason(USER_TURN, turn) == reason


@pytest.mark.parametrize(
    "instruction",
    [
        "Describe what you see in this image.",
        "Look at the picture and name the animal.",
        "Draw a map of your town.",
        "Write a poem about cats and draw a picture for it.",
        "Plot the function y = x squared.",
        "Open the file and count its lines.",
        "Go to the website and sign up for an account.",
        "First find the train times. Go to the station page.",
        "Listen to the audio clip and write down what is said.",
        "Create a flowchart for making tea.",
        "Generate an image of a red fox.",
        "Using the map below, find the shortest route.",
        "Can you draw a cat wearing a hat?",
        "Summarise the attached file in three sentences.",
        "Which month sold best according to the graph above?",
        "Please play some music for me now.",
    ],
)
def test_a_text_model_is_not_asked_for_other_media(instruction: str) -> None:
    assert first_reason(ENGLISH, instruction) == "needs_media"


@pytest.mark.parametrize(
    "instruction",
    [
        "Map each word to the number of its letters.",
        "Write a function that maps names to ages.",
        "What does the map function do in Python?",
        "How do I file a complaint about my neighbour?",
        "Write Python code that reads a file and counts its lines.",
        "Create a file naming scheme for a small office.",
        "Summarise the plot of Hamlet in two sentences.",
        "Compose a movie plot about a lost dog.",
        "What conclusions can we draw from these numbers?",
        "Draw a conclusion from the two statements.",
        "Draw a card from a deck of 52. What is the chance of an ace?",
        "What should I do before I go to bed?",
        "I go to school by bus. Rewrite this in the past tense.",
        "Write a caption for an image of a sunset.",
        "Create a video script about recycling at home.",
        "Give three tips for playing this video game well.",
        "Explain how graph algorithms find the shortest path.",
        "Create a graph class in Java with add and remove.",
        "Give me the big picture of the French Revolution.",
        "Explain the difference between audio and video codecs.",
        "What kind of music did Mozart compose for the piano?",
        "Dawn was asked to paint a series of these 12 paintings. How long does it take?",
    ],
)
def test_words_that_only_sound_like_media_are_innocent(instruction: str) -> None:
    assert first_reason(ENGLISH, instruction) is None


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("写诗吧", "too_short"),
        ("写一首诗", None),
        ("诗" * 150, None),
        ("诗" * 151, "too_long"),
        ("根据下图回答问题。", "needs_media"),
        ("画一张猫的图片给我看。", "needs_media"),
        ("打开这个文件并统计行数。", "needs_media"),
        ("地图是怎么发明出来的？", None),
        ("请解释什么是文件系统。", None),
        ("请介绍中国画的历史。", None),
        ("请访问 https://example.com 并总结内容。", "has_link"),
        ("请问ChatGPT你叫什么名字？", "names_gpt"),
        ("你是GPT-4吗？请回答。", "names_gpt"),
        ("。请写一首诗", "starts_with_punctuation"),
        ("《红楼梦》的作者是谁？", None),
        ("用Python写一个排序程序。", None),
    ],
)
def test_chinese_instructions(instruction: str, reason: str | None) -> None:
    assert first_reason(CHINESE, instruction) == reason


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    known = {"too_short", "too_long", "needs_media", "writes_program", "starts_with_punctuation", "not_english"}
    assert first_reason(ENGLISH, text) in known | {None}


@pytest.mark.parametrize(
    ("source", "output", "reason"),
    [
        ("", "Paris", None),
        ("Which city?", "Paris", None),
        ("Paris", "Paris", "copied_input"),
        (" Paris\n", "Paris ", "copied_input"),
        ("paris", "Paris", None),
        ("Which city?", "", "empty_output"),
        ("", " \n", "empty_output"),
        ("The cities are:", "Paris", "trailing_colon"),
        ("Which city?", "The answer is:", "trailing_colon"),
        ("哪个城市？", "答案如下：", "trailing_colon"),
        ("Time: 10:30", "Ratio 2:1", None),
    ],
)
def test_instances_by_themselves(source: str, output: str, reason: str | None) -> None:
    assert instance_reasons([Instance(source, output)]) == [reason]


A, B, NO_INPUT = Instance("2 + 2", "4"), Instance("3 + 3", "6"), Instance("", "Once upon a time")


@pytest.mark.parametrize(
    ("instances", "reasons"),
    [
        ([], []),
        ([A, B], [None, None]),
        ([A, B, A], [None, None, "duplicate"]),
        ([A, Instance(" 2 + 2 ", "4\n")], [None, "duplicate"]),
        ([A, B, Instance("2 + 2", "5")], ["contradiction"] * 3),
        ([A, Instance("2 + 2", "")], [None, "empty_output"]),
        ([NO_INPUT, Instance("", "Long ago")], [None, None]),
        ([Instance("2 + 2", "2 + 2"), A], ["copied_input", None]),
    ],
)
def test_instances_of_one_task(instances: list[Instance], reasons: list[str | None]) -> None:
    assert instance_reasons(instances) == reasons


def test_a_cut_reply_loses_its_last_instance_and_no_other() -> None:
    assert instance_reasons([A, B], truncated=True) == [None, "truncated"]
    assert instance_reasons([A, Instance("2 + 2", "4 becau")], truncated=True) == [None, "truncated"]
    assert instance_reasons([], truncated=True) == []


def test_the_real_seeds_lose_what_the_paper_would_drop_and_nothing_else(real_seeds: Path) -> None:
    instructions = [json.loads(line)["instruction"] for line in real_seeds.read_text().splitlines()]
    assert Counter(first_reason(ENGLISH, text) for text in instructions) == {
        None: 172,
        "too_short": 2,
        "writes_program": 1,
    }


def test_real_prompts_that_a_text_model_can_answer_are_not_taken_for_media() -> None:
    path = REAL_DATA / "gsm8k" / "train_2000.jsonl"
    if not path.exists():
        pytest.skip("the real questions are not here: ../shared/data/gsm8k/train_2000.jsonl")
    questions = [json.loads(line)["question"] for line in path.read_text().splitlines()]
    assert sum(PAPER.search(question) is not None for question in questions) == 34
    assert Counter(first_reason(ENGLISH, text) for text in questions) == {None: 1998, "too_long": 2}
