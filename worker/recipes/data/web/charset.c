/* charset.c - html_decode: which charset a page is in, and its bytes as UTF-8; see html.h. */
#include "worker/recipes/data/web/html.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/data/web/chars.h"

#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define META_BYTES  1024 /* of a page are searched: "prescan a byte stream" */
#define LABEL_BYTES 40

static const char replacement[] = "\xEF\xBF\xBD";

/* Labels that pages have, to what iconv calls the encoding that browsers take for it. */
static const struct {
    const char *label, *name;
} encodings[] = {
    {"utf-8", "UTF-8"}, {"utf8", "UTF-8"}, {"unicode-1-1-utf-8", "UTF-8"},
    {"utf-16", "UTF-16LE"}, {"utf-16le", "UTF-16LE"}, {"utf-16be", "UTF-16BE"},
    {"windows-1252", "CP1252"}, {"iso-8859-1", "CP1252"}, {"iso8859-1", "CP1252"},
    {"iso_8859-1", "CP1252"}, {"latin1", "CP1252"}, {"l1", "CP1252"}, {"ascii", "CP1252"},
    {"us-ascii", "CP1252"}, {"cp1252", "CP1252"}, {"x-cp1252", "CP1252"}, {"ansi", "CP1252"},
    {"windows-1250", "CP1250"}, {"cp1250", "CP1250"}, {"x-cp1250", "CP1250"},
    {"windows-1251", "CP1251"}, {"cp1251", "CP1251"}, {"x-cp1251", "CP1251"},
    {"windows-1253", "CP1253"}, {"windows-1254", "CP1254"}, {"iso-8859-9", "CP1254"},
    {"latin5", "CP1254"}, {"windows-1255", "CP1255"}, {"windows-1256", "CP1256"},
    {"windows-1257", "CP1257"}, {"windows-1258", "CP1258"}, {"windows-874", "CP874"},
    {"tis-620", "CP874"}, {"iso-8859-11", "CP874"},
    {"iso-8859-2", "ISO-8859-2"}, {"iso8859-2", "ISO-8859-2"}, {"latin2", "ISO-8859-2"},
    {"iso-8859-3", "ISO-8859-3"}, {"iso-8859-4", "ISO-8859-4"}, {"iso-8859-5", "ISO-8859-5"},
    {"iso-8859-6", "ISO-8859-6"}, {"iso-8859-7", "ISO-8859-7"}, {"iso-8859-8", "ISO-8859-8"},
    {"iso-8859-8-i", "ISO-8859-8"}, {"iso-8859-10", "ISO-8859-10"}, {"iso-8859-13", "ISO-8859-13"},
    {"iso-8859-14", "ISO-8859-14"}, {"iso-8859-15", "ISO-8859-15"}, {"latin-9", "ISO-8859-15"},
    {"iso-8859-16", "ISO-8859-16"}, {"koi8-r", "KOI8-R"}, {"koi8", "KOI8-R"}, {"koi8-u", "KOI8-U"},
    {"ibm866", "IBM866"}, {"cp866", "IBM866"}, {"macintosh", "MACINTOSH"},
    {"gb2312", "GB18030"}, {"gbk", "GB18030"}, {"gb18030", "GB18030"}, {"x-gbk", "GB18030"},
    {"big5", "BIG5-HKSCS"}, {"big5-hkscs", "BIG5-HKSCS"}, {"x-x-big5", "BIG5-HKSCS"},
    {"euc-jp", "EUC-JP"}, {"x-euc-jp", "EUC-JP"}, {"shift_jis", "CP932"}, {"shift-jis", "CP932"},
    {"sjis", "CP932"}, {"x-sjis", "CP932"}, {"windows-31j", "CP932"}, {"ms_kanji", "CP932"},
    {"iso-2022-jp", "ISO-2022-JP"}, {"euc-kr", "CP949"}, {"ks_c_5601-1987", "CP949"},
    {"korean", "CP949"}, {"windows-949", "CP949"},
};

/* NULL: a label that no browser knows. */
static const char *encoding_of(const char *label, size_t length)
{
    for (; length > 0 && strchr(" \t\"'", *label) && *label; length--)
        label++;
    while (length > 0 && strchr(" \t\"';", label[length - 1]) && label[length - 1])
        length--;
    for (size_t i = 0; i < ARRAY_COUNT(encodings); i++)
        if (strlen(encodings[i].label) == length &&
            strncasecmp(encodings[i].label, label, length) == 0)
            return encodings[i].name;
    return NULL;
}

