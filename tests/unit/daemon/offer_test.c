/* offer_test.c - options, inventory and slots: what a worker offers and gives away. */
#include "worker/daemon/account.h"
#include "worker/daemon/claims.h"
#include "worker/daemon/inventory.h"
#include "worker/daemon/options.h"
#include "worker/daemon/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

static void the_line_of_a_principal_names_the_account_of_its_jobs(void **state)
{
    static const char text[] =
        "# who  as\n\n*  shared\nann alice # of the first floor\n  bob bobby\n";
    static const struct {
        const char *text, *mention;
    } wrong[] = {{"ann\n", "line 1: expected a principal and an account"},
                 {"bob b\nann a b\n", "line 2: expected"},
                 {"bob b\n", "no line for 'ann'"},
                 {"", "no line for 'ann'"}};
    char name[ACCOUNT_NAME_MAX + 1];
    struct err err = {0};
    (void)state;
    assert_int_equal(account_line(text, "ann", name, &err), 0);
    assert_string_equal(name, "alice");
    assert_int_equal(account_line(text, "bob", name, &err), 0);
    assert_string_equal(name, "bobby");
    assert_int_equal(account_line(text, "carl", name, &err), 0);
    assert_string_equal(name, "shared");
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_int_equal(account_line(wrong[i].text, "ann", name, &err), -1);
        if (!strstr(err.text, wrong[i].mention))
            fail_msg("'%s' does not mention '%s'", err.text, wrong[i].mention);
    }
}

/* ---- inventory ------------------------------------------------------------------------------- */

static int take(struct slots *slots, uint64_t attempt_id, size_t ranks, size_t cores, size_t gpus,
                const char *model, struct err *err)
{
    struct slots_want want = {ranks, cores, gpus, model};
    return slots_take(slots, attempt_id, &want, err);
}

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
    assert_non_null(strstr(err.text, "auto, none, fake:N or fake:FILE"));
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
    assert_int_equal(take(&slots, 7, 1, 0, 3, "h100", &err), -1);
    assert_non_null(strstr(err.text, "3 GPUs of model h100"));
    assert_int_equal(take(&slots, 7, 1, 0, 1, "h100", &err), 0);
    assert_ptr_equal(slots_gpu(&slots, 7, 0), &gpus[1]);
    assert_int_equal(take(&slots, 8, 1, 0, 1, "", &err), 0);
    assert_ptr_equal(slots_gpu(&slots, 8, 0), &gpus[0]);
    assert_int_equal(take(&slots, 9, 1, 0, 1, "a100", &err), -1);
    assert_int_equal(take(&slots, 9, 1, 0, 1, "H100", &err), 0);
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
    assert_int_equal(take(&slots, 7, 1, 3, 0, "", &err), 0);
    assert_int_equal(take(&slots, 8, 1, 2, 0, "", &err), -1);
    assert_int_equal(take(&slots, 8, 1, 1, 1, "", &err), -1); /* no GPU: the core stays free */
    assert_int_equal(take(&slots, 8, 1, 1, 0, "", &err), 0);
    assert_ptr_equal(slots_core(&slots, 7, 2), &inventory.cores[2]);
    assert_ptr_equal(slots_core(&slots, 8, 0), &inventory.cores[3]);
    assert_null(slots_core(&slots, 8, 1));
    slots_release(&slots, 7);
    assert_int_equal(take(&slots, 9, 1, 3, 0, "", &err), 0);
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
    assert_int_equal(take(&slots, 8, 1, 3, 0, "", &err), 0);
    assert_ptr_equal(slots_core(&slots, 7, 0), &inventory.cores[2]);
    assert_ptr_equal(slots_core(&slots, 8, 2), &inventory.cores[3]);
    slots_done(&slots);
}

/* ---- topologies ------------------------------------------------------------------------------ */

static struct inventory topology_of(const char *variable, const char *value, const char *gpus)
{
    struct inventory inventory;
    struct err err = {0};
    assert_int_equal(unsetenv("HWLOC_COMPONENTS"),
                     0); /* as the daemon sets it: it would override */
    assert_int_equal(setenv(variable, value, 1), 0);
    if (inventory_take(gpus, &inventory, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(unsetenv(variable), 0);
    return inventory;
}

static char *fakes_write(const char *json)
{
    static char given[64];
    snprintf(given, sizeof given, "/tmp/offer-test-XXXXXX");
    int fd = mkstemp(given);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, json, strlen(json)), (ssize_t)strlen(json));
    close(fd);
    static char option[80];
    snprintf(option, sizeof option, "fake:%s", given);
    return option;
}

/* "0 1|4 5": the CPUs of each of its cores, in order of place. */
static const char *cores_text(const struct slots *slots, uint64_t attempt_id)
{
    static char text[300];
    const struct inventory_core *core;
    text[0] = '\0';
    for (size_t i = 0; (core = slots_core(slots, attempt_id, i)); i++)
        for (size_t k = 0; k < core->cpu_count; k++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u",
                     k ? " " : i ? "|" : "", core->cpus[k]);
    return text;
}

