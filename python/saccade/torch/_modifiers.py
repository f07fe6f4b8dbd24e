"""FlexAttention's Python functions as modifiers."""

from __future__ import annotations

from typing import Callable, Optional, Union

import torch

from ..modifier import Modifier
from ._trace import trace_mask_mod, trace_score_mod
from ._trace_cache import trace_once

_TRACES = {"score": trace_score_mod, "mask": trace_mask_mod}


def as_modifier(kind: str, function: Union[Callable, Modifier, None], device: torch.device) -> Optional[Modifier]:
    """kind: "score" or "mask". What a function captures becomes tensors and scalars of the modifier."""
    if function is None or isinstance(function, Modifier):
        return function
    traced = trace_once(_TRACES[kind], function, device)
    return Modifier(kind, traced.text, grad_text=traced.grad_text, aux=dict(zip(traced.aux_names, traced.aux)),
                    scalars={f"scalar_{i}": value for i, value in enumerate(traced.scalars)})  # fmt: skip
