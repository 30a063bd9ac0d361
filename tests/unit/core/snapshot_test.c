/* snapshot_test.c - archives of code on their way in: order, damage, another leader, needs. */
#include "common/base/chunks.h"
#include "common/base/mem.h"
#include "coordinator/core/state.h"
#include "tests/lib/core/memory_db.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BASE_US 1000000000000000u
#define SIZE    (2 * CHUNK_BYTES + 100)

struct fixture {
    struct core *core;
    struct memory_db *db;
    struct effects effects;
    struct arena arena;
    uint64_t now_ms;
    char *bytes; /* SIZE of them */
    struct hash each[3], whole;
};

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    f->core = core_new(&(struct core_config){.epoch = 1});
    f->db = memory_db_new();
    effects_init(&f->effects);
    f->bytes = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        f->bytes[i] = (char)(i * 7 + i / 251);
    for (size_t i = 0; i < 3; i++)
        hash_bytes(f->bytes + i * CHUNK_BYTES, chunk_bytes(SIZE, i), &f->each[i]);
    chunks_hash(SIZE, f->each, 3, &f->whole);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    core_free(f->core);
    memory_db_free(f->db);
    effects_done(&f->effects);
    arena_done(&f->arena);
    mem_free(f->bytes);
    mem_free(f);
    return 0;
}

static void assert_rebuilt_equal(struct fixture *f)
{
    struct buf before = {0}, after = {0};
    uint64_t wake;
    struct core *again = memory_db_load(f->db, &(struct core_config){.epoch = 1}, f->now_ms,
                                        BASE_US, &wake);
    core_dump(f->core, &before);
    core_dump(again, &after);
    assert_string_equal(buf_text(&before), buf_text(&after));
    core_free(again);
    buf_done(&before);
    buf_done(&after);
}

static const struct message *step(struct fixture *f, struct event event)
{
    event.now_ms = ++f->now_ms;
    event.wall_us = BASE_US;
    effects_reset(&f->effects);
    core_step(f->core, &event, &f->effects);
    const char *fault =
        memory_db_apply(f->db, f->effects.persist, f->effects.persist_count, &f->arena);
    if (!fault)
        fault = core_check(f->core, true, &f->arena);
    if (fault)
        fail_msg("%s", fault);
    assert_rebuilt_equal(f);
    assert_int_equal(f->effects.release_count, 1);
    return &f->effects.release[0].message;
}

static const struct message *offer(struct fixture *f, uint64_t size_bytes, size_t hash_count)
{
    struct msg_code_offer offer = {.content = f->whole,
                                   .size_bytes = size_bytes,
                                   .chunks = {(const char *)f->each, hash_count * HASH_BYTES}};
    return step(f, (struct event){.kind = EVENT_CODE_OFFER,
                                  .code = {.client = 1, .account = "ann", .offer = &offer}});
}

static const struct message *put(struct fixture *f, uint64_t chunk)
{
    struct msg_code_put put = {.content = f->whole,
                               .chunk = chunk,
                               .data = {f->bytes + chunk % 3 * CHUNK_BYTES,
                                        chunk_bytes(SIZE, chunk % 3)}};
    return step(f, (struct event){.kind = EVENT_CODE_PUT,
                                  .code = {.client = 1, .account = "ann", .put = &put}});
}

static void assert_stored(const struct message *answer, uint64_t stored)
{
    assert_int_equal(answer->tag, MSG_CODE_STATE);
    assert_int_equal(answer->u.code_state.stored, stored);
    assert_int_equal(answer->u.code_state.total, 3);
}

static void chunks_come_in_order_and_repeats_change_nothing(void **state)
{
    struct fixture *f = *state;
    assert_stored(offer(f, SIZE, 3), 0);
    assert_stored(put(f, 0), 1);
    assert_stored(put(f, 0), 1);
    assert_int_equal(put(f, 2)->tag, MSG_REFUSED);
    assert_stored(offer(f, SIZE, 3), 1);
    assert_stored(put(f, 1), 2);
    assert_string_equal(snapshot_fault(f->core, &f->whole), "has not been sent to its end");
    assert_stored(put(f, 2), 3);
    assert_null(snapshot_fault(f->core, &f->whole));
    assert_stored(offer(f, SIZE, 3), 3);
    assert_int_equal(put(f, 3)->tag, MSG_REFUSED);
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_snapshot), 1);
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_snapshot_chunk), 3);
}

