"""A trained model behind the stack: its replies, independent of the batch, its refusals, and its identity."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from datagen.errors import InputError
from datagen.llm.budget import Stop
from datagen.llm.call import Call, Reply
from datagen.llm.limiter import Limiter
from datagen.llm.local.generation import Sampling, choose_tokens, context_length, generate, in_batches, open_model
from datagen.llm.local.model import Local
from datagen.llm.local.weights import weights_digest
from datagen.llm.model import call_key
from datagen.llm.spec import parse_spec
from datagen.records.record import Messages
from datagen_train.data.encode import Encoder
from tests.jobs import digest, evolve, rows, write_seeds
from tests.train.conftest import COLOURS, colour_rows

BABBLE = {"temperature": 1, "top_p": 0.9, "max_tokens": 24}


def call(text: str, sample: int = 0, attempt: int = 1, **params: Any) -> Call:
    messages: Messages = [{"role": "user", "content": text}]
    key = call_key("m", messages, params, sample)
    return Call(key, "m", messages, params, sample, attempt, "answer", {})


def send(folder: Path, calls: Sequence[Call], concurrency: int = 32) -> list[Reply]:
    """Send calls to a newly opened model, at most `concurrency` at once."""

    async def run() -> list[Reply]:
        local = Local(f"hf:{folder}")
        limiter = Limiter({"m": local}, Stop(), concurrency)
        replies = await asyncio.gather(*map(limiter.send, calls))
        await local.close()
        return replies

    return asyncio.run(run())


def test_tokens_are_counted_while_a_batch_is_generated(taught: Path) -> None:
    async def run() -> list[tuple[int, int]]:
        local, counts = Local(f"hf:{taught}"), list[tuple[int, int]]()
        limiter = Limiter({"m": local}, Stop(), 32)

        async def sample() -> None:
            while True:
                counts.append((limiter.tokens, local.unanswered_tokens))
                await asyncio.sleep(0)

        sampling = asyncio.ensure_future(sample())
        replies = await asyncio.gather(*map(limiter.send, questions(40, **BABBLE)))
        sampling.cancel()
        await local.close()
        assert local.unanswered_tokens == 0
        assert limiter.tokens == sum(json.loads(reply.body)["usage"]["completion_tokens"] for reply in replies)
        return counts

    assert any(unanswered and not answered for answered, unanswered in asyncio.run(run())), "before the first answer"
    model, tokenizer = open_model(taught)
    steps: list[int] = []
    answers = generate(model, tokenizer, [[5, 6], [7, 8, 9]], max_tokens=9, on_tokens=steps.append)
    assert len(steps) > 1 and sum(steps) == sum(len(answer.ids) for answer in answers)


def text_of(reply: Reply) -> str:
    return str(json.loads(reply.body)["choices"][0]["message"]["content"])


def questions(count: int, **params: Any) -> list[Call]:
    """Return questions of very different lengths."""
    return [call(f"What colour is {'the very ' * (n % 13)}thing {n}?", **params) for n in range(count)]


def test_a_trained_model_answers_as_a_server_does(taught: Path) -> None:
    replies = send(taught, [call(f"What colour is the {thing}?", temperature=0) for thing in COLOURS])
    assert [text_of(reply) for reply in replies] == list(COLOURS.values())
    body = json.loads(replies[0].body)
    assert (replies[0].status, body["model"]) == (200, "taught")
    assert body["choices"][0]["finish_reason"] == "stop"
    _, tokenizer = open_model(taught)
    prompt = Encoder(tokenizer, set(), 0).prompt("What colour is the sky?")
    answer = tokenizer("blue<|im_end|>")["input_ids"]
    assert body["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": len(answer)}


@pytest.mark.parametrize("params", [{"temperature": 0, "max_tokens": 24}, BABBLE], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["fresh", "taught"])
def test_an_answer_does_not_depend_on_what_else_is_asked(
    name: str, params: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder, calls = request.getfixturevalue(name), questions(40, **params)
    assert send(folder, calls, concurrency=40) == send(folder, calls, concurrency=1)
    assert send(folder, calls[::-3], concurrency=7) == send(folder, calls, concurrency=40)[::-3]


def test_random_numbers_come_from_the_request_the_sample_and_the_attempt(fresh: Path) -> None:
    calls = [call("Say something.", sample, attempt, **BABBLE) for sample in (0, 1) for attempt in (1, 2)]
    replies = send(fresh, calls)
    assert len(set(replies)) == 4
    assert send(fresh, calls[::-1]) == replies[::-1]


def test_calls_with_other_parameters_are_not_mixed(fresh: Path) -> None:
    calls = [call("Say something.", temperature=0, max_tokens=n) for n in (3, 5, 8)]
    counted = [json.loads(reply.body)["usage"]["completion_tokens"] for reply in send(fresh, calls)]
    assert counted == [3, 5, 8]


def test_a_cut_answer_says_so(fresh: Path) -> None:
    (reply,) = send(fresh, [call("Say something.", temperature=0, max_tokens=4)])
    assert json.loads(reply.body)["choices"][0]["finish_reason"] == "length"


def test_an_answer_ends_where_the_context_does(fresh: Path) -> None:
    (reply,) = send(fresh, [call("Hm. " * 230, temperature=0)])
    body, context = json.loads(reply.body), context_length(open_model(fresh)[0])
    assert body["usage"]["prompt_tokens"] < context == sum(body["usage"].values())
    assert body["choices"][0]["finish_reason"] == "length"


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(fresh: Path) -> None:
    (uncut,) = send(fresh, [call("Say something.", temperature=0, max_tokens=24)])
    stop = text_of(uncut)[5:7]
    (cut,) = send(fresh, [call("Say something.", temperature=0, max_tokens=24, stop=["never", stop])])
    assert text_of(cut) == text_of(uncut)[: text_of(uncut).index(stop)]
    assert json.loads(cut.body)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused_by_name(params: dict[str, Any], named: str, fresh: Path) -> None:
    (reply,) = send(fresh, [call("Hello", **params)])
    assert reply.status == 400
    assert named in json.loads(reply.body)["error"]["message"]


def test_a_prompt_without_room_for_an_answer_is_refused(fresh: Path) -> None:
    long, short = send(fresh, [call("word " * 1024, max_tokens=4), call("Hello", max_tokens=4)])
    assert (long.status, short.status) == (400, 200)
    assert "1024" in json.loads(long.body)["error"]["message"]


def test_messages_that_the_template_refuses_are_refused(fresh: Path, copied: Callable[[Path], Path]) -> None:
    strict = copied(fresh)
    (strict / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    (reply,) = send(strict, [call("Hello")])
    assert reply.status == 400
    assert "no system role" in reply.body


def test_a_model_is_asked_exactly_as_it_was_trained(taught: Path) -> None:
    local, (_, tokenizer) = Local(f"hf:{taught}"), open_model(taught)
    messages: Messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"}]
    assert local._encode(messages) == Encoder(tokenizer, set(), 0).prompt(messages)


def test_values_of_the_template_are_part_of_what_a_model_is_asked(fresh: Path, copied: Callable[[Path], Path]) -> None:
    thinker = copied(fresh)
    (thinker / "chat_template.jinja").write_text("{{ messages[0].content }} {{ enable_thinking | default('unset') }}")
    local, (_, tokenizer) = Local(f"hf:{thinker}"), open_model(thinker)
    texts = [
        tokenizer.decode(local._encode([{"role": "user", "content": "Sky?"}], v))
        for v in (None, {"enable_thinking": False})
    ]
    assert texts == ["Sky? unset", "Sky? False"]
    (plain, silent) = send(thinker, [call("Sky?"), call("Sky?", chat_template_kwargs={"enable_thinking": False})])
    assert [json.loads(reply.body)["usage"]["prompt_tokens"] for reply in (plain, silent)] == [
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts
    ]
    (refused,) = send(thinker, [call("Sky?", chat_template_kwargs="no thinking")])
    assert refused.status == 400


def test_an_adapter_answers_on_its_base(adapter: Path) -> None:
    (reply,) = send(adapter, [call("What colour is the sky?", temperature=0)])
    assert text_of(reply) == "red"


def test_a_whole_command_writes_the_same_rows_at_any_concurrency(taught: Path) -> None:
    seeds = write_seeds(6)
    run: dict[str, Any] = {"temperature": 1.5, "max_tokens": 24, "max_failed": 1000}
    for concurrency in ("1", "32"):
        evolve(seeds, f"hf:{taught}", f"{concurrency}/out.jsonl", rounds=2, concurrency=concurrency, **run)
    assert digest("1/out.jsonl") == digest("32/out.jsonl")
    assert rows("32/out.jsonl") or rows("32/out.rejected.jsonl")


def test_left_padding_changes_no_logits_and_every_row_stops_by_itself(taught: Path) -> None:
    model, tokenizer = open_model(taught)
    encoder = Encoder(tokenizer, set(), 0)
    prompts = [encoder.prompt(row.prompt) for row in colour_rows()] + [encoder.prompt("Hm. " * n) for n in range(20)]
    together = generate(model, tokenizer, prompts, max_tokens=16)
    alone = [generate(model, tokenizer, [prompt], max_tokens=16)[0] for prompt in prompts]
    assert together == alone
    assert together == generate(model, tokenizer, prompts, max_tokens=16, batch_size=3)
    assert [answer.finish_reason for answer in together[: len(COLOURS)]] == ["stop"] * len(COLOURS)


def test_batches_are_of_like_lengths_and_bounded() -> None:
    batches = in_batches([5, 90, 7, 100, 6, 400], 3, 220)
    assert batches == [[5], [3, 1], [2, 4, 0]]


def test_sampling_follows_the_distribution_and_its_nucleus() -> None:
    import torch

    shares = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    rngs = [torch.Generator().manual_seed(seed) for seed in range(4000)]
    logits = shares.log().expand(4000, 5)
    frequencies = choose_tokens(logits, Sampling(1, 1.0), rngs).bincount(minlength=5) / 4000
    assert torch.allclose(frequencies, shares, atol=0.03)
    inside = choose_tokens(logits, Sampling(1, 1.0, 0.75), rngs).bincount(minlength=5) / 4000
    assert torch.allclose(inside, torch.tensor([0.625, 0, 0.375, 0, 0]), atol=0.03)
    assert set(choose_tokens(logits, Sampling(1, 1.0, 0.0), rngs).tolist()) == {0}


def test_a_model_trained_again_is_another_and_its_run_files_do_not_count(
    fresh: Path, copied: Callable[[Path], Path]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(fresh)
    before = parse_spec(f"hf:{folder}").identity
    assert before == f"hf:{folder.name}/{weights_digest(fresh)}"
    (folder / "run").mkdir()
    for name in ("run/metrics.jsonl", "metrics.jsonl", "optimizer.pt", "training_args.bin", "README.md"):
        (folder / name).write_text("{}")
    assert parse_spec(f"hf:{folder}").identity == before
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).flatten()[0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert parse_spec(f"hf:{folder}").identity != before


def test_an_adapter_on_another_base_is_another_model(
    adapter: Path, fresh: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(adapter)
    config = json.loads((folder / "adapter_config.json").read_text())
    base = copied(Path(config["base_model_name_or_path"]))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    before = weights_digest(folder)
    (base / "model.safetensors").write_bytes((fresh / "model.safetensors").read_bytes())
    assert weights_digest(folder) != before


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such folder"),
        ("empty", "holds no model"),
        ("no template", "has no chat template"),
        ("torn", "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_answer_is_an_error_at_once(
    kind: str, message: str, fresh: Path, copied: Callable[[Path], Path]
) -> None:
    folder = copied(fresh)
    if kind == "no template":
        (folder / "chat_template.jinja").unlink()
    if kind == "torn":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    if kind in ("missing", "empty"):
        folder = folder.parent / kind
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(InputError, match=message):
        Local(parse_spec(f"hf:{folder}").name)


def test_without_torch_the_extra_is_named(fresh: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from datagen.llm.spec import parse_spec\nfrom datagen.llm.stack import open_backend\n"
        f"open_backend(parse_spec({f'hf:{fresh}'!r}), None, None)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert f"InputError: hf:{fresh} needs torch. To install: " in ran.stderr
    assert "[train]'" in ran.stderr
