"""What stays the same from call to call: the C structs of an attention call, all but the addresses in them.

Filling them in takes longer than a small attention. So each thread keeps them by the constants of the call and the
geometry (shape, strides, dtype, device) of its tensors, and a call only writes where each tensor lies this time.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Optional, Sequence

from torch import Tensor

from .._library import CData, ffi
from .._tensor import Tensor as CTensor
from ..block_mask import BlockMask
from ._device import check_call, context_on

MOST_PLANS = 1024
Shape = tuple[int, ...]


class _ThreadsPlans(threading.local):
    def __init__(self) -> None:
        self.by_key: dict[Any, Plan] = {}
        self.latest: dict[Any, tuple[Any, Plan]] = {}  # by what made it: the latest one's key, and it


_plans = _ThreadsPlans()
_NONE = None, None


class Plan:
    """arguments: what the library's function takes after the context. described: every tensor of the call that there
    is, in order. params: the saccade_attention_params among the arguments. kept: what all of these point to. shapes: of
    the outputs, as the caller allocates them. note: what to add to an error's text."""

    def __init__(self, function: CData, arguments: tuple[CData, ...], described: list[CTensor], params: CData,
                 kept: object, shapes: tuple[Optional[Shape], ...] = (), note: str = "") -> None:
        self._function, self._arguments, self._params, self._kept = function, arguments, params, kept
        self._note = note
        self._mask_number = 0  # of the mask that the params point to, which may be gone meanwhile
        self._addresses = [t.address for t in described]
        self.shapes = shapes

    def run(self, device: int, tensors: Sequence[Any], mask: Optional[BlockMask]) -> None:
        """device: the number of a GPU, or -1. tensors: in the order of `described`; more are not looked at."""
        for address, tensor in zip(self._addresses, tensors):
            address[0] = tensor.data_ptr()
        number = mask.number if mask else 0
        if number != self._mask_number:
            self._mask_number, self._params.block_mask = number, mask.pointer if mask else ffi.NULL
        status = self._function(context_on(device), *self._arguments)
        if status:
            check_call(status, self._note)


def plan_of(make: Callable[..., Plan], q: Tensor, k: Tensor, v: Tensor, others: Sequence[Tensor], num_scalars: int,
            constants: tuple[Any, ...]) -> Plan:
    """This thread's plan for a call: make(q, k, v, others, *constants), or one made earlier from the like of them. The
    last num_scalars of others are alike wherever the constants are the same."""
    key: tuple[Any, ...] = (
        constants, q.shape, q.stride(), q.dtype, q.device, k.shape, k.stride(), k.dtype, k.device,
        v.shape, v.stride(), v.dtype, v.device)  # fmt: skip
    if len(others) > num_scalars:
        tensors = others[:-num_scalars] if num_scalars else others
        key += tuple([(t.shape, t.stride(), t.dtype, t.device) for t in tensors])
    latest_key, plan = _plans.latest.get(make, _NONE)
    if plan and key == latest_key:  # one layer calls as another did; and this takes no hash
        return plan
    plans = _plans.by_key
    plan = plans.get((make, key))
    if plan is None:
        if len(plans) >= MOST_PLANS:
            plans.clear()
        plan = plans[make, key] = make(q, k, v, others, *constants)
    _plans.latest[make] = key, plan
    return plan
