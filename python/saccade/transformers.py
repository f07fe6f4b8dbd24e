"""attn_implementation="saccade" for Hugging Face Transformers.

    import saccade.transformers
    saccade.transformers.register()
    model = AutoModel.from_pretrained(name, attn_implementation="saccade")

The mask function is registered beside the attention function: without it Transformers would hand us no mask at all, and
a model would silently lose its padding mask or its causality.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from .modifier import Modifier
from .torch._attend import attend, options
from .torch._spec import Options, Spec

NAME = "saccade"

# The mask that Transformers makes is a boolean (B, 1, Nq, Nk), True where visible.
_DENSE_MASK = ("aux_u8(visible, ((int64_t)(aux_size(visible, 0) == 1 ? 0 : b) * aux_size(visible, 2) + q_idx) * "
               "aux_size(visible, 3) + kv_idx) != 0")
# A learned bias (1 or B, 1 or H, Nq, Nk) of every score, as T5 has it.
_AT = ("(((int64_t)(aux_size(bias, 0) == 1 ? 0 : b) * aux_size(bias, 1) + (aux_size(bias, 1) == 1 ? 0 : h)) * "
       "aux_size(bias, 2) + q_idx) * aux_size(bias, 3) + kv_idx")
_READ_BIAS = {torch.float64: "aux_f64", torch.float32: "aux_f32", torch.float16: "aux_f16", torch.bfloat16: "aux_bf16"}
# What Transformers may pass that changes the result. All else it passes says again what the mask says.
_NOT_SERVED = {
    "cache": "a paged cache is not served",
    "output_attentions": "attention weights are never stored",
    "sinks": "a sink for each query is not served, only one a head",
}


def register() -> None:
    """Makes attn_implementation="saccade" known. May be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention_forward)
    # A boolean mask, or None where the causal flag or nothing says it all: what PyTorch's own attention gets.
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attention_forward(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Optional[Tensor],
    dropout: float = 0.0, scaling: Optional[float] = None, is_causal: Optional[bool] = None,
    softcap: Optional[float] = None, s_aux: Optional[Tensor] = None, position_bias: Optional[Tensor] = None,
    **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query (B, H, Nq, D), key and value (B, Hkv, Nk, D) -> (B, Nq, H, D); no attention weights."""
    if dropout:
        raise ValueError("saccade has no dropout in attention: set the model's attention_dropout to 0")
    for name, reason in _NOT_SERVED.items():
        if others.get(name) is not None and others[name] is not False:
            raise NotImplementedError(f"{name}: {reason}")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)  # as Transformers' own functions take it
    causal = is_causal and query.shape[2] > 1 and attention_mask is None
    spec = _spec(False, scaling, causal, softcap)
    out, _ = attend(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), spec, False,
        sink=None if s_aux is None else s_aux.float(),
        mask_mod=_mask_mod(attention_mask), score_mod=_score_mod(position_bias))  # fmt: skip
    return out, None


@options
def _spec(deterministic: bool, scale: Optional[float], causal: bool, softcap: Optional[float]) -> Spec:
    aligned = "top_left" if causal else None
    return Spec(Options(scale, aligned, softcap=softcap or 0.0, deterministic=deterministic))


def _score_mod(position_bias: Optional[Tensor]) -> Optional[Modifier]:
    if position_bias is None:
        return None
    text = f"score + {_READ_BIAS[position_bias.dtype]}(bias, {_AT})"
    grad_text = f"{{ aux_grad(bias, {_AT}, grad); return grad; }}"
    return Modifier("score", text, grad_text=grad_text, aux={"bias": position_bias.contiguous()})


def _mask_mod(attention_mask: Optional[Tensor]) -> Optional[Modifier]:
    if attention_mask is None:
        return None
    if attention_mask.dtype != torch.bool or attention_mask.shape[1] != 1:
        found = f"{attention_mask.dtype} {tuple(attention_mask.shape)}"
        raise ValueError(f"saccade takes boolean masks (B, 1, Nq, Nk), not {found}")
    return Modifier("mask", _DENSE_MASK, aux={"visible": attention_mask.contiguous()})
