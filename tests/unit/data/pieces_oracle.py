"""How patterns cut texts, by regular expressions over the classes of their characters.

python3 pieces_oracle.py <[PATTERN, TEXT] >[PIECE, ...], a JSON list a line. Source: encoder.py of
the GPT-2 release; the pre_tokenizer of published tokenizer.json files of Llama 3, Qwen 2, SmolLM."""
import json
import re
import sys
import unicodedata

SPACES = {chr(c) for c in [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028,
                           0x2029, 0x202F, 0x205F, 0x3000]}
# L letters, N numbers, ' ' a blank, R line ends, S other white space, O what is none of these.
GPT2 = r" ?L+| ?N+| ?O+|[ SR]+(?![LNO])|[ SR]+"
LATER = r"[ SO]?L+|N{1,%d}| ?O+R*|[ SR]*R+|[ SR]+(?![LNO])|[ SR]+"
RUNS = {"gpt2": re.compile(GPT2), "digits": re.compile(GPT2),
        "llama3": re.compile(LATER % 3), "qwen2": re.compile(LATER % 1)}
MARKS = re.compile(r"'(?:s|t|re|ve|m|ll|d)")
ANY_MARKS = re.compile(MARKS.pattern, re.IGNORECASE)


def kind(char):
    if char in SPACES:
        return " " if char == " " else "R" if char in "\r\n" else "S"
    category = unicodedata.category(char)[0]
    return category if category in "LN" else "O"


def pieces(text, pattern="gpt2"):
    kinds, at = "".join(map(kind, text)), 0
    if pattern == "digits":
        for part in re.finditer("N|[^N]+", kinds):
            yield from pieces(text[part.start():part.end()])
        return
    marks = MARKS if pattern == "gpt2" else ANY_MARKS
    while at < len(text):
        end = (marks.match(text, at) or RUNS[pattern].match(kinds, at)).end()
        yield text[at:end]
        at = end


if __name__ == "__main__":
    for line in sys.stdin:
        pattern, text = json.loads(line)
        print(json.dumps(list(pieces(text, pattern)), ensure_ascii=False, separators=(",", ":")))
