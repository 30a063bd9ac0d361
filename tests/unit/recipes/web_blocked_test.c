/* web_blocked_test.c - block lists and garbled text. */
#include "common/base/buf.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/data/web/blocked.h"

#include <math.h>

static const char list[] = "# a list\r\nbad.example\r\n\n0.0.0.0 Ads.Example  # from a hosts file\n"
                           "https://www.part.example/spam/\nother.example/a?b=c\nexample.net/x/y";

static void hosts_and_what_is_below_them_are_blocked(void **state)
{
    static const struct {
        const char *url;
        bool blocked;
    } asked[] = {
        {"http://bad.example/", true},
        {"https://www.BAD.example", true},
        {"bad.example", true},
        {"http://a.b.bad.example:8080/x?y#z", true},
        {"http://user@bad.example/x", true},
        {"http://notbad.example/", false},
        {"http://bad.example.org/", false},
        {"http://example/", false},
        {"http://good.example/bad.example", false},
        {"http://good.example/?u=http://bad.example", false},
        {"http://ads.example/x", true},
        {"http://part.example/", false},
        {"http://part.example/spam", true},
        {"http://part.example/spam/more?x", true},
        {"http://part.example/spam?x", true},
        {"http://part.example/spams", false},
        {"http://sub.part.example/spam/", true},
        {"http://other.example/a", false},
        {"http://other.example/a?b=c", true},
        {"http://other.example/a?b=cd", false},
        {"http://example.net/x", false},
        {"http://example.net/x/y/z", true},
        {"", false},
        {"http://", false},
        {"://@:/", false},
    };
    struct blocked blocked = {0}, none = {0};

    (void)state;
    blocked_add(&blocked, list, strlen(list));
    for (size_t i = 0; i < ARRAY_COUNT(asked); i++) {
        if (blocked_has(&blocked, asked[i].url) != asked[i].blocked)
            fail_msg("%s", asked[i].url);
        assert_false(blocked_has(&none, asked[i].url));
    }
    blocked_done(&blocked);
    blocked_done(&none);
}

static void hostile_addresses_are_looked_at_up_to_a_bound(void **state)
{
    struct blocked blocked = {0};
    struct buf url = {0};

    (void)state;
    blocked_add(&blocked, list, strlen(list));
    for (int i = 0; i < 200000; i++)
        buf_puts(&url, "a.");
    for (int i = 0; i < 200000; i++)
        buf_puts(&url, "/?");
    assert_false(blocked_has(&blocked, url.bytes));
    buf_done(&url);
    blocked_done(&blocked);
}

static void garbled_is_the_share_of_characters_that_are_no_text(void **state)
{
    static const struct {
        const char *text;
        double share;
    } asked[] = {
        {"", 0},
        {"plain\ttext\n", 0},
        {"caf\xC3\xA9 \xE2\x80\x94 \xE6\x97\xA5\xC2\xA0", 0},
        {"a\xEF\xBF\xBD" "bc", 0.25},
        {"a\x01\x7F" "c", 0.5},
        {"\xEE\x80\x80x", 0.5}, /* private */
        {"\xCD\xB8x", 0.5},     /* unassigned U+0378 */
        {"\xFFx", 0.5},         /* no UTF-8 */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(asked); i++)
        if (fabs(garbled_share(asked[i].text, strlen(asked[i].text)) - asked[i].share) > 1e-12)
            fail_msg("text %zu: %g", i, garbled_share(asked[i].text, strlen(asked[i].text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_what_is_below_them_are_blocked),
        cmocka_unit_test(hostile_addresses_are_looked_at_up_to_a_bound),
        cmocka_unit_test(garbled_is_the_share_of_characters_that_are_no_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
