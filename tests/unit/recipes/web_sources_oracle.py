#!/usr/bin/env python3
"""What Dolma's rules for code, social media and encyclopedias say of documents, written again with
Python's own library: str.splitlines, str.isalnum, re, tokenize.

Reads JSON lines with "text" and maybe "ext"; writes for each a line with the measures of source.def
that follow from the text, and how many secrets are in it."""
import io
import json
import re
import sys
import tokenize

W, L, D = r"[A-Za-z0-9]", r"[A-Za-z0-9_]", r"[A-Za-z0-9_-]"
TOKENS = [("A[KS]IA", r"[A-Z0-9]", 16, 16), ("gh[pous]_", W, 36, 36), ("ghr_", W, 36, 76),
          ("github_pat_", L, 82, 82), ("glpat-", D, 20, 64), ("AIza", D, 35, 35),
          ("xox[bpa]-", D, 20, 255), ("[sr]k_live_", W, 24, 255), ("npm_", W, 36, 36),
          ("pypi-", D, 85, 255), (r"SG\.", D, 22, 22)]
SECRETS = [rf"(?<!{W}){prefix}{kind}{{{least},{most}}}(?!{kind})"
           for prefix, kind, least, most in TOKENS] + [
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
    rf"(?<!{D})eyJ{D}{{10,}}\.eyJ{D}{{10,}}\.{D}{{10,}}",
    r"://[^ \t\n\v\f\r/:@]+:[^ \t\n\v\f\r/:@]+@"]
TRIPLE = re.compile(r"[rRuUbBfF]{0,2}(\"\"\"|''')")


def python_comments(text):
    """Comments, and triple-quoted strings that begin a statement."""
    total, fresh, depth = 0, True, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            total += len(token.string)
        elif token.type == tokenize.STRING and fresh and TRIPLE.match(token.string):
            total += len(TRIPLE.sub(r"\1", token.string, 1))
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            fresh = depth == 0
        elif token.type != tokenize.COMMENT:
            fresh = False
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
    return total


SLASHES = re.compile(r"""(//[^\n]*|/\*.*?(?:\*/|\Z))|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?"""
                     r"""|`(?:\\.|[^`\\])*`?""", re.S)


def slash_comments(text):
    return sum(len(m.group(1)) for m in SLASHES.finditer(text) if m.group(1))


def comments(text, ext):
    if ext == "py":
        return python_comments(text) / len(text) if text else 0
    if ext in ("java", "js"):
        return slash_comments(text) / len(text) if text else 0
    return None


for line in sys.stdin:
    document = json.loads(line)
    text = document["text"]
    lines = [l[:-1] if l.endswith("\r") else l for l in text.split("\n")]
    if lines[-1] == "" and not text.endswith("\r"):
        lines = lines[:-1]
    tokens = len(re.findall(r"[^\W]+|[^\w\s]+", text)) + 1
    out = {"code_line_mean": sum(map(len, lines)) / len(lines) if lines else 0,
           "code_line_max": max(map(len, lines), default=0),
           "code_alnum": sum(c.isalnum() for c in text) / len(text) if text else 0,
           "code_alpha_tokens": sum(c.isalpha() for c in text) / tokens,
           "code_comments": comments(text, document.get("ext")),
           "social_comment": len(text), "wiki_words": len(text.split()),
           "secrets": sum(len(re.findall(pattern, text)) for pattern in SECRETS)}
    print(json.dumps(out))
