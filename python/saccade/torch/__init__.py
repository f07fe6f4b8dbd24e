"""saccade for PyTorch: the functions people already call, on CPU and CUDA tensors, with autograd and torch.compile."""

from ._backends import get_attention_backend
from ._flash import BlockSparseTensors, flash_attn_func, flash_attn_varlen_func
from ._flex import create_block_mask, flex_attention, to_torch_block_mask
from ._masks import eagle3_block_mask
from ._nsa import nsa

__all__ = [
    "BlockSparseTensors", "create_block_mask", "eagle3_block_mask", "flash_attn_func", "flash_attn_varlen_func",
    "flex_attention", "get_attention_backend", "nsa", "to_torch_block_mask",
]  # fmt: skip
