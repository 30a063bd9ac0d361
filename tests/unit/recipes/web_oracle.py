#!/usr/bin/env python3
"""What the rules of Dolma's pipeline say of documents, written again after their published
definitions with nothing but Python's own library: str.split, re, Counter, statistics.

Reads JSON lines with "text"; writes for each a line with the measures of both variants of the
Gopher rules, the lines that C4's rules cut, and the spans of personal data (in bytes of UTF-8)."""
import json
import re
import statistics
import sys
import unicodedata
from collections import Counter

REQUIRED = {"the", "be", "to", "of", "and", "that", "have", "with"}
NAUGHTY = ["grublot", "lorem", "cancer", "health meter", "jazz albums you"]  # the test's list too
EMAIL = re.compile(r"([^\s@]+)@([^\s@,?!;:)(]+?)[.\s@,?!;:)(]?\s")
PHONE = re.compile(r"\s+(\(?[0-9]{3}\)?[-. ]*[0-9]{3}[-. ]?[0-9]{4})")
OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
IP = re.compile(r"(?:" + OCTET + r"\.){3}" + OCTET)


def grams(words, n):
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]


def chars(gram):
    return sum(len(word) for word in gram)


def dolma(text):
    words, lines = text.split(), text.split("\n")
    out = {}
    if not words:
        return out
    n, total = len(words), sum(map(len, words))
    out["words"] = n
    out["word_length"] = statistics.median(len(w) for w in words)
    out["symbols"] = sum(1 for w in words if "#" in w or "\u2026" in w) / n
    out["letters"] = sum(1 for w in words if any(c.isalpha() for c in w)) / n
    out["required"] = sum(1 for w in words if w in REQUIRED)
    out["bullets"] = sum(1 for l in lines if l.startswith(("*", "-"))) / len(lines)
    out["ellipsis_lines"] = sum(1 for l in lines if l.endswith("\u2026")) / len(lines)
    count = Counter(lines)
    out["dup_lines"] = sum(c for c in count.values() if c > 1) / len(lines)
    out["dup_line_chars"] = sum(len(l) * c for l, c in count.items() if c > 1) / max(total, 1)
    for k in (2, 3, 4):
        count = Counter(grams(words, k))
        if count:
            gram, times = count.most_common(1)[0]
            out[f"top_{k}"] = times * chars(gram) / max(total, 1)
    for k in range(5, 11):
        count = Counter(grams(words, k))
        whole = sum(c * chars(g) for g, c in count.items())
        out[f"dup_{k}"] = sum(c * chars(g) for g, c in count.items() if c > 1) / max(whole, 1)
    return out


def repeated(pieces):
    seen, number, length = set(), 0, 0
    for piece in pieces:
        if piece in seen:
            number, length = number + 1, length + len(piece)
        seen.add(piece)
    return number, length


def punctuation(c):
    return unicodedata.category(c)[0] in "PS"


def datatrove(text):
    words = text.split()
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    out = {}
    if not words:
        return out
    plain = [w for w in words if any(not punctuation(c) for c in w)]
    out["words"] = len(plain)
    out["word_length"] = sum(map(len, plain)) / len(plain) if plain else 0
    out["symbols"] = text.count("#") / len(words)
    out["ellipses"] = (text.count("...") + text.count("\u2026")) / len(words)
    out["letters"] = sum(1 for w in words if any(c.isalpha() for c in w)) / len(words)
    out["required"] = len(REQUIRED & set(words))
    if lines:
        out["bullets"] = sum(1 for l in lines if l.lstrip().startswith(("\u2022", "-"))) / len(lines)
        out["ellipsis_lines"] = sum(1 for l in lines
                                    if l.rstrip().endswith(("...", "\u2026"))) / len(lines)
    pieces = re.split(r"\n+", text)
    number, length = repeated(pieces)
    out["dup_lines"], out["dup_line_chars"] = number / len(pieces), length / len(text)
    pieces = re.split(r"\n{2,}", text.strip())
    number, length = repeated(pieces)
    out["dup_paragraphs"], out["dup_paragraph_chars"] = number / len(pieces), length / len(text)
    for k in (2, 3, 4):
        count = Counter(" ".join(g) for g in grams(words, k))
        if count:
            gram, times = count.most_common(1)[0]
            out[f"top_{k}"] = times * len(gram) / len(text)
    for k in range(5, 11):
        seen, length, i = set(), 0, 0
        while i + k <= len(words):
            gram = tuple(words[i:i + k])
            if gram in seen:
                length += chars(gram)
                i += k
            else:
                seen.add(gram)
                i += 1
        out[f"dup_{k}"] = length / len(text)
    return out


def c4(text):
    """Numbers of the lines that the rules cut, and the rules that drop the page."""
    nopunc, short = [], []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else []):
        if not line.lower().strip().endswith((".", "?", "!", '"')):
            nopunc.append(number)
        if len(line.split()) < 3:
            short.append(number)
    words = [w.lower() for w in text.split()]
    spaced = " " + " ".join(words) + " "
    ends = sum(1 for w in text.split() if re.search(r"[.?!][\"')\]]*$", w))
    drops = [name for name, holds in (("naughty", any(f" {n} " in spaced for n in NAUGHTY)),
                                      ("minsents", ends < 5),
                                      ("js", "javascript" in words),
                                      ("lorem", "lorem ipsum" in text.lower()),
                                      ("brace", "{" in text)) if holds]
    return {"nopunc": nopunc, "minwords": short, "drops": drops}


def pii(text):
    if text.count("?") > 10000:
        return []
    found, offset = [], 0
    for paragraph in re.findall(r"[^\n]*\n|[^\n]+", text):
        def add(kind, begin, end):
            at = [len((text[:offset + i]).encode()) for i in (begin, end)]
            found.append((at[0], -at[1], kind))
        for m in EMAIL.finditer(paragraph):
            if m.group(1) != "(" and "." in m.group(2):
                add(0, m.start(1), m.end(2))
        for m in PHONE.finditer(paragraph):
            add(1, m.start(1), m.end(1))
        for m in IP.finditer(paragraph):
            add(2, m.start(), m.end())
        offset += len(paragraph)
    kept = []
    for begin, end, kind in sorted(found):
        if not kept or begin >= kept[-1][1]:
            kept.append((begin, -end, kind))
    return [[kind, begin, end] for begin, end, kind in kept]


for line in sys.stdin:
    text = json.loads(line)["text"]
    json.dump({"dolma": dolma(text), "datatrove": datatrove(text), "c4": c4(text),
               "pii": pii(text)}, sys.stdout)
    print()
