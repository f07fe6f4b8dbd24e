"""What is refused before a call: wrong inputs, and transforms that the operators have no rule for, of which torch would
drop a derivative without a word or fail in words that do not help."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def check_inputs(q: Tensor, k: Tensor, v: Tensor, packed: bool, heads_first: bool = False) -> None:
    """q, k, v are dense tensors of the rank that the call takes."""
    rank = 3 if packed else 4
    if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)
            and q.layout is k.layout is v.layout is torch.strided
            and q.dim() == k.dim() == v.dim() == rank):  # fmt: skip
        _refuse_inputs((q, k, v), "(T, H, D)" if packed else "(B, H, N, D)" if heads_first else "(B, N, H, D)")


def check_numbers(**numbers: object) -> None:
    """Options that are constants of a call: as a tensor each would lose its gradient, and might change unseen."""
    for name, number in numbers.items():
        if isinstance(number, Tensor):
            raise TypeError(f"{name}: a number is needed, not a tensor: call .item(), it has no gradient")


def _refuse_inputs(tensors: Sequence[Any], layout: str) -> None:
    for name, tensor in zip("qkv", tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: a torch.Tensor is needed, not {type(tensor).__name__}")
        if tensor.layout is not torch.strided:
            raise TypeError(f"{name}: layout is {tensor.layout}, a dense tensor is needed; sequences of several "
                            "lengths are packed, with cu_seqlens")
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
    packed = "" if "B" not in layout else ", or packed ones with cu_seqlens"
    raise ValueError(f"q, k, v: shapes are {shapes}, expected {layout}{packed}")


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
        unpack: Any = forward_ad.unpack_dual
        if any(t is not None and unpack(t).tangent is not None for t in tensors):
            raise NotImplementedError("torch.autograd.forward_ad: attention has no forward-mode derivatives")


def no_second_gradients(ctx: Any, *_: Any) -> None:
    """The backward pass of a backward operator."""
    raise NotImplementedError("attention has no second derivatives: its gradients cannot be differentiated again")
