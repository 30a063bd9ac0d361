"""A repository of an OPT as it might be downloaded: config.json, weights, vocab.json, merges.txt.

python3 opt_folder.py FOLDER. Its weights are zeros, so that every token is as likely as any other:
its loss is the logarithm of its vocabulary's size."""
import json
import os
import struct
import sys

WIDTH, FFN, CONTEXT = 8, 16, 64


def alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, plain), *(chr(256 + i) for i in range(256 - len(plain)))]


def shapes(vocab_size):
    yield "embed_tokens.weight", [vocab_size, WIDTH]
    yield "embed_positions.weight", [CONTEXT + 2, WIDTH]
    norms = ["final_layer_norm", "layers.0.self_attn_layer_norm", "layers.0.final_layer_norm"]
    linear = {f"layers.0.self_attn.{x}": [WIDTH, WIDTH]
              for x in ("q_proj", "k_proj", "v_proj", "out_proj")}
    linear |= {"layers.0.fc1": [FFN, WIDTH], "layers.0.fc2": [WIDTH, FFN]}
    for name, shape in [*((norm, [WIDTH]) for norm in norms), *linear.items()]:
        yield name + ".weight", shape
        yield name + ".bias", shape[:1]


def write_weights(path, vocab_size):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes(vocab_size):
        size = 4
        for length in shape:
            size *= length
        header["model.decoder." + name] = {"dtype": "F32", "shape": shape,
                                           "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + bytes(at))


folder = sys.argv[1]
os.makedirs(folder)
merges = ["t h", "th e", "i r"]
tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet(), *(m.replace(" ", "") for m in merges)]
config = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "vocab_size": len(tokens),
          "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": FFN,
          "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": CONTEXT,
          "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
with open(os.path.join(folder, "config.json"), "w") as out:
    json.dump(config, out)
with open(os.path.join(folder, "vocab.json"), "w") as out:
    json.dump({token: number for number, token in enumerate(tokens)}, out)
with open(os.path.join(folder, "merges.txt"), "w") as out:
    out.write("#version: 0.2\n" + "\n".join(merges) + "\n")
with open(os.path.join(folder, "special_tokens_map.json"), "w") as out:
    json.dump({"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
               "pad_token": "<pad>"}, out)
write_weights(os.path.join(folder, "model.safetensors"), len(tokens))
