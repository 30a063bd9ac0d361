"""transformers_check.py - our model files in Hugging Face's own library.

    transformers_check.py FOLDER

Each folder below FOLDER (of torch_test.c or write_models.c) holds config.json, model.safetensors and
numbers.safetensors: a batch of tokens and what the engine makes of it. The library must load each
one without a weight missing, left over or of another shape, and give the same output, to 1e-4 of
the largest number. Families that it does not know are told and skipped.
Ends with 77 where PyTorch or transformers are absent, with 1 where anything differs."""
import json
import os
import sys

try:
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"skipped: our models in transformers: {missing}")
    sys.exit(77)

TOLERANCE = 1e-4
LOGITS, HIDDEN, OWN_VECTOR, MEAN_VECTOR, TOKENS, LABELS = range(6)
KINDS = {LOGITS: transformers.AutoModelForCausalLM, HIDDEN: transformers.AutoModel,
         TOKENS: transformers.AutoModelForMaskedLM,
         LABELS: transformers.AutoModelForSequenceClassification}


def reason_to_skip(config, what):
    kind = config.get("model_type")
    if kind not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        return f"transformers {transformers.__version__} has no '{kind}'"
    if what not in KINDS:
        return "a sentence vector is the engine's own"
    if config.get("z_loss") or config.get("num_shared_experts"):
        return "a variant of ours"
    return None


def load(folder, what, kind):
    """The model in f32 and what its loading had to say about weights."""
    loader = transformers.AutoModelForSeq2SeqLM if kind == "t5" else KINDS[what]
    model, report = loader.from_pretrained(folder, output_loading_info=True,
                                           attn_implementation="eager")
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    odd = [f"{what}: {', '.join(sorted(map(str, names)))}"
           for what, names in ((what, [n for n in report.get(what) or () if n not in tied])
                               for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
           if names]
    return model.float().eval(), odd


def lengths_to_mask(lengths, rows, columns):
    if lengths is None:
        return torch.ones(rows, columns, dtype=torch.long)
    return (torch.arange(columns)[None, :] < lengths.long()[:, None]).long()


def output_of(model, numbers, what, kind, B):
    token = numbers["token"].long().view(B, -1)
    T = token.shape[1]
    if kind == "t5":
        source = numbers["source"].long().view(B, -1)
        mask = lengths_to_mask(numbers.get("source_length"), B, source.shape[1])
        return model(input_ids=source, attention_mask=mask, decoder_input_ids=token).logits
    words = {"input_ids": token, "attention_mask": lengths_to_mask(numbers.get("length"), B, T)}
    if kind == "bert" and "type" in numbers:
        words["token_type_ids"] = numbers["type"].long().view(B, T)
    if kind == "roberta":  # which else tells padding by a token that the batch may hold
        words["position_ids"] = (torch.arange(T) + model.config.pad_token_id + 1).expand(B, T)
    made = model(**words)
    return made.last_hidden_state if what == HIDDEN else made.logits


def check(folder):
    """None, or what is wrong."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    numbers = load_file(os.path.join(folder, "numbers.safetensors"))
    what = int(numbers["what"][0]) if "what" in numbers else LOGITS
    kind, name = config.get("model_type"), os.path.basename(folder)
    reason = reason_to_skip(config, what)
    if reason:
        print(f"skipped: {name}: {reason}")
        return None
    model, odd = load(folder, what, kind)
    if odd:
        return "loading: " + "; ".join(odd)
    with torch.no_grad():
        got = output_of(model, numbers, what, kind, int(numbers["batch"][0]))
    expected = numbers["output"].view_as(got)
    differs = float((got - expected).abs().max() / expected.abs().max())
    if not differs <= TOLERANCE:
        return f"output differs by {differs:.2g}"
    print(f"{name}: {type(model).__name__} gives the same output, to {differs:.1e}", flush=True)
    return None


def main():
    torch.set_num_threads(1)
    failures = 0
    for name in sorted(os.listdir(sys.argv[1])):
        try:
            problem = check(os.path.join(sys.argv[1], name))
        except Exception as error:  # the library refuses a model in many ways
            problem = f"{type(error).__name__}: {error}"
        if problem:
            print(f"not ok: {name}: {problem}", flush=True)
            failures += 1
    sys.exit(1 if failures else 0)


main()
