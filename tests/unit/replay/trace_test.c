/* trace_test.c - every format is read as its archive describes it, and damage is named. */
#include "coordinator/replay/columns.h"
#include "coordinator/replay/trace.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

static struct trace trace;
static struct err err;

static int parse(const char *text)
{
    char *copy = mem_strdup(text);
    trace_free(&trace);
    int rc = trace_parse(&trace, "t", copy, strlen(copy), &err);
    mem_free(copy);
    return rc;
}

static int release(void **state)
{
    (void)state;
    trace_free(&trace);
    return 0;
}

/* A line of SWF from what matters. */
#define SWF(number, submit, run, procs, asked, status, user)                                      \
    number " " submit " -1 " run " " procs " -1 -1 " procs " " asked " -1 " status " " user        \
           " 1 -1 -1 -1 -1 -1\n"

static void assert_refused(const char *text, const char *said)
{
    assert_int_equal(parse(text), -1);
    if (!strstr(err.text, said))
        fail_msg("expected '%s' in: %s", said, err.text);
}

static void swf_gives_jobs_users_and_the_machine(void **state)
{
    (void)state;
    assert_int_equal(parse("; MaxProcs: 64\n;MaxNodes: 8\n\n" SWF("7", "100", "60", "4", "90",
                                                                  "1", "3")
                               SWF("8", "130", "0", "2", "-1", "0", "-1")),
                     0);
    assert_string_equal(trace.format, "swf");
    assert_int_equal(trace.job_count, 2);
    assert_int_equal(trace.jobs[0].number, 7);
    assert_int_equal(trace.jobs[0].submit_ms, 0);
    assert_int_equal(trace.jobs[0].run_ms, 60000);
    assert_int_equal(trace.jobs[0].wall_ms, 90000);
    assert_int_equal(trace.jobs[0].ranks, 4);
    assert_string_equal(trace.users[trace.jobs[0].user], "u3");
    assert_int_equal(trace.jobs[1].submit_ms, 30000);
    assert_true(trace.jobs[1].failed);
    assert_string_equal(trace.users[trace.jobs[1].user], "unknown");
    assert_int_equal(trace.limits_missing, 1);
    assert_int_equal(trace.node_count, 1);
    assert_int_equal(trace.nodes[0].cores, 64);
}

static void swf_leaves_out_parts_and_jobs_that_never_ran(void **state)
{
    (void)state;
    assert_int_equal(parse(SWF("1", "0", "10", "1", "-1", "1", "1")
                               SWF("1", "0", "5", "1", "-1", "2", "1")
                                   SWF("1", "5", "5", "1", "-1", "3", "1")
                                       SWF("2", "6", "-1", "1", "-1", "5", "1")
                                           SWF("3", "7", "0", "1", "-1", "5", "1")
                                               SWF("4", "8", "9", "1", "-1", "5", "1")
                                                   SWF("5", "9", "9", "-1", "-1", "1", "1")),
                     0);
    assert_int_equal(trace.job_count, 2); /* 1, and 4, which was cancelled while it ran */
    assert_int_equal(trace.jobs[1].number, 4);
    assert_true(trace.jobs[1].failed);
    assert_int_equal(trace.left_out.partial, 2);
    assert_int_equal(trace.left_out.never_ran, 2);
    assert_int_equal(trace.left_out.no_request, 1);
}

static void a_job_that_outran_its_request_keeps_its_run_time(void **state)
{
    (void)state;
    assert_int_equal(parse(SWF("1", "0", "100", "1", "60", "1", "1")), 0);
    assert_int_equal(trace.jobs[0].run_ms, 100000);
    assert_int_equal(trace.jobs[0].wall_ms, 100000);
    assert_int_equal(trace.limits_raised, 1);
}

static void jobs_out_of_order_are_sorted_by_submit_and_ties_stay(void **state)
{
    (void)state;
    assert_int_equal(parse(SWF("1", "50", "1", "1", "-1", "1", "1")
                               SWF("2", "20", "1", "1", "-1", "1", "1")
                                   SWF("3", "50", "1", "1", "-1", "1", "1")
                                       SWF("4", "20", "1", "1", "-1", "1", "1")),
                     0);
    const uint64_t numbers[] = {2, 4, 1, 3};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(trace.jobs[i].number, numbers[i]);
    assert_int_equal(trace.jobs[2].submit_ms, 30000);
}