static const char *gpus_text(const struct slots *slots, uint64_t attempt_id)
{
    static char text[300];
    const struct inventory_gpu *gpu;
    text[0] = '\0';
    for (size_t i = 0; (gpu = slots_gpu(slots, attempt_id, i)); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? "|" : "",
                 gpu->visible);
    return text;
}

static void hardware_threads_of_a_core_stay_together_in_one_numa_node(void **state)
{
    struct inventory inventory =
        topology_of("HWLOC_SYNTHETIC", "pack:2 [numa] core:4 pu:2", "none");
    struct slots slots;
    struct err err = {0};
    (void)state;
    assert_int_equal(inventory.core_count, 8);
    assert_int_equal(inventory.numa_count, 2);
    slots_init(&slots, &inventory);
    assert_int_equal(take(&slots, 1, 1, 1, 0, "", &err), 0);
    assert_string_equal(cores_text(&slots, 1), "0 1");
    assert_int_equal(take(&slots, 2, 1, 4, 0, "", &err), 0); /* only the other node has four */
    assert_string_equal(cores_text(&slots, 2), "8 9|10 11|12 13|14 15");
    assert_int_equal(take(&slots, 3, 1, 3, 0, "", &err), 0);
    assert_string_equal(cores_text(&slots, 3), "2 3|4 5|6 7");
    slots_release(&slots, 1);
    slots_release(&slots, 2);
    assert_int_equal(take(&slots, 4, 1, 1, 0, "", &err), 0); /* where least stays free */
    assert_string_equal(cores_text(&slots, 4), "0 1");
    slots_release(&slots, 4);
    assert_int_equal(take(&slots, 5, 1, 5, 0, "", &err), 0); /* no node has five */
    assert_string_equal(cores_text(&slots, 5), "8 9|10 11|12 13|14 15|0 1");
    slots_done(&slots);
    inventory_done(&inventory);
}

static void ranks_lie_whole_in_a_node_and_together_while_it_has_room(void **state)
{
    struct inventory inventory =
        topology_of("HWLOC_SYNTHETIC", "pack:2 [numa] core:3 pu:1", "none");
    struct slots slots;
    struct err err = {0};
    (void)state;
    slots_init(&slots, &inventory);
    assert_int_equal(take(&slots, 1, 2, 2, 0, "", &err), 0);
    assert_string_equal(cores_text(&slots, 1), "0|1|3|4");
    assert_int_equal(take(&slots, 2, 2, 1, 0, "", &err), 0);
    assert_string_equal(cores_text(&slots, 2), "2|5");
    slots_done(&slots);
    inventory_done(&inventory);
}

static void a_rank_gets_gpus_and_cores_of_the_same_node(void **state)
{
    char *option = fakes_write("[{\"memory\": \"80GiB\", \"count\": 2, \"numa\": 0},"
                               " {\"memory\": \"80GiB\", \"count\": 2, \"numa\": 1}]");
    struct inventory inventory =
        topology_of("HWLOC_SYNTHETIC", "pack:2 [numa] core:4 pu:1", option);
    struct slots slots;
    struct err err = {0};
    (void)state;
    unlink(option + 5);
    slots_init(&slots, &inventory);
    assert_int_equal(take(&slots, 1, 1, 1, 1, "", &err), 0);
    assert_string_equal(cores_text(&slots, 1), "0");
    assert_string_equal(gpus_text(&slots, 1), "GPU-fake-0");
    assert_int_equal(take(&slots, 2, 1, 2, 2, "", &err), 0); /* two GPUs: the other node */
    assert_string_equal(cores_text(&slots, 2), "4|5");
    assert_string_equal(gpus_text(&slots, 2), "GPU-fake-2|GPU-fake-3");
    assert_int_equal(take(&slots, 3, 1, 2, 0, "", &err), 0); /* away from the free GPU */
    assert_string_equal(cores_text(&slots, 3), "6|7");
    slots_release(&slots, 2);
    assert_int_equal(take(&slots, 4, 3, 1, 1, "", &err), 0);
    assert_string_equal(gpus_text(&slots, 4), "GPU-fake-1|GPU-fake-2|GPU-fake-3");
    assert_string_equal(cores_text(&slots, 4), "1|4|5");
    slots_done(&slots);
    inventory_done(&inventory);
}

