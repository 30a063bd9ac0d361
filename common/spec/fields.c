/* fields.c - the table of all fields of a spec; see field.h.
 *
 * Order is the order of `--help`. Defaults are YAML text and pass the same reader as the user's
 * values, so a wrong default fails the first test that reads any spec. */
#include "common/spec/field.h"

#define JOB (SCOPE_SINGLE | SCOPE_JOB)
#define TOP (SCOPE_SINGLE | SCOPE_PIPELINE)
#define SHARED (SCOPE_SINGLE | SCOPE_JOB | SCOPE_DEFAULTS)
#define AT(member) offsetof(struct spec_job, member)

#define KIB ((int64_t)1 << 10)
#define SECOND ((int64_t)1000)
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

/* clang-format off */
const struct field fields[] = {
    {"athanor", FIELD_CUSTOM, TOP, .form = "1", .read = read_version,
     .help = "version of the spec language; required"},
    {"name", FIELD_NAME, TOP, AT(name), .json = "name",
     .help = "name of the job or of the pipeline; required for a job"},
    {"experiment", FIELD_NAME, TOP, AT(experiment), .initial = "default", .json = "experiment",
     .help = "groups jobs for reading and plotting"},
    {"description", FIELD_TEXT, TOP | JOB, AT(description), 0, 4096, .initial = "\"\"",
     .json = "description", .help = "a note for people"},
    {"kind", FIELD_TEXT, JOB, AT(kind), 1, 100, .json = "kind",
     .help = "command, or a kind of recipe such as pretraining; required"},
    {"recipe", FIELD_TEXT, JOB, AT(recipe), 1, 100, .json = "recipe",
     .help = "the recipe of that kind, see `athanor recipes`; not for command"},
    {"command", FIELD_CUSTOM, JOB, .form = "a list [program, argument, ...]", .read = read_command,
     .help = "program of kind command, started once for each rank"},
    {"params", FIELD_CUSTOM, JOB, .form = "a mapping of name: value", .read = read_elsewhere,
     .help = "parameters of the recipe; for command anything, found in ATHANOR_SPEC"},
    {"inputs", FIELD_CUSTOM, JOB,
     .form = "a mapping of name: job:NAME/checkpoint:best|last|STEP, dataset:NAME[/PART] or "
             "file:PATH",
     .read = read_inputs, .help = "what the job reads; implies needs within the spec"},
    {"outputs", FIELD_CUSTOM, JOB, .form = "a list of dataset:NAME", .read = read_outputs,
     .help = "datasets that the job's own program reports"},
    {"needs", FIELD_CUSTOM, JOB,
     .form = "a list of job names or {job: NAME, on: success|failure|any|artifact:NAME}",
     .read = read_needs,
     .help = "jobs that must end before, or make an artifact; job:NAME or an id: submitted "
             "earlier"},
    {"env", FIELD_CUSTOM, SHARED, .form = "a mapping of NAME: text", .read = read_env,
     .help = "environment of every rank; nothing is taken from the submitting shell"},
    {"secrets", FIELD_CUSTOM, SHARED, .form = "a mapping of NAME: secret", .read = read_secrets,
     .help = "secrets of yours or of the project (`athanor secret`) that every rank can read from "
             "the descriptor ATHANOR_SECRET_<NAME>_FD"},
    {"code.snapshot", FIELD_CUSTOM, SHARED, .form = "a folder, packed when the job is submitted",
     .read = read_snapshot,
     .help = "the job runs this folder's files as they are now, but for what .gitignore names; "
             "kind command starts in it, read-only"},
    {"code.cwd", FIELD_CUSTOM, SHARED, .form = "a folder within the snapshot, or '-'",
     .read = read_cwd,
     .help = "where the program starts; '-' is the attempt's own ATHANOR_RUN_DIR"},
    {"resources.ranks", FIELD_COUNT, SHARED, AT(resources.ranks), 1, 4096, "1",
     .json = "resources.ranks", .help = "processes"},
    {"resources.nodes", FIELD_CUSTOM, SHARED, .form = "a whole number N, or a range MIN..MAX",
     .read = read_nodes,
     .help = "workers that the ranks lie on, all at once; default 1, or as many as ranks_per_node "
             "needs"},
    {"resources.ranks_per_node", FIELD_COUNT, SHARED, AT(resources.ranks_per_node), 1, 4096,
     .json = "resources.ranks_per_node", .late = true, .help = "at most so many on one worker"},
    {"resources.exclusive", FIELD_FLAG, SHARED, AT(resources.exclusive), .initial = "false",
     .json = "resources.exclusive", .late = true, .help = "share the workers with no other job"},
    {"resources.placement", FIELD_CHOICE, SHARED, AT(resources.placement), .initial = "pack",
     .choices = "pack|spread", .json = "resources.placement", .late = true,
     .help = "on as few workers as can be, close to each other, or on as many as nodes allows"},
    {"resources.cores", FIELD_COUNT, SHARED, AT(resources.cores), 1, 1024, "1",
     .json = "resources.cores", .help = "cores of each rank"},
    {"resources.memory", FIELD_SIZE, SHARED, AT(resources.memory_bytes), 16 * KIB * KIB,
     16 * KIB * KIB * KIB * KIB, "1GiB", .json = "resources.memory_bytes",
     .help = "memory of each rank"},
    {"resources.gpus", FIELD_COUNT, SHARED, AT(resources.gpus), 0, 64, "0",
     .json = "resources.gpus", .help = "GPUs of each rank"},
    {"resources.gpu_model", FIELD_TEXT, SHARED, AT(resources.gpu_model), 1, 100, "\"\"",
     .json = "resources.gpu_model", .late = true,
     .help = "part of the model's name that the GPUs must carry, in any case: h100"},
    {"constraint", FIELD_CUSTOM, SHARED,
     .form = "a mapping of label: value or [value, ...], or a list of such mappings",
     .read = read_constraint,
     .help = "what labels a worker must carry: a value or one of several, !value, * (any), !* "
             "(none), or >=N, >N, <=N, <N; of a list of mappings one must fit"},
    {"launcher", FIELD_CHOICE, SHARED, AT(launcher), .initial = "auto",
     .choices = "auto|fork|pmix|mpirun", .json = "launcher",
     .help = "how ranks start: pmix for MPI, fork without; auto decides; mpirun for programs that "
             "need Open MPI's own launcher, such as those that spawn others"},
    {"pty", FIELD_FLAG, SHARED, AT(pty), .initial = "false", .json = "pty", .late = true,
     .help = "give each rank a terminal as standard output, so that programs which hold back "
             "output in blocks print line by line"},
    {"priority", FIELD_INT, SHARED, AT(priority), -1000, 1000, "0", .json = "priority",
     .help = "higher runs first"},
    {"queue", FIELD_NAME, SHARED, AT(queue), .initial = "default", .json = "queue",
     .absent = "\"default\"", .help = "where it waits: see `athanor queue`"},
    {"project", FIELD_NAME, SHARED, AT(project), .initial = "default", .json = "project",
     .absent = "\"default\"", .help = "whose share and quotas it uses: see `athanor project`"},
    {"hold", FIELD_FLAG, SHARED, AT(hold), .initial = "false", .json = "hold",
     .help = "wait for `athanor release`"},
    {"limits.wall_time", FIELD_DURATION, SHARED, AT(limits.wall_time_ms), SECOND, 366 * DAY, "none",
     .json = "limits.wall_time_ms", .help = "longest time of one attempt"},
    {"limits.stop_grace", FIELD_DURATION, SHARED, AT(limits.stop_grace_ms), 0, HOUR, "30s",
     .json = "limits.stop_grace_ms",
     .help = "time to save and end after a stop message, and before it to answer the request for a "
             "checkpoint when room is made for another job"},
    {"limits.stall", FIELD_DURATION, SHARED, AT(limits.stall_ms), SECOND, 7 * DAY, "none",
     .json = "limits.stall_ms", .help = "longest time without a report of progress"},
    {"limits.log", FIELD_SIZE, SHARED, AT(limits.log_bytes), 4 * KIB, KIB * KIB * KIB * KIB,
     .json = "limits.log_bytes", .late = true,
     .help = "output kept of the job, of all attempts and workers together (else 1GiB); workers "
             "have a limit of their own for an attempt; of what exceeds either only the end is "
             "kept, with a note of how much was cut"},
    {"retry.attempts", FIELD_COUNT, SHARED, AT(retry.attempts), 1, 100, "3",
     .json = "retry.attempts", .help = "attempts in all, the first included"},
    {"retry.on", FIELD_CUSTOM, SHARED, .initial = "[worker_lost, shepherd_lost, preempted]",
     .form = "a list of causes out of exit, signal, oom, time_limit, preempted, worker_lost, "
             "shepherd_lost, launch_failed, stalled, diverged, gave_up",
     .read = read_causes, .help = "why an attempt must have ended to be tried again"},
    {"retry.backoff", FIELD_DURATION, SHARED, AT(retry.backoff_ms), 0, DAY, "10s",
     .json = "retry.backoff_ms", .help = "wait before the second attempt; doubles each time"},
    {"retry.backoff_max", FIELD_DURATION, SHARED, AT(retry.backoff_max_ms), 0, 7 * DAY, "10m",
     .json = "retry.backoff_max_ms", .help = "longest wait between attempts"},
    {"retry.memory_factor", FIELD_FACTOR, SHARED, AT(retry.memory_factor_permille), 1000, 16000,
     "1", .json = "retry.memory_factor_permille",
     .help = "memory of the next attempt after oom, times this"},
    {"retry.memory_max", FIELD_SIZE, SHARED, AT(retry.memory_max_bytes), 16 * KIB * KIB,
     16 * KIB * KIB * KIB * KIB, .json = "retry.memory_max_bytes", .late = true,
     .help = "most memory of a rank that memory_factor leads to; after oom with that much the job "
             "fails"},
    {"retry.elsewhere", FIELD_FLAG, SHARED, AT(retry.elsewhere), .initial = "false",
     .json = "retry.elsewhere", .late = true,
     .help = "keep the next attempt away from the worker where this one failed, as long as enough "
             "others could take it"},
    {"diverge.metric", FIELD_TEXT, SHARED, AT(diverge.metric), 1, 100, "\"\"",
     .json = "diverge.metric", .late = true,
     .help = "metric whose values tell that the job diverges, * for any"},
    {"diverge.above", FIELD_REAL, SHARED, AT(diverge.above), .initial = "none",
     .json = "diverge.above", .late = true, .help = "a value above this is bad"},
    {"diverge.below", FIELD_REAL, SHARED, AT(diverge.below), .initial = "none",
     .json = "diverge.below", .late = true, .help = "a value below this is bad"},
    {"diverge.nan", FIELD_FLAG, SHARED, AT(diverge.nan), .initial = "true",
     .json = "diverge.nan", .late = true, .help = "a value that is not finite is bad"},
    {"diverge.for", FIELD_COUNT, SHARED, AT(diverge.reports), 1, 1000000, "1",
     .json = "diverge.for", .late = true, .help = "so many bad values in a row"},
    {"diverge.then", FIELD_CHOICE, SHARED, AT(diverge.then), .initial = "fail",
     .choices = "fail|rewind", .json = "diverge.then", .late = true,
     .help = "rewind: the next attempt resumes from the last checkpoint before, with other data; "
             "also when the program itself says that it diverged"},
    {"diverge.skip", FIELD_STEPS, SHARED, AT(diverge.skip), 0, 1000000000, "0",
     .json = "diverge.skip", .late = true,
     .help = "batches that a rewind leaves out behind the one where the job diverged"},
    {"notify.on", FIELD_CUSTOM, SHARED, .initial = "[failed]",
     .form = "a list of done, failed, cancelled", .read = read_notify,
     .help = "ends of the job that somebody is told of; done: it succeeded"},
    {"notify.webhook", FIELD_TEXT, SHARED, AT(notify.webhook), 1, 2000, "\"\"",
     .json = "notify.webhook", .late = true,
     .help = "http:// or https:// address that gets a POST of JSON, at least once"},
    {"notify.mail", FIELD_TEXT, SHARED, AT(notify.mail), 1, 254, "\"\"",
     .json = "notify.mail", .late = true,
     .help = "address that gets a mail, where the coordinators have a mail command"},
    {"on_disconnect", FIELD_CHOICE, SHARED, AT(on_disconnect), .initial = "wait",
     .choices = "wait|replace", .json = "on_disconnect",
     .help = "when the worker is silent: wait for its lease, or start elsewhere at once"},
    {"checkpoint.every", FIELD_CUSTOM, SHARED, .initial = "10m",
     .form = "a number of steps such as 50 steps, a duration such as 10m, both with a comma "
             "between, or never",
     .read = read_every, .help = "how often to save; the end always does"},
    {"checkpoint.keep", FIELD_CUSTOM, SHARED, .initial = "last 2",
     .form = "last N, or last N, best N by [max] METRIC", .read = read_keep,
     .help = "which checkpoints stay; best means the lowest value, with max the highest"},
    {"retention.checkpoints", FIELD_DURATION, SHARED, AT(retention.checkpoints_ms), SECOND,
     36500 * DAY, "none", .json = "retention.checkpoints_ms", .late = true,
     .help = "how long checkpoints stay after the end of the job and of those that used it; none: "
             "as the cluster's setting checkpoint_keep_ms says, which is for ever unless changed"},
    {"retention.artifacts", FIELD_DURATION, SHARED, AT(retention.artifacts_ms), SECOND,
     36500 * DAY, "none", .json = "retention.artifacts_ms", .late = true,
     .help = "the same for datasets and other artifacts (setting artifact_keep_ms)"},
    {"array", FIELD_CUSTOM, JOB, .form = "a whole number, or {count: N, at_once: K}",
     .read = read_array,
     .help = "N jobs NAME-0, NAME-1, ... that differ in ATHANOR_ARRAY_INDEX; K run at once"},
    {"sweep", FIELD_CUSTOM, JOB,
     .form = "a mapping of method (grid, random, asha), over (fields to lists or distributions), "
             "trials, seed, at_once, metric, mode, and for asha min_resource, max_resource, "
             "reduction, resource",
     .read = read_elsewhere,
     .help = "trials NAME-t0, NAME-t1, ... that differ in some fields; asha stops bad ones early"},
    {"defaults", FIELD_CUSTOM, SCOPE_PIPELINE, .form = "a mapping of fields",
     .read = read_elsewhere, .help = "fields that every job of the pipeline starts with"},
    {"jobs", FIELD_CUSTOM, SCOPE_PIPELINE, .form = "a mapping of name: job",
     .read = read_elsewhere, .help = "makes the spec a pipeline"},
    /* Only in the JSON: what the custom forms above were read into. */
    {"code_folder", FIELD_TEXT, 0, AT(code.folder), 0, 4096, "\"\"", .json = "code.snapshot",
     .late = true},
    {"code_hash", FIELD_TEXT, 0, AT(code.hash), 0, 64, "\"\"", .json = "code.hash", .late = true},
    {"code_cwd", FIELD_TEXT, 0, AT(code.cwd), 0, 1000, "\"\"", .json = "code.cwd", .late = true},
    {"every_steps", FIELD_STEPS, 0, AT(checkpoint.every_steps), .json = "checkpoint.every_steps"},
    {"every_ms", FIELD_DURATION, 0, AT(checkpoint.every_ms), .json = "checkpoint.every_ms"},
    {"nodes_min", FIELD_COUNT, 0, AT(resources.nodes_min), 1, 4096, "1",
     .json = "resources.nodes_min", .late = true},
    {"nodes_max", FIELD_COUNT, 0, AT(resources.nodes_max), 1, 4096, "1",
     .json = "resources.nodes_max", .late = true},
    {"keep_last", FIELD_COUNT, 0, AT(checkpoint.keep_last), .json = "checkpoint.keep_last"},
    {"keep_best", FIELD_COUNT, 0, AT(checkpoint.keep_best), .json = "checkpoint.keep_best"},
    {"best_metric", FIELD_TEXT, 0, AT(checkpoint.best_metric), .json = "checkpoint.best_metric"},
    {"best_mode", FIELD_CHOICE, 0, AT(checkpoint.best_mode), .choices = "min|max",
     .json = "checkpoint.best_mode"},
    {"array_count", FIELD_COUNT, 0, AT(array_count), .json = "array_count"},
    {"array_index", FIELD_COUNT, 0, AT(array_index), .json = "array_index"},
};
/* clang-format on */

const size_t field_count = ARRAY_COUNT(fields);
_Static_assert(ARRAY_COUNT(fields) <= FIELD_ROWS_MAX, "struct draft has room for every row");
