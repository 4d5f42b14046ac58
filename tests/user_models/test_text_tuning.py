"""Tuning a text encoder: what a draw holds, the loss by hand, learning, resuming, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast, T5Config, T5Model

from recgym.errors import RecGymError, WorldError
from recgym.user_models.preference.config import TuningConfig
from recgym.user_models.preference.loop import DivergedError
from recgym.user_models.preference.text import TextEncoder, encode_texts
from recgym.user_models.preference.text_tuning import Draw, NextTexts, next_text_loss, tuned_encoder
from recgym.user_models.preference.trips import Trips

KINDS = ("food", "bowl", "collar", "toy", "bed", "lead")
TEXTS = [f"{animal} {kind}" for animal in ("dog", "cat") for kind in KINDS]
QUICK = TuningConfig(method="lora", steps=40, batch=8, buyers=4, history=6, learning_rate=5e-3, checkpoint_steps=10)


def save_model(directory: Path, kind: str) -> str:
    """A tiny model with random weights and a tokenizer of the words above."""
    words = ["[PAD]", "[UNK]", "dog", "cat", *KINDS]
    inner = Tokenizer(models.WordLevel({word: code for code, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "gpt2":  # decoders have no token for padding
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", eos_token="[PAD]")
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")
    size = len(words)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any
        if kind == "bert":
            model = BertModel(
                BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                           intermediate_size=32, max_position_embeddings=64)
            )  # fmt: skip
        elif kind == "gpt2":
            model = GPT2Model(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=64))
        else:
            model = T5Model(T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                                     decoder_start_token_id=0))  # fmt: skip
    model.save_pretrained(directory / kind)
    tokenizer.save_pretrained(directory / kind)
    return str(directory / kind)


def shop(users: int = 24) -> Trips:
    """Half of the users buy for dogs and half for cats: six trips with one new item each, and two held out."""
    rng = np.random.default_rng(0)
    items = np.concatenate([rng.permutation(6)[[*range(6), 0, 1]] + 6 * (user % 2) for user in range(users)])
    count = len(items)
    return Trips(
        item=items,
        feedback=np.ones(count, np.int64),
        trip=np.arange(count),
        trip_user=np.repeat(np.arange(users), 8),
        trip_day=np.tile(np.arange(8), users),
        num_users=users,
        num_items=12,
    )


def test_a_draw_holds_first_purchases_of_training_and_what_was_bought_before_them() -> None:
    trips = shop()
    pairs = NextTexts.of(trips, np.arange(12), 12, history=3)
    assert len(pairs.text) == 24 * 5  # six training trips a user, the first of which has no history
    draw = pairs.draw(QUICK, np.random.default_rng(1))
    assert draw.histories.shape == (32, 3)
    seen = {tuple(trips.item[user * 8 : user * 8 + 6]) for user in range(24)}
    for query in range(32):
        history = [item for item in draw.histories[query] if item >= 0][::-1]
        path = [*history, draw.texts[draw.label[query]]]
        assert any(list(own[start : start + len(path)]) == path for own in seen for start in range(6))
        assert draw.bought[query, draw.label[query]]
        assert any(
            set(own) & set(draw.texts) == set(draw.texts[draw.bought[query]]) and path[-1] in own for own in seen
        )


def test_items_with_one_text_are_one() -> None:
    row = np.repeat(np.arange(6), 2)
    pairs = NextTexts.of(shop(), row, 6, history=3)
    assert pairs.text.max() < 6
    keys = pairs.user * 6 + pairs.text
    assert len(np.unique(keys)) == len(keys)


def test_the_loss_is_a_corrected_cross_entropy_without_false_negatives() -> None:
    embeddings = torch.eye(3)
    queries = torch.tensor([[1.0, 0.0, 0.0]])
    log_chance = np.log([0.5, 0.25, 0.125])
    draw = Draw(np.arange(3), np.array([0]), np.zeros((1, 1), np.int64), np.array([[True, False, True]]), log_chance)
    loss = next_text_loss(queries, embeddings, draw, temperature=0.5)
    own, other = np.exp(2.0) / 0.5, 1 / 0.25
    assert float(loss) == pytest.approx(-np.log(own / (own + other)), abs=1e-6)


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "mean"), ("gpt2", "mean"), ("gpt2", "last")])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_tuning_learns_who_buys_what(recgym_home: Path, tmp_path: Path, kind: str, pooling: Any, method: Any) -> None:
    encoder = save_model(tmp_path, kind)
    tuning = QUICK.model_copy(update={"method": method, "full_learning_rate": 5e-3})
    frozen = encode_texts(TEXTS, encoder, pooling=pooling)
    out = tuned_encoder(TEXTS, shop(), encoder, tuning, 0, tmp_path / "work", pooling=pooling)
    losses = json.loads((tmp_path / "work" / "checkpoint" / "state.json").read_text(encoding="utf-8"))["losses"]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    tuned = encode_texts(TEXTS, out, pooling=pooling)
    assert not torch.allclose(tuned, frozen, atol=1e-2)  # the cache knows them apart


def test_an_interrupted_tuning_goes_on_to_the_same_weights(recgym_home: Path, tmp_path: Path) -> None:
    encoder, shares = save_model(tmp_path, "bert"), []

    def stop(what: str, share: float) -> None:
        shares.append(share)
        if share > 0.6:
            raise KeyboardInterrupt

    whole = tuned_encoder(TEXTS, shop(), encoder, QUICK, 0, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tuned_encoder(TEXTS, shop(), encoder, QUICK, 0, tmp_path / "part", progress=stop)
    part = tuned_encoder(
        TEXTS, shop(), encoder, QUICK, 0, tmp_path / "part", progress=lambda what, share: shares.append(share)
    )
    assert shares[25] == pytest.approx(21 / 40)  # from the checkpoint after step 20, and not from the beginning
    assert torch.equal(encode_texts(TEXTS, whole), encode_texts(TEXTS, part))
    other = tuned_encoder(TEXTS, shop(), encoder, QUICK, 1, tmp_path / "other")
    assert not torch.equal(encode_texts(TEXTS, whole), encode_texts(TEXTS, other))


def test_a_tuned_encoder_is_not_taken_for_that_of_another_tuning(recgym_home: Path, tmp_path: Path) -> None:
    encoder, quick = save_model(tmp_path, "bert"), QUICK.model_copy(update={"steps": 2})
    out = tuned_encoder(TEXTS, shop(), encoder, quick, 0, tmp_path / "work")
    assert tuned_encoder(TEXTS, shop(), encoder, quick, 0, tmp_path / "work") == out
    with pytest.raises(RecGymError, match=r"work/checkpoint is of another training \(seed 0 there, 1 here\)"):
        tuned_encoder(TEXTS, shop(), encoder, quick, 1, tmp_path / "work")
    with pytest.raises(RecGymError, match="texts"):
        tuned_encoder([*TEXTS[1:], TEXTS[0]], shop(), encoder, quick, 0, tmp_path / "work")


def test_another_tokenizer_encodes_anew(recgym_home: Path, tmp_path: Path) -> None:
    encoder = save_model(tmp_path, "bert")
    before = encode_texts(TEXTS, encoder)
    file = Path(encoder) / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    words = told["model"]["vocab"]
    words["dog"], words["cat"] = words["cat"], words["dog"]
    file.write_text(json.dumps(told), encoding="utf-8")
    torch.testing.assert_close(encode_texts(TEXTS, encoder), before.roll(len(KINDS), 0))


def test_texts_are_kept_apart_in_the_cache(recgym_home: Path, tmp_path: Path) -> None:
    encoder = save_model(tmp_path, "bert")
    assert len(encode_texts(["dog\0cat"], encoder)) == 1
    assert len(encode_texts(["dog", "cat"], encoder)) == 2


def test_held_out_trips_are_not_read(recgym_home: Path, tmp_path: Path) -> None:
    encoder, trips = save_model(tmp_path, "bert"), shop()
    item = trips.item.copy()
    item[trips.trip_user_remaining[trips.trip] < 2] = 0
    changed = Trips(item, trips.feedback, trips.trip, trips.trip_user, trips.trip_day, trips.num_users, trips.num_items)
    quick = QUICK.model_copy(update={"steps": 5})
    first = tuned_encoder(TEXTS, trips, encoder, quick, 0, tmp_path / "a")
    second = tuned_encoder(TEXTS, changed, encoder, quick, 0, tmp_path / "b")
    assert torch.equal(encode_texts(TEXTS, first), encode_texts(TEXTS, second))


def test_frozen_stays_what_it_is(tmp_path: Path) -> None:
    assert tuned_encoder(TEXTS, shop(), "any", TuningConfig(), 0, tmp_path / "nothing") == "any"
    assert not (tmp_path / "nothing").exists()


def test_a_loss_that_is_not_finite_names_the_step_and_the_checkpoint(recgym_home: Path, tmp_path: Path) -> None:
    encoder = save_model(tmp_path, "bert")
    wild = QUICK.model_copy(update={"method": "full", "full_learning_rate": 1e38, "learning_rate": 1e38})
    with pytest.raises(DivergedError, match=r"step \d+ of tuning the text encoder.*checkpoint"):
        tuned_encoder(TEXTS, shop(), encoder, wild, 0, tmp_path / "work")


def test_texts_are_encoded_once_and_found_again_by_their_content(
    recgym_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, seen = save_model(tmp_path, "bert"), []
    plain = TextEncoder.__call__

    def counted(self: TextEncoder, texts: Any) -> torch.Tensor:
        seen.extend(texts)
        return plain(self, texts)

    monkeypatch.setattr(TextEncoder, "__call__", counted)
    first = encode_texts(["dog bed", "cat toy", "dog bed"], encoder)
    assert sorted(seen) == ["cat toy", "dog bed"]
    assert torch.equal(first[0], first[2])
    assert torch.equal(encode_texts(["dog bed", "cat toy", "dog bed"], encoder), first)
    assert len(seen) == 2  # nothing new was encoded
    encode_texts(["dog bed", "cat toys", "dog bed"], encoder)
    encode_texts(["dog bed", "cat toy", "dog bed"], encoder, pooling="last")
    assert len(seen) == 6
    assert len(list((recgym_home / "cache" / "text").glob("*.safetensors"))) == 3
    assert not encode_texts(["", " "], str(tmp_path / "nowhere")).any()  # no text, no encoder


def test_bad_input_is_named(recgym_home: Path, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="nowhere"):
        TextEncoder.load(str(tmp_path / "nowhere"))
    with pytest.raises(WorldError, match="encoder with a decoder"):
        TextEncoder.load(save_model(tmp_path, "t5"))
    trips = shop()
    with pytest.raises(WorldError, match="nobody's second training trip"):
        NextTexts.of(trips.select(trips.trip_user_remaining < 3), np.arange(12), 12, 3)
