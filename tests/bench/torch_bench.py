"""torch_bench.py - the steps of train_step_bench and the decoding of engine_bench in PyTorch.

    torch_bench.py THREADS step NAME B T STEPS
    torch_bench.py THREADS decode NAME BATCH TOKENS

The same model, shapes, loss, clipping and AdamW, as one would write them in PyTorch; float32 on the
processor. Prints one line. Ends with 77 where Debian's python3-torch is absent."""
import math
import resource
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError:
    sys.exit(77)

# vocabulary, context, width, layers, heads
MODELS = {"gpt2-124m": (50257, 1024, 768, 12, 12), "gpt2-124m-long": (50257, 1024, 768, 12, 12),
          "gpt2-14m": (8192, 256, 384, 6, 6)}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x, mask, cache):
        B, T, D = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(x).split(D, 2))
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat((cache["k"], k), 2), torch.cat((cache["v"], v), 2)
            cache["k"], cache["v"] = k, v
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(mask[:T, :T], -math.inf)
        y = F.softmax(scores, -1) @ v
        return self.proj(y.transpose(1, 2).reshape(B, T, D))

    def forward(self, x, mask, cache=None):
        x = x + self.attend(self.ln1(x), mask, cache)
        return x + self.out(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, vocabulary, context, width, layers, heads):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.lnf = nn.LayerNorm(width)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
        self.mask = torch.ones(context, context, dtype=torch.bool).triu(1)

    def forward(self, token, start=0, caches=None):
        T = token.shape[1]
        x = self.wte(token) + self.wpe(torch.arange(start, start + T))
        for i, block in enumerate(self.blocks):
            x = block(x, self.mask if T > 1 else None, caches[i] if caches else None)
        return self.lnf(x) if caches is None else self.lnf(x[:, -1])


def median(values):
    return sorted(values)[len(values) // 2]


def bench_step(model, name, B, T, steps):
    decayed = [w for w in model.parameters() if w.dim() > 1]
    others = [w for w in model.parameters() if w.dim() == 1]
    adamw = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                               {"params": others, "weight_decay": 0.0}],
                              lr=1e-4, betas=(0.9, 0.95), eps=1e-8)
    token = torch.randint(model.wte.num_embeddings, (B, T))
    target = torch.randint(model.wte.num_embeddings, (B * T,))
    walls, processors = [], []
    for _ in range(2 + steps):
        wall, processor = time.monotonic(), time.process_time()
        logits = model(token).view(B * T, -1) @ model.wte.weight.t()
        loss = F.cross_entropy(logits, target)
        del logits
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        walls.append(time.monotonic() - wall)
        processors.append(time.process_time() - processor)
    wall, processor = median(walls[2:]), median(processors[2:])
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"torch-step {name} {B} x {T} {1e3 * wall:.2f} ms {1e3 * processor:.2f} ms-cpu "
          f"{B * T / wall:.0f} tok/s {mib:.0f} MiB loss {loss.item():.4f}")


def bench_decode(model, name, batch, tokens):
    prompt = torch.arange(16).repeat(batch, 1)
    times = []
    with torch.no_grad():
        for count in (1, tokens, 1, tokens):  # the first two warm up
            caches = [{} for _ in model.blocks]
            token, at = prompt, 0
            begin, processor = time.monotonic(), time.process_time()
            for _ in range(count):
                logits = model(token, at, caches) @ model.wte.weight.t()
                at += token.shape[1]
                token = logits.argmax(-1, keepdim=True)
            times.append((time.monotonic() - begin, time.process_time() - processor))
    wall, processor = (times[3][i] - times[2][i] for i in (0, 1))
    made = batch * (tokens - 1)
    print(f"torch-decode {name} {batch} {made / wall:.1f} tok/s {made / processor:.1f} tok/s-cpu")


def main():
    threads, what, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Gpt2(*MODELS[name])
    numbers = [int(word) for word in sys.argv[4:]]
    (bench_step if what == "step" else bench_decode)(model, name, *numbers)


main()
