#!/usr/bin/env python3
"""What the pages of web archives say, by Python's own library: html.parser, html.unescape, codecs,
gzip and zlib.

    web_pages_oracle.py make FILE   writes an archive of built records, prints what it holds
    web_pages_oracle.py read FILE   prints what an archive holds
    web_pages_oracle.py html        reads JSON lines with "html", prints their texts

What is printed: for each document a JSON line with id, url and text, or why not ("no_page")."""
import base64
import gzip
import json
import random
import re
import sys
import zlib
from html.parser import HTMLParser

SKIP = {"nav", "footer", "aside", "form", "menu", "dialog"}
UNSEEN = {"audio", "canvas", "datalist", "noscript", "object", "select", "svg", "template", "video"}
RAW = {"iframe", "noembed", "noframes", "script", "style", "textarea", "title"}
BLOCKS = set("""address article aside blockquote body br caption center dd details dialog dir div dl dt
fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li listing
main menu nav ol option p plaintext pre search section summary table tbody tfoot thead title tr ul
xmp""".split())
BREAK, PRE_LINE, PRE_SPACE, PRE_TAB = "\x00", "\x01", "\x02", "\x03"
SPACE = " \t\n\f\r"


class Ends(HTMLParser):
    """End tags by name."""
    CDATA_CONTENT_ELEMENTS = tuple(RAW)

    def __init__(self):
        super().__init__()
        self.ends = {}

    def handle_endtag(self, tag):
        self.ends[tag] = self.ends.get(tag, 0) + 1


class Text(HTMLParser):
    CDATA_CONTENT_ELEMENTS = tuple(RAW)

    def __init__(self, ends):
        super().__init__(convert_charrefs=True)
        self.ends, self.out, self.name, self.depth, self.pre, self.raw = ends, [], None, 0, 0, False

    def mark(self, tag):
        if tag in BLOCKS:
            self.out.append(BREAK)
        elif tag in ("td", "th"):
            self.out.append(" ")

    def handle_starttag(self, tag, attrs):
        self.raw = tag in RAW
        if tag in SKIP | UNSEEN and (not self.depth or tag == self.name):
            if self.ends.get(tag, 0) > self.depth:
                self.name, self.depth = tag, self.depth + 1
        if not self.depth:
            self.mark(tag)
            self.pre += tag == "pre"

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        self.raw = False
        if tag in SKIP | UNSEEN:
            self.ends[tag] -= 1
            if self.depth and tag == self.name:
                self.depth -= 1
        if not self.depth:
            self.mark(tag)
            self.pre -= tag == "pre" and self.pre > 0

    def handle_data(self, data):
        if self.depth or self.raw:
            return
        data = "".join(c for c in data if c in SPACE or (c > " " and c != "\x7f"))
        if self.pre:
            data = data.replace("\r", "").replace("\n", PRE_LINE).replace(" ", PRE_SPACE)
            data = data.replace("\t", PRE_TAB)
        self.out.append(data)


def text_of(html):
    ends = Ends()
    ends.feed(html)
    ends.close()
    parser = Text(ends.ends)
    parser.feed(html)
    parser.close()
    text = ""
    for part in "".join(parser.out).split(BREAK):
        line = re.sub("[" + SPACE + "]+", " ", part).strip(" ").replace(PRE_LINE + " ", PRE_LINE)
        if text and line:
            text += "" if text.endswith(("\n", PRE_LINE)) else "\n"
            line = line.removeprefix(PRE_LINE)
        text += line if text else line.lstrip(PRE_LINE + PRE_SPACE + PRE_TAB)
    for held, char in ((PRE_LINE, "\n"), (PRE_SPACE, " "), (PRE_TAB, "\t")):
        text = text.replace(held, char)
    return text


LABELS = {"iso-8859-1": "cp1252", "latin1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030",
          "big5": "big5hkscs", "shift_jis": "cp932", "euc-kr": "cp949", "koi8-r": "koi8_r",
          "windows-1251": "cp1251", "windows-1250": "cp1250", "windows-1252": "cp1252",
          "utf-16": "utf-16-le"}


def decode(body, declared, is_html):
    name = declared
    if body.startswith(b"\xef\xbb\xbf"):
        return body[3:].decode("utf-8", "replace")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body[2:].decode("utf-16-le" if body[0] == 0xff else "utf-16-be", "replace")
    if not name and is_html:
        found = re.search(rb"<meta[^>]*?charset\s*=\s*[\"']?([^\s\"';/>]+)", body[:1024], re.I)
        name = found.group(1).decode("latin-1") if found else None
        if name and name.lower().startswith("utf-16"):
            name = "utf-8"
    if not name:
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            name = "windows-1252"
    name = name.strip("\"' ").lower()
    return body.decode(LABELS.get(name, name), "replace")


