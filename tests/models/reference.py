"""reference.py - the architectures again, in PyTorch, written from their papers.

    reference.py FOLDER      compares each case below FOLDER; see torch_test.c

Each case holds config.json, model.safetensors, numbers.safetensors (batch, output) and
gradients.safetensors, those of sum c y. Everything is computed in double precision here, so
what differs is the engine's float32. Outputs must agree to 1e-4 of the largest, gradients of
each weight to 1e-3 of its largest (and 1e-6 of the largest of all: some are zero but for
rounding)."""
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

LOGITS, HIDDEN, OWN_VECTOR, MEAN_VECTOR, TOKENS, LABELS = range(6)
B, T = 3, 20
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3


def read_safetensors(path):
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        data = file.read()
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32"
        begin, end = entry["data_offsets"]
        values = numpy.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
        arrays[name] = torch.tensor(values.astype(numpy.float64))
    return arrays


class Case:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.weights = read_safetensors(os.path.join(folder, "model.safetensors"))
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.numbers = read_safetensors(os.path.join(folder, "numbers.safetensors"))
        self.gradients = read_safetensors(os.path.join(folder, "gradients.safetensors"))
        self.token = self.ids("token").view(B, T)
        self.what = int(self.numbers["what"][0])

    def ids(self, name):
        return self.numbers[name].long()

    def __getitem__(self, name):
        return self.weights[name]

    def linear(self, x, name):
        y = x @ self[name + ".weight"].t()
        return y + self[name + ".bias"] if name + ".bias" in self.weights else y

    def layer_norm(self, x, name, eps):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / (variance + eps).sqrt() * self[name + ".weight"] + self[name + ".bias"]


def rms_norm(x, gain, eps):
    return x / ((x * x).mean(-1, keepdim=True) + eps).sqrt() * gain


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATIONS = {"gelu": gelu, "gelu_new": gelu_tanh, "relu": torch.relu, "silu": F.silu,
               "tanh": torch.tanh}


