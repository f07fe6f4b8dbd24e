"""Transforms that the operators have no rule for are refused by name: torch would drop a derivative without a word, or
fail in words that do not help."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_transforms(*tensors: Optional[Tensor]) -> None:
    """torch.func's transforms, and forward-mode derivatives of these tensors."""
    if torch._C._are_functorch_transforms_active():
        for transform in torch._C._functorch.get_interpreter_stack() or ():
            name = transform.key().name
            if name != "Functionalize":  # torch.compile's own
                raise NotImplementedError(
                    f"torch.func: attention has no rule for its {name.lower()} transform; torch.autograd and "
                    "torch.compile work")
    if forward_ad._current_level >= 0:
        if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            raise NotImplementedError("torch.autograd.forward_ad: attention has no forward-mode derivatives")


def no_second_gradients(ctx, *_):
    """The backward pass of a backward operator."""
    raise NotImplementedError("attention has no second derivatives: its gradients cannot be differentiated again")