def fields_of(head):
    head = re.sub(rb"\r?\n[ \t]+", b" ", head)
    out = {}
    for line in head.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            out[name.strip().lower().decode()] = value.strip().decode("latin-1")
    return out


def joined(body):
    out, at = b"", 0
    while at < len(body):
        end = body.find(b"\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if size == 0:
            break
        out += body[end + 1:end + 1 + size]
        at = end + 1 + size + 2
    return out


def page(kind, declared_type, body):
    media = declared_type.split(";")[0].strip().lower()
    if not media and re.match(rb"\s*(<!doctype html|<html)", body, re.I):
        media = "text/html"
    if media not in ("text/html", "application/xhtml+xml", "text/plain"):
        return None
    charset = re.search(r";\s*charset=([^;]+)", declared_type, re.I)
    text = decode(body, charset.group(1) if charset else None, media != "text/plain")
    return text.replace("\0", "\ufffd") if media == "text/plain" else text_of(text.replace("\0", "\ufffd"))


def document(head, content):
    fields = fields_of(head)
    kind, media = fields.get("warc-type", "").lower(), fields.get("content-type", "").lower()
    uri = fields.get("warc-target-uri", "").strip("<>")
    made = {"id": fields.get("warc-record-id", "").strip("<>"), "url": uri}
    if kind == "response" and media.startswith("application/http"):
        found = re.search(rb"\r?\n\r?\n", content)
        http, body = content[:found.start()], content[found.end():]
        status, _, rest = http.partition(b"\n")
        fields = fields_of(rest)
        if status.split()[1] != b"200":
            return dict(made, no_page=True)
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = joined(body)
        packed = fields.get("content-encoding", "").lower()
        if packed == "gzip":
            body = gzip.decompress(body)
        elif packed == "deflate":
            try:
                body = zlib.decompress(body)
            except zlib.error:
                body = zlib.decompress(body, -15)
        elif packed not in ("", "identity"):
            return dict(made, no_page=True)
        text = page(kind, fields.get("content-type", ""), body)
    elif kind == "conversion" and media.startswith("text/plain"):
        text = page(kind, media, content)
    elif kind == "resource" and uri.startswith("http") and media.startswith("text/"):
        text = page(kind, media, content)
    else:
        return None
    return dict(made, no_page=True) if text is None else dict(made, text=text)


def read(path):
    with open(path, "rb") as stream:
        bytes_ = stream.read()
    if bytes_[:2] == b"\x1f\x8b":
        bytes_ = gzip.decompress(bytes_)
    at = 0
    while at < len(bytes_):
        end = bytes_.index(b"\r\n\r\n", at)
        head = bytes_[at:end]
        size = int(fields_of(head)["content-length"])
        made = document(head.partition(b"\r\n")[2], bytes_[end + 4:end + 4 + size])
        if made:
            yield made
        at = end + 4 + size + 4


# ---- an archive ---------------------------------------------------------------------------

TEXTS = [("utf-8", "na\u00efve \u2014 \u65e5\u672c\u8a9e \U0001f600"), ("windows-1252", "caf\u00e9 \u201cq\u201d \u20ac"),
         ("iso-8859-1", "gar\u00e7on \u2019s"), ("windows-1251", "\u041f\u0440\u0438\u0432\u0435\u0442"),
         ("windows-1250", "\u017elu\u0165ou\u010dk\u00fd"), ("iso-8859-2", "\u0159\u00ed\u010dn\u00ed"),
         ("koi8-r", "\u0434\u043e\u043c"), ("gb2312", "\u4e2d\u6587\u7f51\u9875"), ("gbk", "\u9577\u5bff"),
         ("big5", "\u7e41\u9ad4\u4e2d\u6587"), ("shift_jis", "\u30ab\u30bf\u30ab\u30ca\uff71"),
         ("euc-jp", "\u65e5\u672c"), ("iso-2022-jp", "\u65e5\u672c\u8a9e"), ("euc-kr", "\ud55c\uad6d\uc5b4")]


def record(kind, uri, media, content, version=b"1.0", fold=False):
    number = record.number = getattr(record, "number", 0) + 1
    name = "WARC-Target-URI:" + ("\r\n  " if fold else " ") + uri
    head = "\r\n".join(["WARC-Type: " + kind, name,
                        "warc-record-id: <urn:uuid:%08d>" % number, "Content-Type: " + media,
                        "Content-Length: %d" % len(content)]).encode()
    return b"WARC/" + version + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n\r\n"


def http(body, *fields, status="200 OK"):
    lines = ["HTTP/1.1 " + status] + list(fields)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body, draw):
    out = b""
    while body:
        size = draw.randint(1, 50)
        out += b"%x;x=y\r\n" % min(size, len(body)) + body[:size] + b"\r\n"
        body = body[size:]
    return out + b"0\r\n\r\n"


