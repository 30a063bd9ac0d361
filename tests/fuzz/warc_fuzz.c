/* link: recipes */
/* warc_fuzz.c - any bytes as a record's header, as what HTTP answered and as a page: its text is
 * UTF-8 without zero characters, and not longer than references and replaced bytes can make it. */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/data/web/warc.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const struct html_skip skip = {{"nav", "aside"}, 2};

static void check_text(const struct buf *text)
{
    CHECK(!text->bytes || strlen(text->bytes) == text->length);
    CHECK(text_is_utf8(buf_text(text), text->length));
}

static void as_page(const char *charset, const char *bytes, size_t length)
{
    struct buf decoded = {0}, text = {0};

    CHECK(html_decode(charset, true, bytes, length, &decoded));
    check_text(&decoded);
    CHECK(decoded.length <= 6 * length); /* UTF-16 and GB18030: 2 bytes to 6 at most */
    html_text(&skip, buf_text(&decoded), decoded.length, &text);
    check_text(&text);
    CHECK(text.length <= 2 * decoded.length);
    buf_done(&decoded);
    buf_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    static const char *const charsets[] = {NULL, "utf-8", "shift_jis", "gbk", "iso-2022-jp",
                                           "utf-16be", "big5", "euc-kr", "nonsense"};
    char *bytes = mem_alloc(length + 1);
    struct warc_header header = {.type = WARC_RESPONSE, .media_type = (char *)"text/html"};
    struct warc_header parsed;
    struct buf text = {0};
    struct err err;

    memcpy(bytes, data, length);
    if (warc_header_parse(bytes, length, &parsed, &err) == 0) {
        CHECK(parsed.uri && parsed.id && parsed.media_type);
        if (warc_is_document(&parsed) && !warc_page_text(&parsed, &skip, bytes, length, &text))
            check_text(&text);
        warc_header_done(&parsed);
    } else {
        CHECK(err.kind == ERR_PROTOCOL);
    }
    buf_clear(&text);
    if (!warc_page_text(&header, &skip, bytes, length, &text))
        check_text(&text);
    CHECK(text.length <= 2 * WARC_PAGE_MAX);
    as_page(length ? charsets[data[0] % ARRAY_COUNT(charsets)] : NULL, bytes, length);
    buf_done(&text);
    mem_free(bytes);
    return 0;
}
