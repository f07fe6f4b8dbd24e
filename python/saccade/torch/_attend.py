"""The one way from this package's functions to the operator."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from ..block_mask import BlockMask
from ..modifier import Modifier
from ._device import autocast
from ._ops import attention, spec_text


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: Optional[float] = None, causal: Optional[str] = None,
    window: Optional[tuple[int, int]] = None, sink: Optional[Tensor] = None, softcap: float = 0.0,
    deterministic: bool = False, score_mod: Optional[Modifier] = None, mask_mod: Optional[Modifier] = None,
    block_mask: Optional[BlockMask] = None, backend: Optional[str] = None, max_seqlens: tuple[int, int] = (0, 0),
    **tensors: Optional[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """out and lse of q (B, Nq, H, D), k, v, or of packed ones. window is aligned to the bottom right corner.

    Honours torch.autocast, and torch.use_deterministic_algorithms like deterministic=True.
    """
    q, k, v = autocast(q, k, v)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    others = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for kind, modifier in (("score", score_mod), ("mask", mask_mod)):
        if modifier and modifier.scalars:
            others[f"{kind}_scalars"] = torch.tensor(list(modifier.scalars.values()), dtype=torch.float32)
    if mask_mod:
        others.update({f"mask_aux.{name}": tensor for name, tensor in mask_mod.aux.items()})
    spec = spec_text(
        scale=None if scale is None else float(scale).hex(), causal=causal, window=window,
        window_align="bottom_right", softcap=float(softcap).hex(),
        score_text=score_mod.text if score_mod else "", score_grad_text=score_mod.grad_text if score_mod else "",
        score_aux=tuple(score_mod.aux) if score_mod else (), mask_text=mask_mod.text if mask_mod else "",
        mask_aux=tuple(mask_mod.aux) if mask_mod else (), others=tuple(others), deterministic=deterministic,
        backend=backend)  # fmt: skip
    score_aux = list(score_mod.aux.values()) if score_mod else []
    return attention(q, k, v, sink, score_aux, list(others.values()), spec, max_seqlens,
                     block_mask.number if block_mask else 0)
