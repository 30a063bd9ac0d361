"""torch_train.py - a job of recipe clm (gpt2, windows) trained again in PyTorch.

    torch_train.py SPEC DATASET INIT LOSSES [TOLERANCE]

SPEC: the job as JSON, with its params; DATASET: folder of token shards, parts train and valid;
INIT: folder with config.json and the weights to start from; LOSSES: lines "step loss [val_loss]" of
Athanor's run. Shares no code with the engine: shards, the order of windows, AdamW and the schedule
are written here from their descriptions (shard.h, sampler.h, optim.h), in float32. The order of
batches, the weights and every setting are the same, so the losses must agree step by step until
rounding has grown: with TOLERANCE each may differ by as much (relative), without it only the last
val_loss counts, as bits per byte, within 1 %. Ends with 77 where python3-torch is absent."""
import json
import math
import os
import struct
import sys

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit(77)

MASK = (1 << 64) - 1


def mix(x):
    """splitmix64's step (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def item_at(seed, count, position):
    """The window at a position of the endless shuffled stream: six Feistel rounds, walking."""
    key, i = mix(seed ^ mix(position // count)), position % count
    half = 1
    while half < 32 and 1 << (2 * half) < count:
        half += 1
    low = (1 << half) - 1
    while True:
        left, right = i >> half, i & low
        for number in range(6):
            left, right = right, left ^ (mix(key ^ mix((number << 56) ^ right)) & low)
        i = left << half | right
        if i < count:
            return i


class Part:
    """A part of a dataset as windows of T+1 tokens, T apart, over each shard."""

    def __init__(self, folder, name, T):
        with open(os.path.join(folder, "dataset.json")) as file:
            part = json.load(file)["parts"][name]
        self.byte_count, self.T, self.windows = part["bytes"], T, []
        for shard in part["shards"]:
            with open(os.path.join(folder, shard), "rb") as file:
                data = file.read()
            assert data[:4] == b"ATHS"
            token_bytes, count = struct.unpack_from("<I", data, 8)[0], struct.unpack_from("<Q", data, 16)[0]
            tokens = numpy.frombuffer(data, "<u2" if token_bytes == 2 else "<u4", count, 4096)
            tokens = tokens.astype(numpy.int64)
            self.windows += [tokens[at:at + T + 1] for at in range(0, count - 1, T)]

    def batch(self, items):
        token = torch.zeros(len(items), self.T, dtype=torch.long)
        target = torch.full((len(items), self.T), -1)
        for row, item in enumerate(items):
            window = torch.from_numpy(self.windows[item])
            token[row, :len(window) - 1] = window[:-1]
            target[row, :len(window) - 1] = window[1:]
        return token, target


def read_safetensors(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(length)), file.read()
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = numpy.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
            arrays[name] = torch.tensor(values.copy(), requires_grad=True)
    return arrays


class Gpt2:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.weights = read_safetensors(os.path.join(folder, "model.safetensors"))

    def __getitem__(self, name):
        return self.weights["transformer." + name]

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self[name + ".weight"], self[name + ".bias"],
                            self.config["layer_norm_epsilon"])

    def linear(self, x, name):
        return x @ self[name + ".weight"] + self[name + ".bias"]

    def attend(self, x, name):
        B, T, D = x.shape
        q, k, v = (part.view(B, T, self.config["n_head"], -1).transpose(1, 2)
                   for part in self.linear(x, name + "c_attn").split(D, 2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        y = F.softmax(scores.masked_fill(future, -math.inf), -1) @ v
        return self.linear(y.transpose(1, 2).reshape(B, T, D), name + "c_proj")

    def logits(self, token):
        x = self["wte.weight"][token] + self["wpe.weight"][:token.shape[1]]
        for i in range(self.config["n_layer"]):
            name = f"h.{i}."
            x = x + self.attend(self.norm(x, name + "ln_1"), name + "attn.")
            h = F.gelu(self.linear(self.norm(x, name + "ln_2"), name + "mlp.c_fc"), approximate="tanh")
            x = x + self.linear(h, name + "mlp.c_proj")
        return self.norm(x, "ln_f") @ self["wte.weight"].t()

    def nll(self, token, target, reduction):
        return F.cross_entropy(self.logits(token).flatten(0, 1), target.flatten(),
                               ignore_index=-1, reduction=reduction)


def rate_at(p, step):
    """Warm-up, then cosine from the peak to final_fraction of it in the last step."""
    peak, warmup, steps = p["learning_rate"], p.get("warmup", 0), p["steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    part = 1.0 if steps - 1 <= warmup else (step - warmup) / (steps - 1 - warmup)
    low = peak * p.get("final_fraction", 0.1)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * part))


def train(p, model, part):
    weights = model.weights.values()
    adamw = torch.optim.AdamW(
        [{"params": [w for w in weights if w.dim() > 1], "weight_decay": p.get("weight_decay", 0.1)},
         {"params": [w for w in weights if w.dim() == 1], "weight_decay": 0.0}],
        lr=0, betas=(p.get("beta1", 0.9), p.get("beta2", 0.95)), eps=1e-8)
    for step in range(p["steps"]):
        items = [item_at(p.get("seed", 0), len(part.windows), step * p["batch"] + row)
                 for row in range(p["batch"])]
        loss = model.nll(*part.batch(items), "mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, p.get("clip", 1.0))
        for group in adamw.param_groups:
            group["lr"] = rate_at(p, step)
        adamw.step()
        adamw.zero_grad()
        yield loss.item()


def validate(model, part, rows):
    total = count = 0
    with torch.no_grad():
        for at in range(0, len(part.windows), rows):
            token, target = part.batch(range(at, min(at + rows, len(part.windows))))
            total += model.nll(token, target, "sum").item()
            count += int((target >= 0).sum())
    return total, count


def read_losses(path):
    with open(path) as file:
        rows = [line.split() for line in file]
    return {int(row[0]): [float(value) for value in row[1:]] for row in rows}


def main():
    spec, dataset, init, losses = sys.argv[1:5]
    tolerance = float(sys.argv[5]) if len(sys.argv) > 5 else None
    with open(spec) as file:
        p = json.load(file)["params"]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    ours, model = read_losses(losses), Gpt2(init)
    assert p.get("schedule", "cosine") == "cosine" and model.config["n_positions"] == p["context"]
    worst = 0.0
    for step, loss in enumerate(train(p, model, Part(dataset, "train", p["context"])), 1):
        difference = abs(ours[step][0] - loss) / loss
        worst = max(worst, difference)
        if step <= 20 or step % 50 == 0 or step == p["steps"]:
            print(f"step {step}: loss {ours[step][0]:.6f} here, {loss:.6f} in PyTorch, "
                  f"relative difference {difference:.1e}", flush=True)
        if tolerance is not None and not difference <= tolerance:
            sys.exit(f"not ok: step {step} differs by more than {tolerance:g}")
    valid = Part(dataset, "valid", p["context"])
    nll, count = validate(model, valid, p["batch"])
    # Both score the same targets, so bits per byte follow from the mean over tokens.
    bits = [x * count / math.log(2) / valid.byte_count for x in (ours[p["steps"]][1], nll / count)]
    difference = abs(bits[0] - bits[1]) / bits[1]
    print(f"{p['steps']} steps: {bits[0]:.5f} bits per byte here, {bits[1]:.5f} in PyTorch, relative "
          f"difference {difference:.1e}; worst of a step's loss {worst:.1e}")
    sys.exit(0 if difference <= 0.01 else "not ok: bits per byte differ by more than 1 %")


main()