static void another_leader_goes_on_where_the_first_stopped(void **state)
{
    struct fixture *f = *state;
    uint64_t wake;
    offer(f, SIZE, 3);
    put(f, 0);
    core_free(f->core);
    f->core = memory_db_load(f->db, &(struct core_config){.epoch = 2}, f->now_ms, BASE_US, &wake);
    assert_stored(put(f, 1), 2);
    assert_stored(put(f, 2), 3);
}

static void damage_is_refused_and_the_transfer_goes_on(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(offer(f, SIZE, 2)->tag, MSG_REFUSED);
    assert_int_equal(offer(f, SIZE + 1, 3)->tag, MSG_REFUSED);
    assert_int_equal(offer(f, 0, 0)->tag, MSG_REFUSED);
    assert_int_equal(offer(f, UINT64_MAX, 3)->tag, MSG_REFUSED);
    assert_int_equal(put(f, 0)->tag, MSG_REFUSED);
    offer(f, SIZE, 3);
    f->bytes[5] ^= 1;
    assert_int_equal(put(f, 0)->tag, MSG_REFUSED);
    f->bytes[5] ^= 1;
    assert_stored(put(f, 0), 1);
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_snapshot), 1);
}

/* Small archives of one chunk, held and let go at random, as jobs do. */
static void what_a_living_job_needs_is_never_collected(void **state)
{
    struct fixture *f = *state;
    struct hash contents[20];
    unsigned holds[20] = {0}, there[20] = {0};
    struct rng rng;
    rng_init(&rng, 7);
    for (unsigned round = 0; round < 2000; round++) {
        size_t i = (size_t)rng_below(&rng, 20);
        char byte = (char)i;
        struct hash each;
        hash_bytes(&byte, 1, &each);
        chunks_hash(1, &each, 1, &contents[i]);
        struct msg_code_offer offer = {
            .content = contents[i], .size_bytes = 1, .chunks = {(const char *)&each, HASH_BYTES}};
        struct msg_code_put put = {.content = contents[i], .data = {&byte, 1}};
        struct msg_collect collect = {
            .at_once = true, .keep_ms = rng_below(&rng, 3), .kind = "code"};
        struct event event = {.kind = EVENT_COLLECT,
                              .now_ms = ++f->now_ms,
                              .wall_us = BASE_US + round * 1000,
                              .collect = {.client = 1,
                                          .account = "ann",
                                          .is_operator = true,
                                          .collect = &collect}};
        switch (rng_below(&rng, 4)) {
        case 0:
            event.kind = EVENT_CODE_OFFER;
            event.code = (struct event_code){.client = 1, .account = "ann", .offer = &offer};
            break;
        case 1:
            event.kind = EVENT_CODE_PUT;
            event.code = (struct event_code){.client = 1, .account = "ann", .put = &put};
            break;
        case 2:
            there[i] = snapshot_fault(f->core, &contents[i]) == NULL;
            if (there[i] && holds[i] < 3) {
                snapshot_hold(f->core, &contents[i]);
                holds[i]++;
            } else if (holds[i] > 0) {
                snapshot_release(f->core, &contents[i]);
                holds[i]--;
            }
            event.kind = EVENT_CODE_OFFER;
            event.code = (struct event_code){.client = 1, .account = "ann", .offer = &offer};
            break;
        default:
            break;
        }
        effects_reset(&f->effects);
        core_step(f->core, &event, &f->effects);
        assert_null(memory_db_apply(f->db, f->effects.persist, f->effects.persist_count,
                                    &f->arena));
        for (size_t k = 0; k < 20; k++)
            if (holds[k] > 0)
                assert_null(snapshot_fault(f->core, &contents[k]));
    }
    struct msg_collect all = {.at_once = true, .kind = ""};
    struct event event = {.kind = EVENT_COLLECT,
                          .now_ms = ++f->now_ms,
                          .wall_us = BASE_US * 2,
                          .collect = {.client = 1,
                                      .account = "ann",
                                      .is_operator = true,
                                      .collect = &all}};
    effects_reset(&f->effects);
    core_step(f->core, &event, &f->effects);
    for (size_t k = 0; k < 20; k++)
        assert_true((snapshot_fault(f->core, &contents[k]) == NULL) == (holds[k] > 0));
    event.collect.is_operator = false;
    effects_reset(&f->effects);
    core_step(f->core, &event, &f->effects);
    assert_int_equal(f->effects.release[0].message.tag, MSG_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(chunks_come_in_order_and_repeats_change_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_leader_goes_on_where_the_first_stopped, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_a_living_job_needs_is_never_collected, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(damage_is_refused_and_the_transfer_goes_on, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
