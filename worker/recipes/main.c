/* main.c - athanor-engine: prints the recipe catalogue, or runs one job as one rank. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/job.h"
#include "worker/recipes/order.h"
#include "worker/recipes/page.h"
#include "worker/recipes/registry.h"
#include "worker/recipes/run.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPEC_BYTES_MAX ((size_t)16 << 20)

static const char usage[] =
    "Usage: athanor-engine run [--spec FILE] [--out DIR] [--resume DIR]\n"
    "       athanor-engine documents --order JSON --steps A[-B]\n"
    "       athanor-engine --catalogue | --man | --version | --help\n"
    "\n"
    "Runs one training, evaluation or data job of Athanor. The shepherd starts it with\n"
    "ATHANOR_SPEC, ATHANOR_JOB_DIR, ATHANOR_RUN_DIR, ATHANOR_RESUME and ATHANOR_REPORT set;\n"
    "by hand the options take their place, and metrics are printed on stdout:\n"
    "\n"
    "  --spec FILE    the job as JSON: {\"kind\": \"data\", \"recipe\": \"wordnet\"}\n"
    "  --out DIR      where checkpoints and datasets go (default: the current directory)\n"
    "  --resume DIR   the checkpoint to go on from\n"
    "  --catalogue    all recipes with their parameters, as JSON\n"
    "  --man          this page and all recipes, as roff\n"
    "\n"
    "documents prints which documents training steps A to B saw, a line a row of the batch:\n"
    "\n"
    "  --order JSON   the detail of the run's event `data_order` (in athanor.data_orders)\n"
    "  --steps A[-B]  steps as metrics count them, from 1\n"
    "  --data DIR     the dataset's folder, where it lies elsewhere by now\n"
    "\n"
    "With several ranks, start it under mpirun or the shepherd (RANK, WORLD_SIZE).\n"
    "Exit status: 0 done or stopped after a checkpoint, 1 failed, 2 wrong usage.\n";

static const char *or_env(const char *option, const char *variable, const char *fallback)
{
    const char *value = option ? option : getenv(variable);
    return value && *value ? value : fallback;
}

static int fail(const struct err *err)
{
    fprintf(stderr, "athanor-engine: %s\n", err->text);
    return EXIT_FAILURE;
}

static int run_spec(const char *path, const struct run_options *options)
{
    struct err err = {0};
    struct job job = {0};
    char *bytes = NULL;
    size_t length;
    if (file_read(path, SPEC_BYTES_MAX, &bytes, &length, &err) < 0)
        return fail(&err);
    int rc = job_parse(bytes, length, &job, &err);
    mem_free(bytes);
    if (rc < 0) {
        err_wrap(&err, "spec '%s'", path);
        return fail(&err);
    }
    rc = run_job(&job, options, &err);
    job_done(&job);
    return rc < 0 ? fail(&err) : EXIT_SUCCESS;
}

static int run_verb(int argc, char **argv)
{
    static const struct option options[] = {
        {"spec", required_argument, NULL, 's'},
        {"out", required_argument, NULL, 'o'},
        {"resume", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *spec = NULL, *out = NULL, *resume = NULL;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 's': spec = optarg; break;
        case 'o': out = optarg; break;
        case 'r': resume = optarg; break;
        case 'h': fputs(usage, stdout); return EXIT_SUCCESS;
        default: return 2;
        }
    }
    spec = or_env(spec, "ATHANOR_SPEC", NULL);
    if (!spec || optind != argc) {
        fprintf(stderr, "athanor-engine run: %s\n%s", spec ? "unexpected argument" :
                "no job: give --spec FILE or set ATHANOR_SPEC", usage);
        return 2;
    }
    struct err err;
    uint64_t data_skip;
    if (parse_u64(or_env(NULL, "ATHANOR_DATA_SKIP", "0"), &data_skip, &err) < 0) {
        (void)!err_wrap(&err, "ATHANOR_DATA_SKIP");
        return fail(&err);
    }
    struct run_options run = {
        .job_dir = or_env(out, "ATHANOR_JOB_DIR", "."),
        .run_dir = or_env(NULL, "ATHANOR_RUN_DIR", "."),
        .resume = or_env(resume, "ATHANOR_RESUME", NULL),
        .report_path = getenv("ATHANOR_REPORT"),
        .data_skip = data_skip,
    };
    return run_spec(spec, &run);
}

/* "17" or "17-20". */
static int read_steps(const char *text, uint64_t *first, uint64_t *last, struct err *err)
{
    const char *dash = strchr(text, '-');
    char *head = dash ? mem_printf("%.*s", (int)(dash - text), text) : mem_strdup(text);
    int rc = parse_u64(head, first, err);
    if (rc == 0)
        rc = parse_u64(dash ? dash + 1 : head, last, err);
    mem_free(head);
    return rc < 0 ? err_wrap(err, "--steps '%s', expected A or A-B", text) : 0;
}

static int print_documents(const char *json, const char *steps, const char *data)
{
    struct err err = {0};
    struct data_order order = {0};
    struct buf out = {0};
    uint64_t first, last;
    int rc = read_steps(steps, &first, &last, &err);
    if (rc == 0)
        rc = order_parse(json, strlen(json), &order, &err);
    if (rc == 0 && data) {
        mem_free(order.path);
        order.path = mem_strdup(data);
    }
    if (rc == 0)
        rc = order_print(&order, first, last, &out, &err);
    if (rc == 0)
        fwrite(out.bytes, 1, out.length, stdout);
    buf_done(&out);
    order_done(&order);
    return rc < 0 ? fail(&err) : EXIT_SUCCESS;
}

static int documents_verb(int argc, char **argv)
{
    static const struct option options[] = {
        {"order", required_argument, NULL, 'o'},
        {"steps", required_argument, NULL, 's'},
        {"data", required_argument, NULL, 'd'},
        {0},
    };
    const char *order = NULL, *steps = NULL, *data = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'o': order = optarg; break;
        case 's': steps = optarg; break;
        case 'd': data = optarg; break;
        default: return 2;
        }
    }
    if (order && steps && optind == argc)
        return print_documents(order, steps, data);
    fprintf(stderr, "athanor-engine documents: give --order and --steps, no other words\n%s",
            usage);
    return 2;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "run") == 0)
        return run_verb(argc - 1, argv + 1);
    if (strcmp(verb, "documents") == 0)
        return documents_verb(argc - 1, argv + 1);
    if (strcmp(verb, "--catalogue") == 0 || strcmp(verb, "--man") == 0) {
        char *text = verb[2] == 'c' ? recipe_catalogue() : page_man(usage);
        fputs(text, stdout);
        mem_free(text);
        return EXIT_SUCCESS;
    }
    if (strcmp(verb, "--version") == 0) {
        puts("athanor-engine " ENGINE_VERSION);
        return EXIT_SUCCESS;
    }
    bool help = strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0;
    fputs(usage, help ? stdout : stderr);
    return help ? EXIT_SUCCESS : 2;
}
