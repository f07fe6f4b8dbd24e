"""The few calls that the GPU benchmarks make, through ctypes: no package needs to be installed."""
import ctypes as c
import os

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Device(c.Structure):
    _fields_ = [("device_type", c.c_int32), ("device_id", c.c_int32)]


class DType(c.Structure):
    _fields_ = [("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16)]


class Tensor(c.Structure):
    """DLTensor."""
    _fields_ = [("data", c.c_void_p), ("device", Device), ("ndim", c.c_int32), ("dtype", DType),
                ("shape", c.POINTER(c.c_int64)), ("strides", c.POINTER(c.c_int64)), ("byte_offset", c.c_uint64)]


class Window(c.Structure):
    _fields_ = [("enabled", c.c_bool), ("left", c.c_int32), ("right", c.c_int32), ("align", c.c_int)]


class BoundModifier(c.Structure):
    _fields_ = [("modifier", c.c_void_p), ("aux", c.c_void_p), ("scalars", c.c_void_p)]


P = c.POINTER(Tensor)


class Params(c.Structure):
    """saccade_attention_params."""
    _fields_ = [("has_scale", c.c_bool), ("scale", c.c_float), ("causal", c.c_int), ("window", Window),
                ("softcap", c.c_float), ("sink", P), ("alibi_slopes", P), ("cu_seqlens_q", P), ("cu_seqlens_k", P),
                ("seqused_q", P), ("seqused_k", P), ("max_seqlen_q", c.c_int32), ("max_seqlen_k", c.c_int32),
                ("score_mod", BoundModifier), ("mask_mod", BoundModifier), ("block_mask", c.c_void_p),
                ("dropout", c.c_float), ("deterministic", c.c_bool), ("backend", c.c_char_p),
                ("workspace", c.c_void_p), ("workspace_bytes", c.c_size_t)]


class Grads(c.Structure):
    """saccade_attention_grads."""
    _fields_ = [("dout", P), ("dlse", P), ("dq", P), ("dk", P), ("dv", P), ("dsink", P), ("daux", c.c_void_p)]


class NsaParams(c.Structure):
    """saccade_nsa_params."""
    _fields_ = [("has_scale", c.c_bool), ("scale", c.c_float), ("block", c.c_int32), ("top_k", c.c_int32),
                ("window", c.c_int32), ("query_tile", c.c_int32), ("score", c.c_int), ("select_per", c.c_int),
                ("visibility", c.c_int), ("initial_blocks", c.c_int32), ("local_blocks", c.c_int32),
                ("compressed_top_k", c.c_int32), ("cu_seqlens", P), ("max_seqlen", c.c_int32),
                ("deterministic", c.c_bool), ("backend", c.c_char_p), ("workspace", c.c_void_p),
                ("workspace_bytes", c.c_size_t)]


class NsaTensors(c.Structure):
    """saccade_nsa_tensors."""
    _fields_ = [(name, P) for name in ("q", "k", "v", "w_k", "w_v", "w_gate", "gates", "k_cmp", "v_cmp", "indices",
                                       "lse_cmp", "lse_slc", "lse_win", "out_cmp", "out_slc", "out_win")]


class NsaGrads(c.Structure):
    """saccade_nsa_grads."""
    _fields_ = [(name, P) for name in ("dout", "dq", "dk", "dv", "dw_k", "dw_v", "dw_gate", "dgates")]


class ContextParams(c.Structure):
    _fields_ = [("num_threads", c.c_int32), ("isa", c.c_char_p), ("cache_dir", c.c_char_p),
                ("compiler", c.c_char_p), ("stream", c.c_void_p), ("allocator", c.c_void_p * 3)]


class MaskShape(c.Structure):
    """saccade_mask_shape."""
    _fields_ = [(name, c.c_int32) for name in ("batch", "num_heads", "q_len", "kv_len", "q_block", "kv_block")]


class ModifierParams(c.Structure):
    """saccade_modifier_params."""
    _fields_ = [("kind", c.c_int), ("name", c.c_char_p), ("text", c.c_char_p), ("grad_text", c.c_char_p),
                ("native", c.c_void_p), ("native_grad", c.c_void_p), ("num_aux", c.c_int32), ("aux", c.c_void_p),
                ("num_scalars", c.c_int32), ("scalars", c.c_void_p)]


DTYPES = {torch.float32: (2, 32), torch.float16: (2, 16), torch.bfloat16: (4, 16), torch.int32: (0, 32)}


def tensor(t):
    """A DLTensor of a torch tensor, which must outlive it."""
    if t is None:
        return None
    code, bits = DTYPES[t.dtype]
    n = t.dim()
    return c.pointer(Tensor(t.data_ptr(), Device(2, t.device.index or 0), n, DType(code, bits, 1),
                            (c.c_int64 * n)(*t.shape), (c.c_int64 * n)(*t.stride()), 0))


class Saccade:
    def __init__(self, path=None):
        self.lib = c.CDLL(path or os.path.join(ROOT, "build", "libsaccade.so"))
        self.lib.saccade_last_error.restype = c.c_char_p
        self.ctx = c.c_void_p()
        stream = torch.cuda.current_stream().cuda_stream
        self.check(self.lib.saccade_context_create(c.byref(self.ctx), c.byref(ContextParams(stream=stream))))

    def check(self, status):
        if status:
            raise RuntimeError(self.lib.saccade_last_error().decode())

    def block_mask(self, kind, shape, *args):
        """saccade_block_mask_<kind>, which lives as long as the process."""
        mask = c.c_void_p()
        build = getattr(self.lib, "saccade_block_mask_" + kind)
        self.check(build(self.ctx, c.byref(mask), c.byref(shape), *args))
        return mask

    def modifier(self, kind, text):
        """A score_mod (kind 1) or mask_mod (kind 2) of a text, which lives as long as the process."""
        modifier = c.c_void_p()
        params = ModifierParams(kind=kind, text=text.encode())
        self.check(self.lib.saccade_modifier_create(self.ctx, c.byref(modifier), c.byref(params)))
        return modifier

    def attention(self, q, k, v, training=True, **options):
        """Two functions without arguments, forward and backward, over tensors made once, and those tensors. Without
        training the backend need not serve the backward."""
        params = Params(**options)
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        rows = (q.shape[0], q.shape[2], q.shape[1]) if q.dim() == 4 else (q.shape[1], q.shape[0])
        lse = torch.empty(rows, dtype=torch.float32, device=q.device)
        dout = torch.randn_like(out)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        results = dict(out=out, lse=lse, dout=dout, dq=dq, dk=dk, dv=dv)
        t = {name: tensor(x) for name, x in dict(results, q=q, k=k, v=v).items()}
        grads = Grads(dout=t["dout"], dq=t["dq"], dk=t["dk"], dv=t["dv"])
        bytes_ = c.c_size_t()
        need = 0
        for g in (None, c.byref(grads))[:1 + training]:
            self.check(self.lib.saccade_attention_workspace(self.ctx, t["q"], t["k"], t["v"], g, c.byref(params),
                                                            c.byref(bytes_)))
            need = max(need, bytes_.value)
        workspace = torch.empty(max(need, 256), dtype=torch.uint8, device=q.device)
        params.workspace, params.workspace_bytes = workspace.data_ptr(), need
        keep = (workspace, results, t, q, k, v)  # either function alone keeps them alive

        def forward():
            self.check(self.lib.saccade_attention_forward(self.ctx, t["q"], t["k"], t["v"], t["out"], t["lse"],
                                                          c.byref(params)))
            return keep and out

        def backward():
            self.check(self.lib.saccade_attention_backward(self.ctx, t["q"], t["k"], t["v"], t["out"], t["lse"],
                                                           c.byref(grads), c.byref(params)))
            return keep and dq

        return forward, backward, results

    def nsa(self, q, k, v, w_gate=None, dout=None, save=True, training=True, keep_outputs=False, **options):
        """Forward and backward without arguments, over tensors made once; those tensors, and the bytes of workspace.
        Without training there are no gradients, and without save nothing is kept for them; with keep_outputs also the
        branches' outputs, which the backward then does not make again."""
        params = NsaParams(**options)
        block, tile, top_k = (options.get(name) or default
                              for name, default in (("block", 64), ("query_tile", 256), ("top_k", 16)))
        b, n, h, _ = q.shape
        lists = k.shape[2] if options.get("select_per", 2 if tile == 1 else 1) == 2 else h
        new = dict(dtype=q.dtype, device=q.device)
        r = dict(out=torch.empty(b, n, h, v.shape[3], **new))
        if save:
            r |= dict(k_cmp=torch.empty(b, n // block, *k.shape[2:], **new),
                      v_cmp=torch.empty(b, n // block, *v.shape[2:], **new),
                      indices=torch.empty(b, lists, -(-n // tile), top_k, dtype=torch.int32, device=q.device))
            r |= {f"lse_{branch}": torch.empty(b, h, n, dtype=torch.float32, device=q.device)
                  for branch in ("cmp", "slc", "win")}
        if keep_outputs:
            r |= {f"out_{branch}": torch.empty_like(r["out"]) for branch in ("cmp", "slc", "win")}
        if training:
            r |= dict(dout=torch.randn_like(r["out"]) if dout is None else dout, dq=torch.empty_like(q),
                      dk=torch.empty_like(k), dv=torch.empty_like(v))
            if w_gate is not None:
                r["dw_gate"] = torch.empty(w_gate.shape, dtype=torch.float32, device=q.device)
        t = {name: tensor(x) for name, x in dict(r, q=q, k=k, v=v, w_gate=w_gate).items()}
        tensors = NsaTensors(**{name: t.get(name) for name, _ in NsaTensors._fields_})
        grads = NsaGrads(**{name: t.get(name) for name, _ in NsaGrads._fields_})
        bytes_, need = c.c_size_t(), 0
        for g in (None, c.byref(grads))[:1 + training]:
            self.check(self.lib.saccade_nsa_workspace(self.ctx, c.byref(tensors), g, c.byref(params), c.byref(bytes_)))
            need = max(need, bytes_.value)
        workspace = torch.empty(max(need, 256), dtype=torch.uint8, device=q.device)
        params.workspace, params.workspace_bytes = workspace.data_ptr(), need
        keep = (workspace, r, t, q, k, v, w_gate)  # either function alone keeps them alive

        def forward():
            self.check(self.lib.saccade_nsa_forward(self.ctx, c.byref(tensors), t["out"], c.byref(params)))
            return keep and r["out"]

        def backward():
            self.check(self.lib.saccade_nsa_backward(self.ctx, c.byref(tensors), c.byref(grads), c.byref(params)))
            return keep and r["dq"]

        return forward, backward, r, need

    def set_stream(self, stream):
        self.check(self.lib.saccade_context_set_stream(self.ctx, c.c_void_p(stream.cuda_stream)))
