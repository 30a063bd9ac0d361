"""torch_gpu.py - training steps of train_step_bench's GPU shapes in PyTorch, on the same GPU.

    torch_gpu.py NAME B T STEPS PEAK_TFLOPS      NAME: gpt2-124m-gpu, llama-1b-gpu, small-gpt2, small-llama

As one would write it for speed: f32 weights, autocast to bf16, the fastest attention that PyTorch
chooses, fused AdamW, torch.compile where this PyTorch has it. Prints one line for the plain model
and one for the compiled one: milliseconds, tokens a second, and the share of PEAK_TFLOPS (0: not
told) that 6 N + 12 L D T and 6 N + 6 L D T operations a token make, N being weights that take part
in products. The small shapes also run without a GPU, in f32, to check this program.
Ends with 77 where PyTorch or a GPU is absent."""
import contextlib
import math
import sys
import time

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as missing:
    print(f"skipped: PyTorch on this GPU: {missing}")
    sys.exit(77)

GPT2 = dict(vocabulary=50257, context=1024, width=768, layers=12, heads=12)
LLAMA = dict(vocabulary=32000, context=2048, width=2048, layers=22, heads=32, kv_heads=4, ffn=5632)
MODELS = {
    "gpt2-124m-gpu": ("gpt2", GPT2),
    "llama-1b-gpu": ("llama", LLAMA),
    "small-gpt2": ("gpt2", dict(GPT2, vocabulary=97, context=32, width=32, layers=2, heads=4)),
    "small-llama": ("llama", dict(LLAMA, vocabulary=97, context=32, width=32, layers=2, heads=4,
                                  kv_heads=2, ffn=64)),
}


def attend(q, k, v):
    """Causal attention of (B, H, T, d); older versions have no fused one."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    T = q.shape[2]
    mask = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores.masked_fill(mask, -math.inf), -1) @ v


def heads_of(x, count):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


class Gpt2Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads = c["width"], c["heads"]
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = (heads_of(part, self.heads) for part in self.qkv(self.ln1(x)).chunk(3, -1))
        x = x + self.proj(attend(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.out(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte, self.wpe = (nn.Embedding(c[n], c["width"]) for n in ("vocabulary", "context"))
        self.blocks = nn.ModuleList(Gpt2Block(c) for _ in range(c["layers"]))
        self.norm = nn.LayerNorm(c["width"])
        self.apart = (self.wpe.weight,)  # of no product

    def forward(self, token):
        x = self.wte(token) + self.wpe(torch.arange(token.shape[1], device=token.device))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.wte.weight.t()


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, d = c["width"], c["width"] // c["heads"]
        self.heads, self.kv_heads = c["heads"], c["kv_heads"]
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * d * self.kv_heads, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * c["ffn"], bias=False)
        self.down = nn.Linear(c["ffn"], width, bias=False)

    def forward(self, x, cos, sin):
        h = self.norm1(x)
        k, v = (heads_of(part, self.kv_heads) for part in self.kv(h).chunk(2, -1))
        q, k = (rotate(y, cos, sin) for y in (heads_of(self.q(h), self.heads), k))
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        x = x + self.o(attend(q, k.to(q.dtype), v.to(q.dtype)).transpose(1, 2).reshape(x.shape))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        half = c["width"] // c["heads"] // 2
        self.embed = nn.Embedding(c["vocabulary"], c["width"])
        self.blocks = nn.ModuleList(LlamaBlock(c) for _ in range(c["layers"]))
        self.norm = RmsNorm(c["width"])
        self.head = nn.Linear(c["width"], c["vocabulary"], bias=False)
        speed = 10000.0 ** (-torch.arange(half) / half)
        angle = torch.arange(c["context"])[:, None] * speed
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.apart = (self.embed.weight,)

    def forward(self, token):
        x, T = self.embed(token), token.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:T], self.sin[:T])
        return self.head(self.norm(x))


def seconds_of_steps(model, forward, B, T, steps, device):
    """The median of a step's seconds, after three that warm up (and compile); the last loss."""
    decayed = [w for w in model.parameters() if w.dim() > 1]
    others = [w for w in model.parameters() if w.dim() == 1]
    fused = {"fused": True} if device == "cuda" else {}
    adamw = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                               {"params": others, "weight_decay": 0.0}],
                              lr=1e-4, betas=(0.9, 0.95), eps=1e-8, **fused)
    vocabulary = next(model.children()).num_embeddings
    token = torch.randint(vocabulary, (B, T), device=device)
    target = torch.randint(vocabulary, (B * T,), device=device)
    times = []
    for _ in range(3 + steps):
        begin = time.monotonic()
        with (torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else
              contextlib.nullcontext()):
            loss = F.cross_entropy(forward(token).view(B * T, -1).float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - begin)
    return sorted(times[3:])[steps // 2], loss.item()


def tell(name, how, model, c, B, T, seconds, loss, peak):
    products = sum(w.numel() for w in model.parameters()
                   if w.dim() > 1 and all(w is not other for other in model.apart))
    rates = [B * T / seconds * (6 * products + each * c["layers"] * c["width"] * T)
             for each in (12, 6)]
    shares = " ".join(f"mfu {rate / (1e12 * peak):.3f}" for rate in rates) if peak else "mfu untold"
    print(f"torch {name} {how} {B} x {T} {1e3 * seconds:.2f} ms {B * T / seconds:.0f} tok/s "
          f"{1e-9 * rates[0]:.1f} GFLOP/s {shares} (12 and 6 LDT) loss {loss:.4f}", flush=True)


def main():
    name, (B, T, steps), peak = sys.argv[1], map(int, sys.argv[2:5]), float(sys.argv[5])
    small = name.startswith("small")
    if not torch.cuda.is_available() and not small:
        print(f"skipped: PyTorch {torch.__version__} sees no GPU")
        sys.exit(77)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    family, c = MODELS[name]
    model = (Gpt2 if family == "gpt2" else Llama)(c).to(device)
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.02)
    seconds, loss = seconds_of_steps(model, model, B, T, steps, device)
    tell(name, "plain", model, c, B, T, seconds, loss, peak)
    if not hasattr(torch, "compile") or device != "cuda":
        print(f"skipped: torch.compile of {name}: PyTorch {torch.__version__} on {device}")
        return
    seconds, loss = seconds_of_steps(model, torch.compile(model), B, T, steps, device)
    tell(name, "compiled", model, c, B, T, seconds, loss, peak)


main()
