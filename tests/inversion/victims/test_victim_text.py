"""BERT and GPT-2 as victims: ids and embeddings, what they attend to, local folders."""

import pytest
import torch
from victim_cases import TEXT, victim

from attacks.inversion.batch import Batch
from attacks.inversion.victims import embedding_name, load_victim
from secagg.errors import Code, ConfigError

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
LABELS = torch.tensor([0, 2])


def refused(code: Code, name: str, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_victim(name, **{"shape": (6,), "seed": 0, **settings})
    assert caught.value.code is code and "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "vocabulary", "size"),
    [
        # BERT-Tiny's 4,385,920 and a classifier of 2·128 + 2
        ("bert", 30_522, 4_385_920 + 258),
        # word and position embeddings, two layers of 12w² + 13w, the last norm, a classifier without bias
        ("gpt2", 50_257, (50_257 + 512) * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128 + 2 * 128),
    ],
)
def test_random_ones_have_the_real_vocabulary(name, vocabulary, size):
    found = load_victim(name, shape=(16,), seed=0, dtype=torch.float32)
    assert (found.vocabulary, found.size, found.classes) == (vocabulary, size, 2)
    (spec,) = (s for s in found.manifest.tensors if s.name == embedding_name(found))
    assert spec.shape == (vocabulary, 128)


@pytest.mark.parametrize("name", TEXT)
def test_embeddings_in_place_of_ids_give_the_same_logits(name):
    """Attackers optimise embeddings: position and segment embeddings are still added by the network."""
    found = victim(name)
    flat = found.parameters()
    by_id = found.outputs(flat, TOKENS)
    assert by_id.shape == (2, 3)
    embedded = found.named(flat)[embedding_name(found)][TOKENS]
    torch.testing.assert_close(found.outputs(flat, embedded), by_id, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TEXT)
def test_the_embedding_gradient_has_rows_of_the_tokens_only(name):
    """∂L/∂E is 0 outside the rows of words in the batch: what embedding-row attacks read."""
    found = victim(name)
    gradient = found.gradient(found.parameters(), TOKENS, LABELS)
    rows = found.named(gradient)[embedding_name(found)].norm(dim=1)
    assert rows.nonzero().flatten().tolist() == TOKENS.unique().tolist()


@pytest.mark.parametrize("name", TEXT)
def test_every_token_and_its_place_matter(name):
    """No dropout, no padding mask: logits are the same twice and change with every word and with order."""
    found = victim(name)
    outputs = found.outputs(found.parameters(), TOKENS[:1])
    assert torch.equal(outputs, found.outputs(found.parameters(), TOKENS[:1]))
    for place in range(TOKENS.shape[1]):
        other = TOKENS[:1].clone()
        other[0, place] = 20
        assert not torch.allclose(found.outputs(found.parameters(), other), outputs, rtol=1e-9), place
    assert not torch.allclose(found.outputs(found.parameters(), TOKENS[:1].flip(1)), outputs, rtol=1e-9)


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(ConfigError, match="tokens lie outside"):
        victim("bert").check(Batch(inputs=TOKENS + 45, labels=LABELS))


@pytest.mark.parametrize("name", TEXT)
def test_a_local_folder_gives_its_own_weights(name, tmp_path):
    """What transformers saved is loaded with its classifier, whatever the seed."""
    import transformers

    kind, settings = {
        "bert": (
            transformers.BertForSequenceClassification,
            transformers.BertConfig(
                vocab_size=40,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                max_position_embeddings=12,
            ),
        ),
        "gpt2": (
            transformers.GPT2ForSequenceClassification,
            transformers.GPT2Config(
                vocab_size=40,
                n_embd=8,
                n_layer=1,
                n_head=2,
                n_positions=12,
                bos_token_id=0,
                eos_token_id=0,
                pad_token_id=0,
            ),
        ),
    }[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        saved = kind(settings).eval()
    saved.save_pretrained(tmp_path)
    found, again = (load_victim(f"{name}:{tmp_path}", shape=(6,), seed=seed) for seed in (0, 1))
    assert found.vocabulary == 40 and torch.equal(found.parameters(), again.parameters())
    with torch.no_grad():
        expected = saved.double()(input_ids=TOKENS).logits
    torch.testing.assert_close(found.outputs(found.parameters(), TOKENS), expected, rtol=1e-9, atol=1e-12)
    assert "at most 12" in refused(Code.CONFIG_INVALID, f"{name}:{tmp_path}", shape=(13,))
    other = {"bert": "gpt2", "gpt2": "bert"}[name]
    assert f"holds a {name}" in refused(Code.DATA_MALFORMED, f"{other}:{tmp_path}")


def test_folders_without_a_model_are_refused(tmp_path):
    """A missing folder is never looked up elsewhere."""
    assert "config.json" in refused(Code.DATA_MISSING, f"bert:{tmp_path / 'none'}")
    (tmp_path / "config.json").write_text("{")
    refused(Code.DATA_MALFORMED, f"bert:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1}')
    refused(Code.DATA_MALFORMED, f"gpt2:{tmp_path}")


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("shape", [(1, 8, 8), (0,), (513,), ()])
def test_shapes_that_are_no_text_are_refused(name, shape):
    assert str(shape) in refused(Code.CONFIG_INVALID, name, shape=shape)


def test_victims_of_images_have_no_embedding():
    with pytest.raises(ConfigError, match="takes no text"):
        embedding_name(victim("mlp"))