static void damage_is_named_with_file_and_line(void **state)
{
    (void)state;
    assert_refused("; x\n1 2 3\n", "t:2: 3 numbers, expected the 18");
    assert_refused("1 0 -1 1O 1 -1 -1 1 -1 -1 1 1 1 -1 -1 -1 -1 -1\n", "t:1: field 4 (run time)");
    assert_refused(SWF("1", "-5", "1", "1", "-1", "1", "1"), "t:1: field 2 (submit time) is -5");
    assert_refused(SWF("1", "1e30", "1", "1", "-1", "1", "1"), "t:1: the submit time in ms");
    assert_refused("; only comments\n", "no job that can be replayed");
    assert_refused("hello world\n", "no known trace format, expected one of: athanor history");
    assert_refused("job_id,num_gpu,submit_time,duration\n1,1,x,5\n",
                   "t:2: column 'submit_time' is 'x'");
    assert_refused("job_id,num_gpu,submit_time,duration\n1,1\n", "t:2: 2 columns, expected 4");
    assert_refused("job_id,num_gpu,submit_time,duration\n1,\"1,5,6\n", "t:2: column 2: a quoted");
    assert_refused("{\"jobs\": [", "t:1:10:");
    assert_refused("{\"jobs\": [{\"res\": 1, \"subtime\": 0, \"profile\": \"p\"}], \"profiles\": "
                   "{\"p\": {\"cpu\": 5}}}",
                   "jobs[0]: its profile");
    assert_refused("-dt 5 -e submit_batch_job | -n 2\n", "t:1: option -sim-walltime");
}

static void alibaba_rounds_shares_up_and_keeps_models(void **state)
{
    (void)state;
    assert_int_equal(
        parse("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,"
              "deletion_time,scheduled_time\n"
              "p0,6000,12288,1,460,T4|P100,LS,Running,10,30,12\n"
              "p1,3152,1024,0,0,,BE,Failed,11,21,11\n"
              "p2,1000,1024,1,1000,,BE,Pending,12,15,\n"),
        0);
    assert_int_equal(trace.job_count, 2);
    assert_int_equal(trace.left_out.never_ran, 1);
    assert_int_equal(trace.jobs[0].gpus, 1);
    assert_int_equal(trace.jobs[0].cores, 6);
    assert_int_equal(trace.jobs[0].run_ms, 18000);
    assert_int_equal(trace.jobs[0].memory_bytes, (uint64_t)12288 << 20);
    assert_string_equal(trace.jobs[0].gpu_models, "T4|P100");
    assert_int_equal(trace.jobs[1].cores, 4);
    assert_null(trace.jobs[1].gpu_models);
    char nodes[] = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,32000,1,0,\n";
    assert_int_equal(trace_parse_nodes(&trace, "n", nodes, sizeof nodes - 1, &err), 0);
    assert_int_equal(trace.node_count, 2);
    assert_int_equal(trace.nodes[0].cores, 64);
    assert_string_equal(trace.nodes[0].gpu_model, "P100");
    assert_null(trace.nodes[1].gpu_model);
}

static void sacct_ignores_steps_and_bars_in_names(void **state)
{
    (void)state;
    assert_int_equal(
        parse("JobID|User|Submit|Start|End|NNodes|NCPUS|AllocTRES|Timelimit|JobName|State\n"
              "1|ann|2021-12-10T14:23:28|2021-12-10T14:23:30|2021-12-10T15:23:30|1|32||3-00:00:00|"
              "a||b|COMPLETED\n"
              "1.batch||2021-12-10T14:23:28|2021-12-10T14:23:30|2021-12-10T15:23:30|1|32|||batch|"
              "COMPLETED\n"
              "2|bob|2021-12-10T14:23:29|Unknown|Unknown|1|32||10:00|c|CANCELLED by 5\n"
              "3|bob|2021-12-10T14:23:29|2021-12-10T14:23:29|2021-12-10T14:24:29|1|8|"
              "cpu=8,gres/gpu=4|UNLIMITED|d|FAILED\n"),
        0);
    assert_string_equal(trace.format, "sacct");
    assert_int_equal(trace.job_count, 2);
    assert_int_equal(trace.jobs[0].run_ms, 3600000);
    assert_int_equal(trace.jobs[0].wall_ms, 3 * 86400000);
    assert_int_equal(trace.jobs[1].submit_ms, 1000);
    assert_int_equal(trace.jobs[1].ranks, 4);
    assert_int_equal(trace.jobs[1].cores, 2);
    assert_int_equal(trace.jobs[1].gpus, 1);
    assert_true(trace.jobs[1].failed);
    assert_int_equal(trace.left_out.partial, 1);
    assert_int_equal(trace.left_out.never_ran, 1);
}

