"""Native sparse attention of a few rows, in fp64, from the definition in saccade/nsa.h: for checks at any length."""
import torch

BRANCHES = ("cmp", "slc", "win")


class Rows:
    """out and, for a dout that is zero in all other rows, the gradients. One sequence; positions (S,) of the rows."""

    def __init__(self, q, k, v, w_gate, saved, positions, block=64, window=512, query_tile=256):
        self.q, self.k, self.v, self.w_gate, self.saved = q, k, v, w_gate, saved
        self.at, self.block, self.window, self.tile = positions, block, window, query_tile
        self.scale, self.group = q.shape[3] ** -0.5, q.shape[2] // k.shape[2]

    def keys_of(self, h):
        """Of each branch: the keys' positions (S, n) that the rows of query head h visit, and which they see."""
        at, n_cmp = self.at[:, None], self.k.shape[1] // self.block
        cmp = torch.arange(n_cmp, device=at.device)[None].expand(len(at), -1)
        yield cmp, (cmp + 1) * self.block - 1 <= at
        lists = self.saved["indices"].shape[1]
        chosen = self.saved["indices"][0, h * lists // self.q.shape[2]][self.at // self.tile].long()
        slc = (chosen[:, :, None] * self.block + torch.arange(self.block, device=at.device)).flatten(1)
        yield slc.clamp(0, self.k.shape[1] - 1), (chosen >= 0).repeat_interleave(self.block, 1) & (slc <= at)
        win = at - torch.arange(self.window, device=at.device)
        yield win.clamp(min=0), win >= 0

    def means(self, x, head):
        """fp64 means of the whole blocks of one key head, rounded as they are stored."""
        n = x.shape[1] // self.block
        rows = [x[0, i * self.block:min(i + 8192, n) * self.block, head] for i in range(0, n, 8192)]
        parts = [part.double().unflatten(0, (-1, self.block)).mean(1) for part in rows]
        return torch.cat(parts).to(x.dtype).double() if parts else x.new_zeros(0, x.shape[3], dtype=torch.float64)

    def head(self, h, dout=None):
        """Of query head h: out (S, Dv); with dout (S, Dv) also dq (S, D), dw_gate (3, D), dk and dv (N, ..)."""
        kv, q = h // self.group, self.q[0, self.at, h].double()
        keys, values = self.k[0, :, kv], self.v[0, :, kv]
        k_cmp, v_cmp = self.means(self.k, kv), self.means(self.v, kv)
        gate = torch.sigmoid(q @ self.w_gate[h].double().T)
        out, dq = torch.zeros(len(q), values.shape[1], dtype=q.dtype, device=q.device), torch.zeros_like(q)
        dw = torch.zeros(3, q.shape[1], dtype=q.dtype, device=q.device)
        dk, dv = (torch.zeros(x.shape, dtype=q.dtype, device=q.device) if dout is not None else None
                  for x in (keys, values))
        for c, (index, seen) in enumerate(self.keys_of(h)):
            kk, vv = (k_cmp[index], v_cmp[index]) if c == 0 else (keys[index].double(), values[index].double())
            score = (kk @ q[:, :, None])[..., 0] * self.scale
            p = score.masked_fill(~seen, float("-inf")).softmax(1).nan_to_num(0)
            o = (p[:, None] @ vv)[:, 0]
            out += gate[:, c, None] * o
            if dout is None:
                continue
            branch_dout = gate[:, c, None] * dout
            slope = (dout * o).sum(1) * gate[:, c] * (1 - gate[:, c])
            dw[c] = slope @ q
            ds = p * ((vv @ branch_dout[:, :, None])[..., 0] - (branch_dout * o).sum(1, keepdim=True)) * self.scale
            dq += (ds[:, None] @ kk)[:, 0] + slope[:, None] * self.w_gate[h, c].double()
            self.spread(dk, c, index, ds[..., None] * q[:, None])
            self.spread(dv, c, index, p[..., None] * branch_dout[:, None])
        return out, dq, dw, dk, dv

    def spread(self, sum_, c, index, grad):
        """Adds the gradient of each visited key, or of a mean to each of its tokens."""
        if c == 0:
            total = grad.sum(0) / self.block
            sum_[:total.shape[0] * self.block] += total.repeat_interleave(self.block, 0)
        else:
            sum_.index_add_(0, index.flatten(), grad.flatten(0, 1))


def error(got, want):
    """|got - want| / |want| over a tensor; of nothing but zeroes, the largest of got."""
    got, norm = got.double(), want.norm().item()
    return (got - want).norm().item() / norm if norm else got.abs().max().item()


def choice_is_right(q, k_cmp, indices, h, tile, block=64, query_tile=256, slack=1e-5):
    """Does head h's list of this tile hold the best complete blocks by scale * mean(q) . k_cmp, with the tile's last
    block forced where it is not complete? Scores closer than `slack` of the largest may trade places."""
    end = min((tile + 1) * query_tile, q.shape[1])
    candidates, top_k = end // block, indices.shape[3]
    got = [i for i in indices[0, h, tile].tolist() if i >= 0]
    forced = [candidates] if (end - 1) // block >= candidates else []
    mean = q[0, tile * query_tile:end, h].double().mean(0) * q.shape[3] ** -0.5
    score = k_cmp[0, :candidates, h * k_cmp.shape[2] // q.shape[2]].double() @ mean
    want = score.topk(min(top_k - len(forced), candidates)).indices.tolist()
    chosen = [i for i in got if i not in forced]
    if len(chosen) != len(want) or got != sorted(set(got)) or not set(forced) <= set(got):
        return False
    return not want or score[chosen].min() >= score[want].min() - slack * score.abs().max()