def records():
    draw = random.Random(7)
    response = "application/http; msgtype=response"
    html = "text/html"
    plain = b"<html><body><p>A page &amp; its text</p></body></html>"
    yield record("warcinfo", "", "application/warc-fields", b"software: none\r\n")
    yield record("request", "http://a.example/", "application/http; msgtype=request", b"GET /")
    for number, (label, text) in enumerate(TEXTS):
        name = LABELS.get(label, label)
        version = b"1.1" if number % 2 else b"1.0"
        inside = ("<p>%s</p>" % text).encode(name)
        yield record("response", "http://a.example/h/" + label, response,
                     http(inside, "Content-Type: text/html; charset=\"%s\"" % label.upper()), version)
        meta = ("<html><head><meta charset=%s>" % label).encode() if number % 2 else (
            "<meta http-equiv='Content-Type' content='text/html; charset=%s'>" % label).encode()
        yield record("response", "http://a.example/m/" + label, response,
                     http(meta + inside, "content-type:" + html), version, fold=True)
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        yield record("response", "http://a.example/bom", response,
                     http(mark + "<p>b\u00f6m".encode(name), "Content-Type: text/html; charset=koi8-r"))
    yield record("response", "http://a.example/none", response, http("<p>caf\u00e9".encode("cp1252"), "Content-Type: text/html"))
    yield record("response", "http://a.example/utf", response, http("<p>caf\u00e9".encode(), "Content-Type: text/html"))
    yield record("response", "http://a.example/zero", response, http(b"<p>ze\0ro", "Content-Type: text/html"))
    yield record("response", "http://a.example/bad", response, http(b"<p>a\xc3(b\xff", "Content-Type: text/html; charset=utf-8"))
    body = ("<ul>" + "".join("<li>item %d" % i for i in range(300)) + "</ul>").encode()
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    for packed, field in ((gzip.compress(body), "gzip"), (zlib.compress(body), "deflate"),
                          (raw.compress(body) + raw.flush(), "deflate"), (body, "identity")):
        yield record("response", "http://a.example/" + field, response,
                     http(packed, "Content-Type: text/html", "Content-Encoding: " + field))
        yield record("response", "http://a.example/chunked/" + field, response,
                     http(chunked(packed, draw), "Content-Type: text/html", "Transfer-Encoding: chunked",
                          "Content-Encoding: " + field))
    yield record("response", "http://a.example/br", response, http(b"x", "Content-Type: text/html", "Content-Encoding: br"))
    yield record("response", "http://a.example/404", response, http(plain, "Content-Type: text/html", status="404 Not Found"))
    yield record("response", "http://a.example/pdf", response, http(b"%PDF", "Content-Type: application/pdf"))
    yield record("response", "http://a.example/untyped", response, http(plain, "Server: none"))
    yield record("response", "http://a.example/untyped2", response, http(b"no page", "Server: none"))
    yield record("response", "http://a.example/robots.txt", response, http(b"User-agent: *\n", "Content-Type: text/plain"))
    yield record("response", "dns:a.example", "text/dns", b"20240101\r\na.example. 60 IN A 192.0.2.1\r\n")
    yield record("conversion", "http://a.example/wet", "text/plain", "Zeile eins\nZ\u00fcrich".encode())
    yield record("resource", "http://a.example/resource", "text/html", plain)
    yield record("resource", "metadata://a.example/log", "text/plain", b"a log")
    yield record("revisit", "http://a.example/again", response, http(b"", "Content-Type: text/html"))
    yield record("metadata", "http://a.example/", "application/warc-fields", b"fetchTimeMs: 1\r\n")


def make(path):
    parts = list(records())
    with open(path, "wb") as stream:
        for part in parts:
            stream.write(gzip.compress(part) if path.endswith(".gz") else part)


def main():
    if sys.argv[1] == "html":
        for line in sys.stdin:
            print(json.dumps({"text": text_of(json.loads(line)["html"])}))
        return
    if sys.argv[1] == "make":
        make(sys.argv[2])
    for made in read(sys.argv[2]):
        print(json.dumps(made))


main()
