/* offer_test.c - options, inventory and slots: what a worker offers and gives away. */
#include "worker/daemon/claims.h"
#include "worker/daemon/inventory.h"
#include "worker/daemon/options.h"
#include "worker/daemon/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- options --------------------------------------------------------------------------------- */

#define GOOD                                                                                       \
    "athanor-worker", "--coordinator", "tcp://h:1,ipc:///p", "--keys", "/k/worker.key", "--state", \
        "/s", "--allow-root-jobs"

static int set_up(void **state)
{
    (void)state;
    unsetenv("ATHANOR_COORDINATOR");
    unsetenv("ATHANOR_KEYS");
    unsetenv("ATHANOR_SERVER_KEY");
    unsetenv("ATHANOR_WORKER_STATE");
    unsetenv("TMPDIR");
    return 0;
}

static void options_have_defaults_beside_what_is_given(void **state)
{
    char *words[] = {GOOD, "--label=a=b=c", "--memory", "2GiB"};
    struct options options;
    struct err err = {0};
    (void)state;
    if (options_read(ARRAY_COUNT(words), words, &options, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(options.endpoint_count, 2);
    assert_string_equal(options.server_key, "/k/coordinator.pub");
    assert_string_equal(options.jobs_dir, "/s/jobs");
    assert_string_equal(options.labels[0].name, "a");
    assert_string_equal(options.labels[0].value, "b=c");
    assert_int_equal(options.memory_bytes, (uint64_t)2 << 30);
    assert_string_equal(options.tmp, "/tmp");
    assert_non_null(strstr(options.shepherd, "/athanor-shepherd"));
    options_done(&options);
}

static void wrong_options_are_refused_by_name(void **state)
{
    static const struct {
        char *words[3];
        const char *mention;
    } cases[] = {
        {{"--memory", "2"}, "--memory"},
        {{"--memory"}, "SIZE is missing"},
        {{"--labels", "a=b"}, "did you mean --label"},
        {{"--label", "ab"}, "NAME=VALUE"},
        {{"--coordinator", "host:1"}, "tcp://HOST:PORT"},
        {{"--verbose=yes"}, "takes no value"},
        {{"stray"}, "not an option"},
        {{"--state", ""}, "--state is required"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *words[12] = {GOOD};
        struct options options;
        struct err err = {0};
        int count = 8;
        for (size_t k = 0; k < 3 && cases[i].words[k]; k++)
            words[count++] = cases[i].words[k];
        assert_int_equal(options_read(count, words, &options, &err), -1);
        if (!strstr(err.text, cases[i].mention))
            fail_msg("'%s' does not mention '%s'", err.text, cases[i].mention);
    }
}

static void root_must_say_as_whom_jobs_run(void **state)
{
    char *words[] = {"athanor-worker", "--coordinator", "tcp://h:1", "--keys", "k", "--state", "s"};
    struct options options;
    struct err err = {0};
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(options_read(ARRAY_COUNT(words), words, &options, &err), -1);
    assert_non_null(strstr(err.text, "--job-user"));
}

/* ---- inventory ------------------------------------------------------------------------------- */

static bool claim_even(void *user, unsigned cpu)
{
    (void)user;
    return cpu % 2 == 0;
}

static struct inventory_core cores_of_test[4];
static unsigned cpus_of_test[4] = {0, 1, 2, 3};

static struct inventory four_cores(void)
{
    struct inventory inventory = {.cores = cores_of_test, .core_count = 4};
    for (size_t i = 0; i < 4; i++)
        cores_of_test[i] = (struct inventory_core){&cpus_of_test[i], 1};
    return inventory;
}

static void this_machine_has_cores_and_memory(void **state)
{
    struct inventory inventory;
    struct err err = {0};
    (void)state;
    if (inventory_take("fake:3", &inventory, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(inventory.core_count >= 1);
    assert_true(inventory.cores[0].cpu_count >= 1);
    assert_true(inventory.memory_bytes > (uint64_t)64 << 20);
    assert_int_equal(inventory.gpu_count, 3);
    inventory_done(&inventory);
    assert_int_equal(inventory_take("fake:x", &inventory, &err), -1);
    assert_int_equal(inventory_take("two", &inventory, &err), -1);
    assert_non_null(strstr(err.text, "auto, none or fake:N"));
}

static void cores_that_another_worker_has_are_passed_over(void **state)
{
    struct inventory inventory = four_cores();
    struct err err = {0};
    size_t unbound;
    (void)state;
    assert_int_equal(inventory_choose(&inventory, "3", claim_even, NULL, &unbound, &err), 0);
    assert_int_equal(inventory.core_count, 3);
    assert_int_equal(unbound, 1);
    assert_int_equal(inventory.cores[0].cpus[0], 0);
    assert_int_equal(inventory.cores[1].cpus[0], 2);
    assert_int_equal(inventory.cores[2].cpu_count, 0);
    inventory_done(&inventory);
}

static void a_list_means_exactly_these(void **state)
{
    static const char *const wrong[] = {"0-", "-1", "3-1", "0,,1", "0-9", "1,1", "0,x", "0-1,"};
    struct inventory inventory = four_cores();
    struct err err = {0};
    size_t unbound;
    (void)state;
    assert_int_equal(inventory_choose(&inventory, "1-2,0", claim_even, NULL, &unbound, &err), 0);
    assert_int_equal(inventory.core_count, 3);
    assert_int_equal(unbound, 1);
    assert_int_equal(inventory.cores[0].cpu_count, 0); /* CPU 1 is another worker's */
    assert_int_equal(inventory.cores[2].cpus[0], 0);
    inventory_done(&inventory);
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        inventory = four_cores();
        if (inventory_choose(&inventory, wrong[i], claim_even, NULL, &unbound, &err) == 0)
            fail_msg("'%s' is accepted", wrong[i]);
        assert_non_null(strstr(err.text, "--cores"));
        inventory_done(&inventory);
    }
}

static void a_claim_excludes_others_until_it_is_given_back(void **state)
{
    struct claims one = {0}, two = {0};
    unsigned cpu = 1000000; /* no machine has it, no worker claims it */
    (void)state;
    assert_true(claims_take(&one, cpu));
    assert_false(claims_take(&two, cpu));
    claims_done(&one);
    assert_true(claims_take(&two, cpu));
    claims_done(&two);
}

static void a_program_that_prints_no_catalogue_is_told(void **state)
{
    char *text;
    struct err err = {0};
    (void)state;
    assert_int_equal(inventory_catalogue("/nowhere/engine", &text, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(inventory_catalogue("/bin/false", &text, &err), -1);
    assert_int_equal(inventory_catalogue("/bin/echo", &text, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static void gpus_of_another_model_are_left_alone(void **state)
{
    (void)state;
    struct inventory_gpu gpus[] = {{.model = "A100-SXM4", .visible = "0"},
                                   {.model = "NVIDIA H100", .visible = "1"},
                                   {.model = "NVIDIA H100", .visible = "2"}};
    struct inventory inventory = {.gpus = gpus, .gpu_count = 3};
    struct slots slots;
    struct err err;
    slots_init(&slots, &inventory);
    assert_int_equal(slots_take(&slots, 7, 0, 3, "h100", &err), -1);
    assert_non_null(strstr(err.text, "3 GPUs of model h100"));
    assert_int_equal(slots_take(&slots, 7, 0, 1, "h100", &err), 0);
    assert_ptr_equal(slots_gpu(&slots, 7, 0), &gpus[1]);
    assert_int_equal(slots_take(&slots, 8, 0, 1, "", &err), 0);
    assert_ptr_equal(slots_gpu(&slots, 8, 0), &gpus[0]);
    assert_int_equal(slots_take(&slots, 9, 0, 1, "a100", &err), -1);
    assert_int_equal(slots_take(&slots, 9, 0, 1, "H100", &err), 0);
    assert_ptr_equal(slots_gpu(&slots, 9, 0), &gpus[2]);
    slots_done(&slots);
}

static void slots_are_taken_whole_or_not_at_all(void **state)
{
    struct inventory inventory = four_cores();
    struct slots slots;
    struct err err = {0};
    (void)state;
    slots_init(&slots, &inventory);
    assert_int_equal(slots_take(&slots, 7, 3, 0, "", &err), 0);
    assert_int_equal(slots_take(&slots, 8, 2, 0, "", &err), -1);
    assert_int_equal(slots_take(&slots, 8, 1, 1, "", &err), -1); /* no GPU: the core stays free */
    assert_int_equal(slots_take(&slots, 8, 1, 0, "", &err), 0);
    assert_ptr_equal(slots_core(&slots, 7, 2), &inventory.cores[2]);
    assert_ptr_equal(slots_core(&slots, 8, 0), &inventory.cores[3]);
    assert_null(slots_core(&slots, 8, 1));
    slots_release(&slots, 7);
    assert_int_equal(slots_take(&slots, 9, 3, 0, "", &err), 0);
    slots_done(&slots);
}

static void a_found_attempt_keeps_its_cores(void **state)
{
    struct inventory inventory = four_cores();
    struct slots slots;
    struct err err = {0};
    (void)state;
    slots_init(&slots, &inventory);
    slots_mark_cpu(&slots, 7, 2);
    assert_int_equal(slots_take(&slots, 8, 3, 0, "", &err), 0);
    assert_ptr_equal(slots_core(&slots, 7, 0), &inventory.cores[2]);
    assert_ptr_equal(slots_core(&slots, 8, 2), &inventory.cores[3]);
    slots_done(&slots);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(options_have_defaults_beside_what_is_given),
        TEST(wrong_options_are_refused_by_name),
        TEST(root_must_say_as_whom_jobs_run),
        TEST(this_machine_has_cores_and_memory),
        TEST(cores_that_another_worker_has_are_passed_over),
        TEST(a_list_means_exactly_these),
        TEST(a_claim_excludes_others_until_it_is_given_back),
        TEST(a_program_that_prints_no_catalogue_is_told),
        TEST(gpus_of_another_model_are_left_alone),
        TEST(slots_are_taken_whole_or_not_at_all),
        TEST(a_found_attempt_keeps_its_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