static void other_formats_give_the_same_shape(void **state)
{
    static const char *const texts[] = {
        "job_id,num_gpu,submit_time,iterations,model_name,duration,interval\n1,2,0,9,vgg,10,1\n",
        "\"\",\"sim_job_id\",\"sim_submit_ts\",\"sim_wclimit\",\"sim_duration\",\"sim_tasks\","
        "\"sim_username\"\n\"3\",1,1483246886,1,10,2,\"user5\"\n",
        "-dt 1.5 -e submit_batch_job | -sim-walltime 10.0 --uid=u -J j -N 1 -n 2 -t 0:30 x.job\n",
        "job_id,num_cores,max_mem_gb,num_hosts,submit_time,run_time,exit_status\n"
        "386,2,0.5,1,2022-02-14T08:15:45,0:00:10,0\n",
        "{\"nb_res\": 8, \"jobs\": [{\"id\": 1, \"res\": 2, \"subtime\": 3.5, \"walltime\": 20, "
        "\"profile\": \"p\"}], \"profiles\": {\"p\": {\"type\": \"delay\", \"delay\": 10}}}",
        "job_id,name,account,submitted_at,ran_ms,ranks,cores,state\n"
        "1,\"a,b\",ann,2026-01-05 10:00:00.123456+00,10000,2,1,SUCCEEDED\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        if (parse(texts[i]) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(trace.job_count, 1);
        assert_int_equal(trace.jobs[0].submit_ms, 0);
        assert_int_equal(trace.jobs[0].run_ms, 10000);
        assert_int_equal(trace.jobs[0].ranks, 2);
        assert_int_equal(trace.user_count, 1);
        assert_false(trace.jobs[0].failed);
    }
}

static void times_and_clocks_are_read_exactly(void **state)
{
    uint64_t ms;
    (void)state;
    assert_true(text_time_ms("2022-02-14T08:15:45", &ms));
    assert_int_equal(ms, 1644826545000);
    assert_true(text_time_ms("2022-02-14 10:15:45.25+02:00", &ms));
    assert_int_equal(ms, 1644826545250);
    assert_false(text_time_ms("2022-13-14T08:15:45", &ms));
    assert_false(text_time_ms("2022-02-14T08:15", &ms));
    assert_true(text_clock_ms("3-00:00:00", &ms));
    assert_int_equal(ms, 3 * 86400000);
    assert_true(text_clock_ms("04:24", &ms));
    assert_int_equal(ms, 264000);
    assert_true(text_clock_ms("1-02", &ms));
    assert_int_equal(ms, 26 * 3600000);
    assert_true(text_clock_ms("0:00:00.006155", &ms));
    assert_int_equal(ms, 6);
    assert_false(text_clock_ms("90", &ms));
    assert_false(text_clock_ms("1:2:3:4", &ms));
}

static void packed_files_are_read_and_torn_ones_refused(void **state)
{
    char path[] = "/tmp/athanor-trace-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    gzFile out = gzopen(path, "wb");
    for (unsigned i = 0; i < 2000; i++)
        gzprintf(out, "%u %u -1 %u 1 -1 -1 1 -1 -1 1 %u 1 -1 -1 -1 -1 -1\n", i, i * 7, i * 13 % 97,
                 i % 5);
    assert_int_equal(gzclose(out), Z_OK);
    trace_free(&trace);
    assert_int_equal(trace_load(&trace, path, &err), 0);
    assert_int_equal(trace.job_count, 2000);
    assert_int_equal(trace.user_count, 5);
    assert_int_equal(ftruncate(fd, 1000), 0);
    trace_free(&trace);
    assert_int_equal(trace_load(&trace, path, &err), -1);
    assert_non_null(strstr(err.text, "damaged gzip"));
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(swf_gives_jobs_users_and_the_machine, release),
        cmocka_unit_test_teardown(swf_leaves_out_parts_and_jobs_that_never_ran, release),
        cmocka_unit_test_teardown(a_job_that_outran_its_request_keeps_its_run_time, release),
        cmocka_unit_test_teardown(jobs_out_of_order_are_sorted_by_submit_and_ties_stay, release),
        cmocka_unit_test_teardown(damage_is_named_with_file_and_line, release),
        cmocka_unit_test_teardown(alibaba_rounds_shares_up_and_keeps_models, release),
        cmocka_unit_test_teardown(sacct_ignores_steps_and_bars_in_names, release),
        cmocka_unit_test_teardown(other_formats_give_the_same_shape, release),
        cmocka_unit_test_teardown(times_and_clocks_are_read_exactly, release),
        cmocka_unit_test_teardown(packed_files_are_read_and_torn_ones_refused, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
