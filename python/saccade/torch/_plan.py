"""What stays the same from call to call: the C structs of an attention call, all but the addresses in them.

Filling them in takes longer than a small attention. So each thread keeps them by the constants of the call and the
geometry (shape, strides, dtype, device) of its tensors, and a call only writes where each tensor lies this time.
"""

from __future__ import annotations

import threading
from typing import Callable, Optional, Sequence

from torch import Tensor

from .._library import check, ffi
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ._device import context_on

MOST_PLANS = 1024
Tensors = Sequence[Optional[Tensor]]


class _ThreadsPlans(threading.local):
    def __init__(self):
        self.by_key: dict = {}


_plans = _ThreadsPlans()


class Plan:
    """arguments: what the library's function takes after the context. described: every tensor of the call, in order.
    params: the saccade_attention_params among the arguments. kept: what all of these point to. note: what to add to an
    error's text."""

    def __init__(self, function: Callable, arguments: tuple, described: list[CTensor], params, kept, note: str = ""):
        self._function, self._arguments, self._params, self._kept = function, arguments, params, kept
        self._note = note
        self._mask_number = 0  # of the mask that the params point to, which may be gone meanwhile
        self._addresses = [(i, t.address) for i, t in enumerate(described) if t.address]

    def run(self, device: int, tensors: Tensors, mask: Optional[BlockMask]) -> None:
        """device: the number of a GPU, or -1."""
        for i, address in self._addresses:
            address[0] = tensors[i].data_ptr()
        number = mask.number if mask else 0
        if number != self._mask_number:
            self._mask_number, self._params.block_mask = number, mask.pointer if mask else ffi.NULL
        check(self._function(context_on(device), *self._arguments), self._note)


def plan_of(make: Callable[..., Plan], inputs: Tensors, outputs: Tensors, constants: tuple) -> Plan:
    """This thread's plan for a call: make(inputs, outputs, *constants), or one made earlier from the like of them.
    outputs: tensors whose geometry follows from the rest."""
    key = (make, constants, *[t if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in inputs])
    plans = _plans.by_key
    plan = plans.get(key)
    if plan is None:
        if len(plans) >= MOST_PLANS:
            plans.clear()
        plan = plans[key] = make(inputs, outputs, *constants)
    return plan