int html_check_encodings(struct err *err)
{
    for (size_t i = 0; i < ARRAY_COUNT(encodings); i++) {
        iconv_t converter = iconv_open("UTF-8", encodings[i].name);
        if (converter == (iconv_t)-1)
            return err_set(err, ERR_NOT_FOUND, "iconv does not know the charset %s, which pages "
                           "may have: glibc's gconv modules are missing", encodings[i].name);
        iconv_close(converter);
    }
    return 0;
}

/* ---- which ------------------------------------------------------------------------------ */

/* The charset of a <meta> tag's inside: charset=X, also within content="...". */
static const char *meta_encoding(const char *tag, size_t length)
{
    for (size_t i = 0; i + 8 < length; i++) {
        if (strncasecmp(tag + i, "charset", 7) != 0)
            continue;
        size_t at = i + 7;
        while (at < length && memchr(" \t\r\n", tag[at], 4))
            at++;
        if (at == length || tag[at] != '=')
            continue;
        for (at++; at < length && memchr(" \t\r\n\"'", tag[at], 6);)
            at++;
        size_t end = at;
        while (end < length && end - at < LABEL_BYTES && !memchr(" \t\r\n\"';/>", tag[end], 9))
            end++;
        const char *found = encoding_of(tag + at, end - at);
        if (found) /* what could be searched for "<meta" byte by byte is not of 16 bits */
            return strncmp(found, "UTF-16", 6) == 0 ? "UTF-8" : found;
    }
    return NULL;
}

static const char *prescan(const char *bytes, size_t length)
{
    length = length < META_BYTES ? length : META_BYTES;
    for (size_t i = 0; i + 6 < length; i++) {
        if (bytes[i] != '<' || strncasecmp(bytes + i, "<meta", 5) != 0)
            continue;
        const char *end = memchr(bytes + i, '>', length - i);
        const char *found = meta_encoding(bytes + i, end ? (size_t)(end - bytes) - i : length - i);
        if (found)
            return found;
    }
    return NULL;
}

/* *mark: bytes of a byte order mark. */
static const char *choose(const char *declared, bool html, const char *bytes, size_t length,
                          size_t *mark)
{
    const char *found = NULL;

    *mark = 0;
    if (length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
        *mark = 3;
        return "UTF-8";
    }
    if (length >= 2 && (memcmp(bytes, "\xFF\xFE", 2) == 0 || memcmp(bytes, "\xFE\xFF", 2) == 0)) {
        *mark = 2;
        return (uint8_t)*bytes == 0xFF ? "UTF-16LE" : "UTF-16BE";
    }
    if (declared)
        found = encoding_of(declared, strlen(declared));
    if (!found && html)
        found = prescan(bytes, length);
    if (!found)
        found = text_is_utf8(bytes, length) ? "UTF-8" : "CP1252";
    return found;
}

/* ---- conversion ------------------------------------------------------------------------- */

/* Zero characters become U+FFFD too: texts are terminated. And what iconv takes for characters
 * beyond Unicode's last, which UTF-8 cannot hold (glibc's knows its form of before 2003). */
static void add_clean(struct buf *out, const char *bytes, size_t length)
{
    if (!memchr(bytes, 0, length) && text_is_utf8(bytes, length)) {
        buf_add(out, bytes, length);
        return;
    }
    for (size_t i = 0, step; i < length; i += step) {
        uint32_t c = char_at(bytes + i, length - i, &step);
        if (c == 0 || c == 0xFFFD)
            buf_puts(out, replacement);
        else
            buf_add(out, bytes + i, step);
    }
}

/* What is no character is one U+FFFD a byte. */
static void convert(const char *encoding, const char *bytes, size_t length, struct buf *out)
{
    iconv_t converter = iconv_open("UTF-8", encoding);
    char room[4096], *from = (char *)bytes; /* iconv only reads it */
    size_t left = length;

    CHECK(converter != (iconv_t)-1); /* html_check_encodings */
    while (left > 0) {
        char *to = room;
        size_t free_bytes = sizeof room;
        size_t rc = iconv(converter, &from, &left, &to, &free_bytes);
        add_clean(out, room, (size_t)(to - room));
        if (rc == (size_t)-1 && errno != E2BIG) {
            buf_puts(out, replacement);
            from++;
            left--;
            iconv(converter, NULL, NULL, NULL, NULL);
        }
    }
    iconv_close(converter);
}

const char *html_decode(const char *declared, bool html, const char *bytes, size_t length,
                        struct buf *out)
{
    size_t mark;
    const char *encoding = choose(declared, html, bytes, length, &mark);

    bytes += mark;
    length -= mark;
    if (strcmp(encoding, "UTF-8") == 0 && text_is_utf8(bytes, length))
        add_clean(out, bytes, length);
    else
        convert(encoding, bytes, length, out);
    return encoding;
}