static void the_bus_says_where_a_gpu_is_and_cpus_that_are_not_allowed_are_not_offered(void **state)
{
    char *option = fakes_write("[{\"memory\": \"80GiB\", \"pci\": \"00000000:81:00.0\"},"
                               " {\"memory\": \"80GiB\", \"pci\": \"0000:17:00.0\"},"
                               " {\"memory\": \"80GiB\", \"pci\": \"0000:99:00.0\"}]");
    struct inventory inventory =
        topology_of("HWLOC_XMLFILE", "tests/unit/daemon/topology/two_sockets.xml", option);
    struct slots slots;
    struct err err = {0};
    (void)state;
    unlink(option + 5);
    assert_int_equal(inventory.core_count, 4);
    assert_int_equal(inventory.cores[2].cpu_count, 2);
    assert_int_equal(inventory.cores[3].cpu_count, 1); /* CPU 7 is not ours */
    assert_int_equal(inventory.gpus[0].numa, 1);
    assert_int_equal(inventory.gpus[1].numa, 0);
    assert_int_equal(inventory.gpus[2].numa, -1);
    slots_init(&slots, &inventory);
    assert_int_equal(take(&slots, 1, 2, 1, 1, "", &err), 0);
    assert_string_equal(gpus_text(&slots, 1), "GPU-fake-1|GPU-fake-2");
    assert_string_equal(cores_text(&slots, 1), "0 1|2 3");
    assert_int_equal(take(&slots, 2, 1, 2, 1, "", &err), 0);
    assert_string_equal(gpus_text(&slots, 2), "GPU-fake-0");
    assert_string_equal(cores_text(&slots, 2), "4 5|6");
    slots_done(&slots);
    inventory_done(&inventory);
}

static void slices_are_devices_in_place_of_their_gpu(void **state)
{
    char *option = fakes_write(
        "[{\"model\": \"NVIDIA H100\", \"memory\": \"80GiB\"},"
        " {\"model\": \"NVIDIA H100\", \"memory\": \"80GiB\", \"numa\": 0, \"slices\":"
        "  [{\"profile\": \"1g.10gb\", \"memory\": \"10GiB\", \"count\": 2},"
        "   {\"profile\": \"3g.40gb\", \"memory\": \"40GiB\"}]}]");
    struct inventory inventory = topology_of("HWLOC_SYNTHETIC", "numa:1 core:4", option);
    struct slots slots;
    struct err err = {0};
    (void)state;
    unlink(option + 5);
    assert_int_equal(inventory.gpu_count, 4);
    assert_string_equal(inventory.gpus[3].model, "NVIDIA H100 MIG 3g.40gb");
    assert_string_equal(inventory.gpus[3].uuid, "MIG-fake-1-2");
    assert_int_equal(inventory.gpus[1].memory_bytes, (uint64_t)10 << 30);
    slots_init(&slots, &inventory);
    assert_int_equal(take(&slots, 1, 1, 1, 1, "mig 3g.40gb", &err), 0);
    assert_string_equal(gpus_text(&slots, 1), "MIG-fake-1-2");
    assert_int_equal(take(&slots, 2, 1, 1, 2, "1g.10gb", &err), 0);
    assert_string_equal(gpus_text(&slots, 2), "MIG-fake-1-0|MIG-fake-1-1");
    slots_done(&slots);
    inventory_done(&inventory);
}

static void wrong_descriptions_of_gpus_are_refused_with_their_place(void **state)
{
    static const struct {
        const char *json, *mention;
    } cases[] = {
        {"{}", "expected a list"},
        {"[3]", "GPU 0: expected an object"},
        {"[{\"memory\": \"80GiB\"}, {\"memory\": 80}]", "GPU 1: memory: expected a size"},
        {"[{\"memory\": \"8GiB\", \"count\": 65}]", "count: expected 1 to 64"},
        {"[{\"memory\": \"8GiB\", \"count\": 60}, {\"memory\": \"8GiB\", \"count\": 5}]",
         "more than 64"},
        {"[{\"memory\": \"8GiB\", \"numa\": -1}]", "numa: expected"},
        {"[{\"memory\": \"8GiB\", \"slices\": [{\"memory\": \"1GiB\"}]}]", "slices: expected"},
        {"[", ":1:"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct inventory inventory;
        struct err err = {0};
        char *option = fakes_write(cases[i].json);
        assert_int_equal(inventory_take(option, &inventory, &err), -1);
        unlink(option + 5);
        if (!strstr(err.text, cases[i].mention))
            fail_msg("'%s' does not mention '%s'", err.text, cases[i].mention);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(options_have_defaults_beside_what_is_given),
        TEST(wrong_options_are_refused_by_name),
        TEST(root_must_say_as_whom_jobs_run),
        TEST(the_line_of_a_principal_names_the_account_of_its_jobs),
        TEST(this_machine_has_cores_and_memory),
        TEST(cores_that_another_worker_has_are_passed_over),
        TEST(a_list_means_exactly_these),
        TEST(a_claim_excludes_others_until_it_is_given_back),
        TEST(a_program_that_prints_no_catalogue_is_told),
        TEST(gpus_of_another_model_are_left_alone),
        TEST(slots_are_taken_whole_or_not_at_all),
        TEST(a_found_attempt_keeps_its_cores),
        TEST(hardware_threads_of_a_core_stay_together_in_one_numa_node),
        TEST(ranks_lie_whole_in_a_node_and_together_while_it_has_room),
        TEST(a_rank_gets_gpus_and_cores_of_the_same_node),
        TEST(the_bus_says_where_a_gpu_is_and_cpus_that_are_not_allowed_are_not_offered),
        TEST(slices_are_devices_in_place_of_their_gpu),
        TEST(wrong_descriptions_of_gpus_are_refused_with_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