def heads_of(x, count):
    """(B, T, H d) to (B, H, T, d)."""
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def attention(q, k, v, mask=None, scale=None, bias=0):
    """Plain softmax attention; key heads are repeated for groups of queries."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1])) + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    y = torch.softmax(scores, -1) @ v
    return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)


def causal(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


def gpt2(case):
    c, x = case.config, None
    prefix = "transformer."
    x = case[prefix + "wte.weight"][case.token] + case[prefix + "wpe.weight"][:T]

    def conv(x, name):
        return x @ case[name + ".weight"] + case[name + ".bias"]

    for i in range(c["n_layer"]):
        name = f"{prefix}h.{i}."
        h = case.layer_norm(x, name + "ln_1", c["layer_norm_epsilon"])
        q, k, v = (heads_of(part, c["n_head"])
                   for part in conv(h, name + "attn.c_attn").chunk(3, -1))
        x = x + conv(attention(q, k, v, causal(T)), name + "attn.c_proj")
        h = case.layer_norm(x, name + "ln_2", c["layer_norm_epsilon"])
        x = x + conv(gelu_tanh(conv(h, name + "mlp.c_fc")), name + "mlp.c_proj")
    x = case.layer_norm(x, prefix + "ln_f", c["layer_norm_epsilon"])
    return x @ case[prefix + "wte.weight"].t()


def opt(case):
    """Rows 0 and 1 of the table of positions belong to no position. Its 350M is the one that
    normalises after adding, and widens its embeddings."""
    c, prefix = case.config, "model.decoder."
    act, before = ACTIVATIONS[c["activation_function"]], c["do_layer_norm_before"]
    table = case[prefix + "embed_tokens.weight"]
    x = table[case.token]
    if c["word_embed_proj_dim"] != c["hidden_size"]:
        x = case.linear(x, prefix + "project_in")
    x = x + case[prefix + "embed_positions.weight"][2:2 + T]

    def half(x, norm, branch):
        if before:
            return x + branch(case.layer_norm(x, norm, 1e-5))
        return case.layer_norm(x + branch(x), norm, 1e-5)

    for i in range(c["num_hidden_layers"]):
        name = f"{prefix}layers.{i}."

        def attend(h, name=name + "self_attn."):
            q, k, v = (heads_of(case.linear(h, name + part), c["num_attention_heads"])
                       for part in ("q_proj", "k_proj", "v_proj"))
            return case.linear(attention(q, k, v, causal(T)), name + "out_proj")

        def feed(h, name=name):
            return case.linear(act(case.linear(h, name + "fc1")), name + "fc2")

        x = half(x, name + "self_attn_layer_norm", attend)
        x = half(x, name + "final_layer_norm", feed)
    if before:
        x = case.layer_norm(x, prefix + "final_layer_norm", 1e-5)
    if c["word_embed_proj_dim"] != c["hidden_size"]:
        x = case.linear(x, prefix + "project_out")
    return x @ table.t()


def wavelength_ramp(wave, scaling):
    """Llama 3.1: positions of waves longer than `low` are interpolated, of those shorter than
    `high` are not; in between, by how many waves the original positions hold."""
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (original / wave - low) / (high - low)
    smooth = torch.where(wave > original / low, torch.zeros_like(wave), smooth)
    return torch.where(wave < original / high, torch.ones_like(wave), smooth)


def yarn_ramp(d, theta, scaling):
    """YaRN's gamma, over dimensions: its equation 17 solved for the dimension of a rotation."""
    original = scaling["original_max_position_embeddings"]

    def dimension(rotations):
        return d / 2 * math.log(original / rotations / math.tau, theta)

    low = max(math.floor(dimension(scaling["beta_fast"])), 0)
    high = min(math.ceil(dimension(scaling["beta_slow"])), d - 1)
    ramp = (torch.arange(d // 2, dtype=torch.float64) - low) / max(high - low, 0.001)
    return 1 - ramp.clamp(0, 1)


def rotate(x, config):
    """(B, H, T, d): element i turns with i + d/2 by position theta^(-2i/d), or scaled."""
    half, scaling = x.shape[-1] // 2, config.get("rope_scaling") or {"rope_type": "default"}
    theta, kind, length = config["rope_theta"], scaling["rope_type"], 1
    speed = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    if kind == "linear":
        speed = speed / scaling["factor"]
    if kind == "llama3":
        keep = wavelength_ramp(math.tau / speed, scaling)
        speed = keep * speed + (1 - keep) * speed / scaling["factor"]
    if kind == "yarn":
        keep = yarn_ramp(x.shape[-1], theta, scaling)
        speed = keep * speed + (1 - keep) * speed / scaling["factor"]
        length = 1 + math.log(scaling["factor"]) / 10
    angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * speed
    cos, sin = angle.cos() * length, angle.sin() * length
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def alibi_slopes(count):
    power = 2 ** int(math.log2(count))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    return slopes + [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * (count - power), 2)]


def llama(case):
    """Also Mistral's window, ALiBi in the place of rotations, scaled rotations, and Qwen 2, whose
    biases case.linear finds."""
    c = case.config
    distance = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    mask, bias = causal(T), 0
    if c.get("sliding_window"):
        mask = mask & (distance < c["sliding_window"])
    turn = rotate
    if c["model_type"] == "athanor_alibi":
        slopes = torch.tensor(alibi_slopes(c["num_attention_heads"]), dtype=torch.float64)
        bias = -slopes[:, None, None] * distance
        turn = lambda x, config: x  # noqa: E731
    x = case["model.embed_tokens.weight"][case.token]
    for i in range(c["num_hidden_layers"]):
        name = f"model.layers.{i}."
        h = rms_norm(x, case[name + "input_layernorm.weight"], c["rms_norm_eps"])
        q = turn(heads_of(case.linear(h, name + "self_attn.q_proj"), c["num_attention_heads"]), c)
        k = turn(heads_of(case.linear(h, name + "self_attn.k_proj"), c["num_key_value_heads"]), c)
        v = heads_of(case.linear(h, name + "self_attn.v_proj"), c["num_key_value_heads"])
        x = x + case.linear(attention(q, k, v, mask, bias=bias), name + "self_attn.o_proj")
        h = rms_norm(x, case[name + "post_attention_layernorm.weight"], c["rms_norm_eps"])
        h = F.silu(case.linear(h, name + "mlp.gate_proj")) * case.linear(h, name + "mlp.up_proj")
        x = x + case.linear(h, name + "mlp.down_proj")
    x = rms_norm(x, case["model.norm.weight"], c["rms_norm_eps"])
    head = "model.embed_tokens" if c["tie_word_embeddings"] else "lm_head"
    return x @ case[head + ".weight"].t()


def key_mask(case):
    """(B, 1, 1, T): the tokens that count."""
    return (torch.arange(T)[None, :] < case.ids("length")[:, None])[:, None, None, :]


def mean_of_counted(case, x):
    mask = key_mask(case).view(B, T, 1).double()
    return (x * mask).sum(1) / mask.sum(1)


def bert(case, prefix="bert.", first=0):
    c, eps = case.config, case.config["layer_norm_eps"]
    act = ACTIVATIONS[c["hidden_act"]]
    name = prefix + "embeddings."
    x = (case[name + "word_embeddings.weight"][case.token] +
         case[name + "position_embeddings.weight"][first:first + T] +
         case[name + "token_type_embeddings.weight"][case.ids("type").view(B, T)])
    x = case.layer_norm(x, name + "LayerNorm", eps)
    for i in range(c["num_hidden_layers"]):
        name = prefix + f"encoder.layer.{i}."
        q, k, v = (heads_of(case.linear(x, name + "attention.self." + part),
                            c["num_attention_heads"]) for part in ("query", "key", "value"))
        h = case.linear(attention(q, k, v, key_mask(case)), name + "attention.output.dense")
        x = case.layer_norm(x + h, name + "attention.output.LayerNorm", eps)
        h = case.linear(act(case.linear(x, name + "intermediate.dense")), name + "output.dense")
        x = case.layer_norm(x + h, name + "output.LayerNorm", eps)
    return bert_top(case, x, act, eps)


def bert_top(case, x, act, eps):
    if case.what == HIDDEN:
        return x
    if case.what == MEAN_VECTOR:
        y = mean_of_counted(case, x)
        return y / y.norm(dim=-1, keepdim=True)
    if case.what == TOKENS:
        name = "cls.predictions."
        x = act(case.linear(x, name + "transform.dense"))
        x = case.layer_norm(x, name + "transform.LayerNorm", eps)
        return x @ case["bert.embeddings.word_embeddings.weight"].t() + case[name + "bias"]
    if case.config["model_type"] == "roberta":
        x = torch.tanh(case.linear(x[:, 0], "classifier.dense"))
        return case.linear(x, "classifier.out_proj")
    x = torch.tanh(case.linear(x[:, 0], "bert.pooler.dense"))
    return case.linear(x, "classifier") if case.what == LABELS else x


def roberta(case):
    """Padding has the id 1 and, with the row before it, no position of a token."""
    return bert(case, "roberta.", case.config["pad_token_id"] + 1)


def kona(case):
    c, eps = case.config, case.config["layer_norm_eps"]
    half = c["hidden_size"] // 2
    angle = (torch.arange(T, dtype=torch.float64)[:, None] *
             torch.exp(-torch.arange(half // 2, dtype=torch.float64) * math.log(10000) /
                       (half // 2 - 1)))
    x = 2 * case["embed.weight"][case.token] + torch.cat([angle.sin(), angle.cos()], -1)

    def block(x, name, residual):
        h = case.layer_norm(x, name + "ln1", eps)
        q, k, v = (heads_of(part, c["num_attention_heads"])
                   for part in case.linear(h, name + "qkv").chunk(3, -1))
        x = residual + case.linear(attention(q, k, v, key_mask(case)), name + "o")
        h = case.layer_norm(x, name + "ln2", eps)
        return x + case.linear(torch.relu(case.linear(h, name + "fc")), name + "out")

    x = block(x, "first.", case.linear(x, "widen"))
    for i in range(c["num_hidden_layers"]):
        x = block(x, f"block.{i}.", x)
    y = torch.tanh(case.linear(mean_of_counted(case, x), "top"))
    return y / y.norm(dim=-1, keepdim=True)


def moe(case):
    """Mixtral, OLMoE, and ours with shared experts: experts are called one token at a time."""
    c, eps = case.config, case.config["rms_norm_eps"]
    kind = c["model_type"]
    own_norms = kind == "olmoe" or c.get("qk_norm", False)
    before = c.get("gate_before_choice", False) or c.get("norm_topk_prob") is False
    count = c["num_local_experts"] if kind == "mixtral" else c["num_experts"]
    ffn, names = (("mlp.", ("gate_proj", "up_proj", "down_proj")) if own_norms else
                  ("block_sparse_moe.", ("w1", "w3", "w2")))
    case.losses = []

    def expert(x, name, parts):
        h = F.silu(case.linear(x, name + parts[0])) * case.linear(x, name + parts[1])
        return case.linear(h, name + parts[2])

    def experts(x, name):
        logits = case.linear(x, name + ffn + "gate")
        chosen = torch.topk(logits, c["num_experts_per_tok"], -1)
        p = torch.softmax(logits, -1)
        gate = p.gather(-1, chosen.indices) if before else torch.softmax(chosen.values, -1)
        rows = []
        for n in range(x.shape[0]):
            rows.append(sum(gate[n, j] * expert(x[n], f"{name}{ffn}experts.{int(e)}.", names)
                            for j, e in enumerate(chosen.indices[n])))
        share = torch.bincount(chosen.indices.flatten(), minlength=count).double()
        balance = count * (share / share.sum() * p.mean(0)).sum()
        z = (torch.logsumexp(logits, -1) ** 2).mean()
        case.losses += [c["router_aux_loss_coef"] * balance,
                        float(case.numbers["z_loss"][0]) * z]
        y = torch.stack(rows)
        if c.get("num_shared_experts", 0):
            y = y + expert(x, name + "mlp.shared_experts.", ("gate_proj", "up_proj", "down_proj"))
        return y

    x = case["model.embed_tokens.weight"][case.token]
    for i in range(c["num_hidden_layers"]):
        name = f"model.layers.{i}."
        h = rms_norm(x, case[name + "input_layernorm.weight"], eps)
        q, k, v = (case.linear(h, f"{name}self_attn.{part}_proj") for part in "qkv")
        if own_norms:
            q = rms_norm(q, case[name + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, case[name + "self_attn.k_norm.weight"], eps)
        q = rotate(heads_of(q, c["num_attention_heads"]), c)
        k = rotate(heads_of(k, c["num_key_value_heads"]), c)
        v = heads_of(v, c["num_key_value_heads"])
        x = x + case.linear(attention(q, k, v, causal(T)), name + "self_attn.o_proj")
        h = rms_norm(x, case[name + "post_attention_layernorm.weight"], eps)
        x = x + experts(h.reshape(B * T, -1), name).view_as(x)
    x = rms_norm(x, case["model.norm.weight"], eps)
    return x @ case["lm_head.weight"].t()


def transnormer(case):
    """The naive form: all pairs of positions, masked by powers of the decay."""
    c, eps = case.config, case.config["norm_eps"]
    width, count, layers = c["decoder_embed_dim"], c["decoder_attention_heads"], c["decoder_layers"]
    steps = torch.arange(T, dtype=torch.float64)
    distance = steps[:, None] - steps[None, :]
    x = case["model.embed_tokens.weight"][case.token]
    if not c["no_scale_embedding"]:
        x = x * math.sqrt(width)
    for i in range(layers):
        name = f"model.layers.{i}."
        if c["decay"] == "alibi":
            slope = [m * (1 - i / (layers - 1) + 1e-5) for m in alibi_slopes(count)]
        elif c["decay"] == "paper":
            slope = [8 * h / count * (1 - i / layers) for h in range(count)]
        else:
            slope = [0.0] * count
        decay = torch.exp(-torch.tensor(slope, dtype=torch.float64)[:, None, None] *
                          distance.clamp(min=0)) * (distance >= 0)
        h = case.linear(rms_norm(x, 1, eps), name + "token_mixer.qkvu_proj")
        q, k, v, u = h.chunk(4, -1)
        q, k, v = heads_of(F.silu(q), count), heads_of(F.silu(k), count), heads_of(v, count)
        if c["linear_use_lrpe_list"][i]:
            angle = steps[None, :, None] * case[name + "token_mixer.lrpe.theta"][:, None, :]
            q = torch.cat([q * angle.cos(), q * angle.sin()], -1)
            k = torch.cat([k * angle.cos(), k * angle.sin()], -1)
        y = (q @ k.transpose(-1, -2) * decay) @ v
        y = rms_norm(y.transpose(1, 2).reshape(B, T, width), 1, eps)
        x = x + case.linear(y if c["ungated"] else u * y, name + "token_mixer.out_proj")
        h = rms_norm(x, 1, eps)
        h = (case.linear(h, name + "channel_mixer.l1") * case.linear(h, name + "channel_mixer.l2"))
        x = x + case.linear(h, name + "channel_mixer.l3")
    head = "model.embed_tokens" if c["tie_word_embeddings"] else "lm_head"
    return rms_norm(x, 1, eps) @ case[head + ".weight"].t()


def t5_buckets(c, length, both_ways):
    """(query, key) to the row of the table of biases."""
    count, span = c["relative_attention_num_buckets"], c["relative_attention_max_distance"]
    relative = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    base = torch.zeros_like(relative)
    if both_ways:
        count //= 2
        base = (relative > 0).long() * count
        relative = relative.abs()
    else:
        relative = (-relative).clamp(min=0)
    exact = count // 2
    far = exact + (torch.log(relative.float().clamp(min=1) / exact) / math.log(span / exact) *
                   (count - exact)).long()
    return base + torch.where(relative < exact, relative, far.clamp(max=count - 1))


def t5(case):
    c, eps = case.config, case.config["layer_norm_epsilon"]
    source = case.ids("source").view(B, -1)
    S, H = source.shape[1], c["num_heads"]
    seen = (torch.arange(S)[None, :] < case.ids("source_length")[:, None])[:, None, None, :]
    act = {"relu": torch.relu, "gelu": gelu_tanh, "silu": F.silu}[
        c["feed_forward_proj"].split("-")[-1]]

    def norm(x, name):
        return rms_norm(x, case[name + ".weight"], eps)

    def attend(x, keys, name, mask, bias=0):
        q, k, v = (heads_of(case.linear(y, name + part), H)
                   for y, part in ((x, "q"), (keys, "k"), (keys, "v")))
        return case.linear(attention(q, k, v, mask, 1.0, bias), name + "o")

    def feed(x, name):
        if c["feed_forward_proj"].startswith("gated"):
            return case.linear(act(case.linear(x, name + "wi_0")) * case.linear(x, name + "wi_1"),
                               name + "wo")
        return case.linear(act(case.linear(x, name + "wi")), name + "wo")

    def biases(side, length):
        table = case[side + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        return table[t5_buckets(c, length, side == "encoder")].permute(2, 0, 1)

    x = case["shared.weight"][source]
    for i in range(c["num_layers"]):
        name = f"encoder.block.{i}.layer."
        h = norm(x, name + "0.layer_norm")
        x = x + attend(h, h, name + "0.SelfAttention.", seen, biases("encoder", S))
        x = x + feed(norm(x, name + "1.layer_norm"), name + "1.DenseReluDense.")
    encoded = norm(x, "encoder.final_layer_norm")
    x = case["shared.weight"][case.token]
    for i in range(c["num_decoder_layers"]):
        name = f"decoder.block.{i}.layer."
        h = norm(x, name + "0.layer_norm")
        x = x + attend(h, h, name + "0.SelfAttention.", causal(T), biases("decoder", T))
        x = x + attend(norm(x, name + "1.layer_norm"), encoded, name + "1.EncDecAttention.", seen)
        x = x + feed(norm(x, name + "2.layer_norm"), name + "2.DenseReluDense.")
    x = norm(x, "decoder.final_layer_norm")
    if c["tie_word_embeddings"]:
        return x / math.sqrt(c["d_model"]) @ case["shared.weight"].t()
    return x @ case["lm_head.weight"].t()


MODELS = {"gpt2": gpt2, "opt": opt, "llama": llama, "mistral": llama, "qwen2": llama,
          "athanor_alibi": llama,
          "bert": bert, "roberta": roberta, "kona": kona, "mixtral": moe, "olmoe": moe,
          "athanor_moe": moe, "transnormer": transnormer, "t5": t5}


def weights_as_seen(y):
    index = torch.arange(y.numel())
    return ((index * 7 % 11 - 5).double() / 10).view_as(y)


def distance(got, expected, floor=0.0):
    scale = max(float(expected.abs().max()), 1e-30)
    return max(0.0, float((got - expected).abs().max()) - floor) / scale


def check(folder):
    case = Case(folder)
    y = MODELS[case.config["model_type"]](case)
    loss = (weights_as_seen(y) * y).sum() + sum(extra for extra in getattr(case, "losses", []))
    loss.backward()
    worst = distance(case.numbers["output"].view_as(y), y.detach())
    if not worst <= OUTPUT_TOLERANCE:
        return f"output differs by {worst:.2g}"
    largest = max(float(w.grad.abs().max()) for w in case.weights.values() if w.grad is not None)
    worst_gradient = 0.0
    for name, weight in case.weights.items():
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        d = distance(case.gradients[name], grad, 1e-6 * largest)
        if not d <= GRADIENT_TOLERANCE:
            return f"gradient of {name} differs by {d:.2g}"
        worst_gradient = max(worst_gradient, d)
    print(f"{os.path.basename(folder)}: output within {worst:.1e}, "
          f"gradients within {worst_gradient:.1e}", flush=True)
    return None


def main():
    torch.set_num_threads(1)
    failures = 0
    for name in sorted(os.listdir(sys.argv[1])):
        problem = check(os.path.join(sys.argv[1], name))
        if problem:
            print(f"not ok: {name}: {problem}", flush=True)
            failures += 1
    sys.exit(1 if failures else 0)


main()
