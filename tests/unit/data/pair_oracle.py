"""Ids of texts by the definition of GPT-2's tokenizer, from vocab.json, merges.txt and the files
beside them: merges are searched anew for every step, nothing is looked up whole.

python3 pair_oracle.py FOLDER <TEXTS >IDS; a JSON string a line in, a list of ids a line out.
Source: encoder.py of the GPT-2 release; transformers' rules for what is put around a text."""
import json
import os
import re
import sys

from pieces_oracle import pieces


def alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


class Pair:
    def __init__(self, folder):
        def load(name):
            path = os.path.join(folder, name)
            return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else {}

        self.vocab, config = load("vocab.json"), load("tokenizer_config.json")
        lines = open(os.path.join(folder, "merges.txt"), encoding="utf-8").read().split("\n")
        rules = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        self.rank = {rule: rank for rank, rule in enumerate(rules)}
        self.letters = alphabet()
        model = load("config.json")
        roberta = "Roberta" in config.get("tokenizer_class", "") or (
            "tokenizer_class" not in config and model.get("model_type") == "roberta")
        names = {role: "<|endoftext|>" for role in ("bos", "eos", "unk")}
        if roberta:
            names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>",
                     "cls": "<s>", "mask": "<mask>"}
        by_id = {number: text for text, number in self.vocab.items()}
        for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            told = config.get(role + "_token") or load("special_tokens_map.json").get(role + "_token")
            number = model.get(role + "_token_id")
            if told:
                names[role] = told["content"] if isinstance(told, dict) else told
            elif role in ("bos", "eos", "pad") and number in by_id:
                names[role] = by_id[number]
        self.added = dict(load("added_tokens.json"))
        for text in names.values():
            if text in self.vocab:
                self.added[text] = self.vocab[text]
        begins = config.get("add_bos_token", model.get("model_type") == "opt")
        self.before = [self.added[names["bos"]]] if begins else []
        self.after = []
        if roberta:
            self.before, self.after = [self.added[names["cls"]]], [self.added[names["sep"]]]

    def merged(self, piece):
        symbols = [self.letters[byte] for byte in piece.encode("utf-8")]
        while True:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in zip(symbols, symbols[1:])]
            if not ranks or min(ranks) == len(self.rank):
                return [self.vocab[symbol] for symbol in symbols]
            at = ranks.index(min(ranks))
            symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]

    def ids(self, text):
        out, at = [], 0
        split = "|".join(map(re.escape, sorted(self.added, key=len, reverse=True)))
        for found in re.finditer(split, text) if split else ():
            for piece in pieces(text[at:found.start()]):
                out += self.merged(piece)
            out.append(self.added[found.group()])
            at = found.end()
        for piece in pieces(text[at:]):
            out += self.merged(piece)
        return self.before + out + self.after


pair = Pair(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(pair.ids(json.loads(line))))
