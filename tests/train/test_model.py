"""Models from other sources: pad token, end token, template, adapters, frozen layers."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

from datagen.errors import InputError
from datagen.llm.local.generation import open_model
from datagen_train.data.checks import CheckInput, run_checks
from datagen_train.data.encode import Encoder
from datagen_train.data.split import Account
from datagen_train.errors import CheckFailed
from datagen_train.models.load import Loaded, choose_trained, count_parameters, load
from datagen_train.models.reward_model import separate_padding
from datagen_train.models.tiny import make_tiny
from datagen_train.models.tokens import fit_tokenizer, turn_closer, turn_end_ids
from datagen_train.options import ModelOptions

TEXTS = ["What is 3 + 4? The answer is 7."]


def tiny() -> Loaded:
    model, tokenizer = make_tiny("tiny", TEXTS, 0)
    return Loaded(model, tokenizer, [])


def gpt2_with_bert_tokenizer() -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A typical Chinese GPT-2: [SEP] ends a turn, there is no end token and no template."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "seven", "#", "question", "answer", ":"]
    base = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]"
    )
    config = GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config), tokenizer


def test_a_gpt2_with_a_bert_tokenizer_ends_its_turns_with_the_separator() -> None:
    model, tokenizer = gpt2_with_bert_tokenizer()
    notes = fit_tokenizer(model, tokenizer)
    loaded = Loaded(model, tokenizer, notes)
    encoded = Encoder(tokenizer, turn_end_ids(model, tokenizer), 64).answer(
        [{"role": "user", "content": "what is"}, {"role": "assistant", "content": "seven"}]
    )
    assert tokenizer.convert_ids_to_tokens(encoded.ids[-2:]) == ["seven", "[SEP]"]
    assert tokenizer.sep_token_id in model.generation_config.eos_token_id
    assert tokenizer.pad_token == "[PAD]"
    run_checks(CheckInput(loaded, [encoded], Account(read=1)))


def test_without_a_pad_token_the_end_token_pads_and_is_trained_all_the_same() -> None:
    loaded = tiny()
    loaded.tokenizer.pad_token = None
    before = loaded.model.get_input_embeddings().weight.clone()
    notes = fit_tokenizer(loaded.model, loaded.tokenizer)
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
    assert any("pad token" in note for note in notes)
    assert torch.equal(loaded.model.get_input_embeddings().weight, before)


def test_a_model_that_scores_pads_with_a_reserved_token_before_its_vocabulary_grows() -> None:
    loaded = tiny()
    loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<|unused|>"]})
    rows = loaded.model.get_input_embeddings().num_embeddings
    assert separate_padding(loaded.model, loaded.tokenizer)
    assert loaded.tokenizer.pad_token == "<|unused|>"
    assert loaded.model.get_input_embeddings().num_embeddings == rows
    assert separate_padding(loaded.model, loaded.tokenizer) is None


def test_the_token_that_closes_a_turn_ends_generation_too() -> None:
    loaded = tiny()
    loaded.tokenizer.eos_token = "<|unused|>"
    fit_tokenizer(loaded.model, loaded.tokenizer)
    closer = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_closer(loaded.tokenizer) == closer
    assert set(loaded.model.generation_config.eos_token_id) == {closer, loaded.tokenizer.eos_token_id}


def test_a_tokenizer_without_any_end_is_refused() -> None:
    model, tokenizer = gpt2_with_bert_tokenizer()
    tokenizer.sep_token = None
    with pytest.raises(InputError, match="nothing could end an answer"):
        fit_tokenizer(model, tokenizer)


def test_padding_and_batch_do_not_change_what_a_row_costs() -> None:
    """Log-probabilities of a row are the same alone and padded in a batch."""
    loaded = tiny()
    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), 64)
    short, long = (
        encoder.answer([{"role": "user", "content": text}, {"role": "assistant", "content": "7"}]).ids
        for text in ("Hi", "What is 3 + 4, and why?")
    )
    padded = [*short] + [loaded.tokenizer.pad_token_id] * (len(long) - len(short))
    mask = [[1] * len(short) + [0] * (len(long) - len(short)), [1] * len(long)]
    with torch.no_grad():
        alone = loaded.model(torch.tensor([short])).logits[0]
        together = loaded.model(torch.tensor([padded, long]), attention_mask=torch.tensor(mask)).logits[0, : len(short)]
    assert torch.allclose(alone, together, atol=1e-4)


def test_only_the_last_layers_are_trained_if_that_is_asked() -> None:
    model = choose_trained(tiny().model, ModelOptions(train_last=1))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert not [name for name in trained if ".layers.0." in name or "embed" in name]
    assert [name for name in trained if ".layers.1." in name]
    with pytest.raises(InputError, match="has 2 layers"):
        choose_trained(tiny().model, ModelOptions(train_last=3))


def test_layers_are_chosen_by_name_and_a_pattern_that_finds_none_is_an_error() -> None:
    model = choose_trained(tiny().model, ModelOptions(train_layers=r"mlp"))
    assert all("mlp" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    with pytest.raises(InputError, match="finds no parameter"):
        choose_trained(tiny().model, ModelOptions(train_layers="nothing like it"))


def test_adapters_leave_the_model_and_its_head_as_they_are() -> None:
    model = choose_trained(tiny().model, ModelOptions(lora=True, lora_rank=4))
    trained, total = count_parameters(model)
    assert 0 < trained < total / 2
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    assert not [name for name, _ in model.named_parameters() if "lm_head" in name and "lora" in name]
    with pytest.raises(InputError, match="--lora-targets nowhere"):
        choose_trained(tiny().model, ModelOptions(lora=True, lora_targets="nowhere"))


def test_saved_and_loaded_is_the_same_model_bit_by_bit() -> None:
    loaded = tiny()
    loaded.model.save_pretrained("saved")
    loaded.tokenizer.save_pretrained("saved")
    again = load("saved", ModelOptions(), [], 0)
    assert again.notes == []
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(loaded.model(ids).logits, again.model(ids).logits)
    assert again.tokenizer.chat_template == loaded.tokenizer.chat_template


def test_adapters_saved_and_loaded_are_the_same_model_bit_by_bit() -> None:
    unmerged = tiny()
    unmerged.model.save_pretrained("base")
    unmerged.tokenizer.save_pretrained("base")
    live = choose_trained(load("base", ModelOptions(), [], 0).model, ModelOptions(lora=True, lora_rank=4))
    for name, parameter in live.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    live.save_pretrained("adapter")
    again, _ = open_model(Path("adapter"))
    ids = torch.tensor([[1, 2, 3, 4]])
    live.eval()
    with torch.no_grad():
        assert torch.equal(live(ids).logits, again(ids).logits)
        assert not torch.equal(live(ids).logits, unmerged.model(ids).logits)


@pytest.mark.parametrize("spec", ["missing-folder", "tiny:hidden=0", "tiny:size=3", "tiny:hidden=65"])
def test_a_model_that_cannot_be_had_is_one_clear_line(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=spec.partition(":")[0]):
        load(spec, ModelOptions(), TEXTS, 0)


def test_the_same_seed_makes_the_same_model() -> None:
    first, second, other = (make_tiny("tiny", TEXTS, seed)[0] for seed in (0, 0, 1))
    weights = [model.get_input_embeddings().weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert isinstance(first, LlamaForCausalLM)


def test_an_end_token_that_the_base_hardly_knows_is_reported() -> None:
    loaded = tiny()
    talk = [{"role": "user", "content": "What is 3 + 4?"}, {"role": "assistant", "content": "7"}]
    encoded = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), 64).answer(talk)
    subject = CheckInput(loaded, [encoded], Account(read=1))
    assert "hardly trained" not in run_checks(subject)["end"]
    loaded.model.get_input_embeddings().weight.data[loaded.tokenizer.eos_token_id] *= 0.2
    assert "<|im_end|> was hardly trained in this base" in run_checks(subject)["end"]


def test_checks_say_what_is_wrong_before_the_first_step() -> None:
    loaded = tiny()
    encoder = Encoder(loaded.tokenizer, turn_end_ids(loaded.model, loaded.tokenizer), 64)
    talk = [{"role": "user", "content": "What is 3 + 4?"}, {"role": "assistant", "content": "7"}]
    good = encoder.answer(talk)

    def failing(**changes: object) -> str:
        subject = CheckInput(loaded, [good], Account(read=1))
        with pytest.raises(CheckFailed) as failed:
            run_checks(CheckInput(**{**subject.__dict__, **changes}))
        return str(failed.value)

    assert "would never stop" in failing(sequences=[type(good)(good.ids[:-1], good.labels[:-1])])
    assert "nothing would be learned" in failing(
        sequences=[type(good)(good.ids, [-100] * (len(good.ids) - 1) + [good.ids[-1]])],
        loaded=Loaded(loaded.model.requires_grad_(False), loaded.tokenizer, []),
    )
    loaded.model.requires_grad_(True)
    assert "no embedding" in failing(sequences=[type(good)([9999, *good.ids], [-100, *good.labels])])
    assert "raise --max-length" in failing(
        sequences=[type(good)(good.ids, good.labels, True)], account=Account(1, cut=1)
    )
    loaded.tokenizer.unk_token = "<|unused|>"
    unknown = [loaded.tokenizer.unk_token_id] * len(good.ids)
    assert "does not know this text" in failing(
        sequences=[type(good)([*unknown, *good.ids], [-100] * len(unknown) + [*good.labels])]
    )
    bad = Account(read=10)
    bad.dropped["no response"] = 9
    assert "9 because: no response" in failing(account=bad)
    loaded.tokenizer.bos_token = "<|unused|>"
    two = [loaded.tokenizer.bos_token_id] * 2
    assert "two start tokens" in failing(sequences=[type(good)([*two, *good.ids], [-100, -100, *good.labels])])
