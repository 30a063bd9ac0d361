/* report_test.c - lines reach the shepherd whole and in order, and its orders reach the run. */
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/io/report.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 20000 /* bound of every wait; reached only by a failing test */

struct fixture {
    char *folder, *path;
    int listener, peer;
    struct buf received;
};

static void listen_at(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", f->path);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(f->listener, 4), 0);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    f->folder = folder_make();
    f->path = mem_printf("%s/report", f->folder);
    f->peer = -1;
    listen_at(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->peer >= 0)
        close(f->peer);
    if (f->listener >= 0)
        close(f->listener);
    buf_done(&f->received);
    mem_free(f->path);
    folder_done(f->folder);
    mem_free(f);
    return 0;
}

/* The next line that the shepherd's end receives (owned by the fixture until the next call). */
static char *next_line(struct fixture *f)
{
    static char line[REPORT_LINE_MAX];
    for (;;) {
        char *end = f->received.length ? memchr(f->received.bytes, '\n', f->received.length) : NULL;
        if (end) {
            size_t length = (size_t)(end - f->received.bytes);
            memcpy(line, f->received.bytes, length);
            line[length] = 0;
            buf_drop(&f->received, length + 1);
            return line;
        }
        struct pollfd ready = {.fd = f->peer, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
        char chunk[4096];
        ssize_t got = recv(f->peer, chunk, sizeof chunk, 0);
        assert_true(got > 0);
        buf_add(&f->received, chunk, (size_t)got);
    }
}

static struct report *connected(struct fixture *f)
{
    struct err err = {0};
    struct report *report;
    if (report_open(f->path, 3, &report, &err) < 0)
        fail_msg("%s", err.text);
    f->peer = accept(f->listener, NULL, NULL);
    assert_true(f->peer >= 0);
    assert_string_equal(next_line(f), "{\"type\":\"hello\",\"rank\":3}");
    return report;
}

static void every_kind_of_line_is_sent_as_the_contract_says(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report = connected(f);
    const struct report_value loss = {"loss", 0.1};
    assert_int_equal(report_metrics(report, 5, &loss, 1, &err), 0);
    assert_string_equal(next_line(f), "{\"type\":\"metric\",\"step\":5,\"values\":{\"loss\":"
                                      "0.10000000000000001}}");
    assert_int_equal(report_progress(report, 5, 9, "train", &err), 0);
    assert_string_equal(next_line(f), "{\"type\":\"progress\",\"step\":5,\"total\":9,\"phase\":"
                                      "\"train\"}");
    assert_int_equal(report_checkpoint(report, 5, "/c", 7, &loss, 1, &err), 0);
    assert_string_equal(next_line(f), "{\"type\":\"checkpoint\",\"step\":5,\"path\":\"/c\","
                                      "\"save_ms\":7,\"reply\":true,\"metrics\":{\"loss\":"
                                      "0.10000000000000001}}");
    assert_int_equal(report_artifact(report, "dataset", "n", "/d", "{\"a\": 1}", &err), 0);
    assert_string_equal(next_line(f), "{\"type\":\"artifact\",\"kind\":\"dataset\",\"name\":\"n\","
                                      "\"path\":\"/d\",\"reply\":true,\"meta\":{\"a\":1}}");
    assert_int_equal(report_event(report, "diverged", "why", 0, &err), 0);
    assert_string_equal(next_line(f), "{\"type\":\"event\",\"name\":\"diverged\",\"text\":\"why\","
                                      "\"fields\":{}}");
    report_close(report);
}

static struct report_order wait_for_order(struct report *report)
{
    struct err err = {0};
    struct report_order order = {0};
    uint64_t deadline = clock_steady_ms() + PATIENCE_MS;
    while (order.kind == ORDER_NONE && clock_steady_ms() < deadline)
        assert_int_equal(report_poll(report, &order, &err), 0);
    return order;
}

static void orders_arrive_one_by_one_however_they_are_cut(void **state)
{
    struct fixture *f = *state;
    struct report *report = connected(f);
    static const char lines[] = "{\"ok\": true}\n{\"type\": \"checkpoint_now\"}\n"
                                "{\"type\": \"stop\", \"cause\": \"cancelled\", \"grace_ms\": 9}\n"
                                "{\"ok\": false, \"error\": \"no file\"}\n";
    for (size_t i = 0; i < strlen(lines); i += 7) {
        size_t left = strlen(lines) - i;
        assert_true(send(f->peer, lines + i, left < 7 ? left : 7, 0) > 0);
    }
    assert_int_equal(wait_for_order(report).kind, ORDER_CHECKPOINT);
    struct report_order stop = wait_for_order(report);
    assert_int_equal(stop.kind, ORDER_STOP);
    assert_int_equal(stop.grace_ms, 9);
    assert_string_equal(stop.text, "cancelled");
    struct report_order refused = wait_for_order(report);
    assert_int_equal(refused.kind, ORDER_REFUSED);
    assert_string_equal(refused.text, "no file");
    report_close(report);
}

/* The shepherd reads nothing for a while: queueing 2,000 lines must not wait for it. */
static void a_shepherd_that_does_not_read_holds_nothing_up(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report = connected(f);
    enum { LINES = 20000 };
    for (uint64_t step = 1; step <= LINES; step++) {
        const struct report_value value = {"a_metric_with_a_rather_long_name", (double)step};
        assert_int_equal(report_metrics(report, step, &value, 1, &err), 0);
    }
    for (uint64_t step = 1; step <= LINES; step++) {
        struct report_order order;
        char expected[64];
        assert_int_equal(report_poll(report, &order, &err), 0);
        snprintf(expected, sizeof expected, "{\"type\":\"metric\",\"step\":%lu,",
                 (unsigned long)step);
        assert_int_equal(strncmp(next_line(f), expected, strlen(expected)), 0);
    }
    report_close(report);
}

static void settling_waits_for_the_answer_and_notices_a_refusal(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report = connected(f);
    static const char yes[] = "{\"ok\": true}\n", no[] = "{\"ok\": false, \"error\": \"size\"}\n";
    assert_int_equal(report_settle(report, PATIENCE_MS, &err), 0); /* nothing is awaited */
    assert_int_equal(report_checkpoint(report, 1, "/c", 0, NULL, 0, &err), 0);
    assert_true(send(f->peer, yes, strlen(yes), 0) > 0);
    assert_int_equal(report_settle(report, PATIENCE_MS, &err), 0);
    assert_int_equal(report_checkpoint(report, 2, "/c", 0, NULL, 0, &err), 0);
    assert_true(send(f->peer, no, strlen(no), 0) > 0);
    assert_int_equal(report_settle(report, PATIENCE_MS, &err), -1);
    assert_non_null(strstr(err.text, "size"));
    report_close(report);
}

static void unsent_lines_survive_a_lost_connection(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report = connected(f);
    const struct report_value value = {"x", 1};
    close(f->peer);
    f->peer = -1;
    buf_clear(&f->received);
    /* The loss is noticed, and from then on lines wait for the new connection. */
    uint64_t deadline = clock_steady_ms() + PATIENCE_MS;
    while (report_is_connected(report) && clock_steady_ms() < deadline) {
        struct report_order order;
        assert_int_equal(report_poll(report, &order, &err), 0);
    }
    assert_int_equal(report_metrics(report, 7, &value, 1, &err), 0);
    assert_int_equal(report_flush(report, PATIENCE_MS, &err), 0);
    f->peer = accept(f->listener, NULL, NULL);
    assert_string_equal(next_line(f), "{\"type\":\"hello\",\"rank\":3}");
    assert_string_equal(next_line(f), "{\"type\":\"metric\",\"step\":7,\"values\":{\"x\":1.0}}");
    report_close(report);
}

static void a_shepherd_that_never_was_is_an_error_at_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report;
    char *path = mem_printf("%s/none", f->folder);
    char *endless = mem_printf("/%0200d", 0);
    assert_int_equal(report_open(path, 0, &report, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(report_open(endless, 0, &report, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    mem_free(endless);
    mem_free(path);
}

static void standalone_reports_go_nowhere(void **state)
{
    (void)state;
    struct err err = {0};
    struct report *report;
    struct report_order order;
    assert_int_equal(report_open(NULL, 0, &report, &err), 0);
    assert_int_equal(report_event(report, "a", "b", 0, &err), 0);
    assert_int_equal(report_poll(report, &order, &err), 0);
    assert_int_equal(order.kind, ORDER_NONE);
    assert_int_equal(report_flush(report, 0, &err), 0);
    report_close(report);
}

static void bad_reports_and_bad_orders_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct report *report = connected(f);
    struct report_order order;
    assert_int_equal(report_event(report, "name", "\xFF", 0, &err), -1);
    assert_int_equal(report_artifact(report, "k", "n", "/p", "[1]", &err), -1);
    assert_non_null(strstr(err.text, "not a JSON object"));
    char *huge = mem_alloc(REPORT_LINE_MAX + 1);
    memset(huge, 'a', REPORT_LINE_MAX);
    huge[REPORT_LINE_MAX] = 0;
    assert_int_equal(report_event(report, "name", huge, 0, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    mem_free(huge);
    assert_int_equal(report_order_parse("[]", 2, &order, &err), -1);
    assert_int_equal(report_order_parse("{\"type\":\"later\"}", 16, &order, &err), 0);
    assert_int_equal(order.kind, ORDER_NONE);
    report_close(report);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_kind_of_line_is_sent_as_the_contract_says),
        TEST(orders_arrive_one_by_one_however_they_are_cut),
        TEST(a_shepherd_that_does_not_read_holds_nothing_up),
        TEST(settling_waits_for_the_answer_and_notices_a_refusal),
        TEST(unsent_lines_survive_a_lost_connection),
        TEST(a_shepherd_that_never_was_is_an_error_at_once),
        TEST(standalone_reports_go_nowhere),
        TEST(bad_reports_and_bad_orders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
