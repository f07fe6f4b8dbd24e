"""The one way from this package's functions to the operator."""

from __future__ import annotations

from typing import Callable, Optional, Union

import torch
from torch import Tensor

from ..block_mask import BlockMask
from ..modifier import Modifier
from ._device import autocast
from ._modifiers import as_modifier
from ._ops import Spec, attention

Mod = Union[Modifier, Callable, None]


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: Optional[float] = None, causal: Optional[str] = None,
    window: Optional[tuple[int, int]] = None, sink: Optional[Tensor] = None, softcap: float = 0.0,
    deterministic: bool = False, score_mod: Mod = None, mask_mod: Mod = None,
    block_mask: Optional[BlockMask] = None, backend: Optional[str] = None, max_seqlens: tuple[int, int] = (0, 0),
    with_lse: bool = False, **tensors: Optional[Tensor],
) -> tuple[Tensor, Optional[Tensor]]:  # fmt: skip
    """out and, if wanted, lse of q (B, Nq, H, D), k, v, or of packed ones. window is aligned to the bottom right.

    Honours torch.autocast, and torch.use_deterministic_algorithms like deterministic=True.
    """
    q, k, v = autocast(q, k, v)
    score_mod, mask_mod = as_modifier("score", score_mod, q.device), as_modifier("mask", mask_mod, q.device)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    others = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for kind, modifier in (("score", score_mod), ("mask", mask_mod)):
        if modifier and modifier.scalars:
            others[f"{kind}_scalars"] = torch.tensor(list(modifier.scalars.values()), dtype=torch.float32)
    if mask_mod:
        others.update({f"mask_aux.{name}": tensor for name, tensor in mask_mod.aux.items()})
    spec = Spec(
        scale, causal, window, "bottom_right", softcap,
        *((score_mod.text, score_mod.grad_text, tuple(score_mod.aux)) if score_mod else ("", "", ())),
        *((mask_mod.text, tuple(mask_mod.aux)) if mask_mod else ("", ())),
        tuple(others), deterministic, backend)  # fmt: skip
    score_aux = list(score_mod.aux.values()) if score_mod else []
    return attention(q, k, v, sink, score_aux, list(others.values()), spec, max_seqlens, block_mask, with_lse)
