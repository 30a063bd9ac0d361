/* queue.c - athanor queue */
#include "client/configure.h"
#include "client/verbs.h"

static const struct option options[] = {
    {"priority", 0, VALUE_TEXT, "POINTS", "set: points added to its jobs; negative ones go behind",
     false},
    {"default-time", 0, VALUE_TEXT, "DURATION",
     "set: wall time to plan with for jobs that state none, or none", false},
    {"max-time", 0, VALUE_TEXT, "DURATION",
     "set: longest wall time that a job may state, and gets if it states none; or none", false},
    {"preemption", 0, VALUE_TEXT, "CLASS",
     "set: class from 0 to 1000; jobs of a greater one come before, and may evict, others", false},
    {"evicts", 0, VALUE_TEXT, "true|false", "set: whether its jobs may have others stopped", false},
    {"evictable", 0, VALUE_TEXT, "true|false", "set: whether its jobs may be stopped for others",
     false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct setting_option settings[] = {
    {"priority", "priority", SETTING_TEXT},
    {"default-time", "default_wall_ms", SETTING_DURATION},
    {"max-time", "max_wall_ms", SETTING_DURATION},
    {"preemption", "preemption", SETTING_TEXT},
    {"evicts", "evicts", SETTING_TEXT},
    {"evictable", "evictable", SETTING_TEXT},
};

static const struct heading columns[] = {
    {"name", "QUEUE"},           {"priority", NULL},   {"default_wall_ms", "DEFAULT TIME"},
    {"max_wall_ms", "MAX TIME"}, {"preemption", NULL}, {"evicts", NULL},
    {"evictable", NULL},         {"queued", NULL},     {"running", NULL},
};

static int run(struct client *client, const struct args *args)
{
    static const struct configured what = {"queue",
                                           "queues",
                                           "no queues",
                                           settings,
                                           ARRAY_COUNT(settings),
                                           columns,
                                           ARRAY_COUNT(columns)};
    return configured_run(client, args, &what);
}

const struct verb verb_queue = {
    .name = "queue",
    .words = "[ls|set|rm [QUEUE]]",
    .summary = "list queues, make, change and remove them",
    .text = "A job waits in the queue that its spec names (queue:, otherwise 'default'). queue set "
            "makes a queue or changes what the options say and leaves the rest; queue rm removes "
            "one that no living job uses. Operators only.\n\n"
            "Limits of a queue are quotas: athanor quota set --queue NAME ...",
    .choices = "ls set rm",
    .words_max = 2,
    VERB_OPTIONS(options),
    .run = run,
};
