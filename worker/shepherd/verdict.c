/* verdict.c - see verdict.h. */
#include "worker/shepherd/verdict.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *signal_name(int number, char out[32])
{
    const char *name = sigabbrev_np(number);
    if (name)
        snprintf(out, 32, "SIG%s", name);
    else
        snprintf(out, 32, "signal %d", number);
    return out;
}

static void add_subject(struct buf *text, const struct verdict_facts *facts)
{
    if (facts->launcher)
        buf_puts(text, facts->launcher);
    else
        buf_printf(text, "rank %u", facts->rank);
}

static void add_line(struct buf *text, const struct verdict_facts *facts)
{
    if (facts->abort_text[0])
        buf_printf(text, "; %s", facts->abort_text);
    if (facts->stderr_line[0])
        buf_printf(text, "; last stderr line: \"%s\"", facts->stderr_line);
}

static void add_memory(struct buf *text, const struct verdict_facts *facts)
{
    char peak[PARSE_TEXT_SIZE], limit[PARSE_TEXT_SIZE];
    if (facts->memory_peak_bytes)
        buf_printf(text, "; memory peaked at %s",
                   format_size_short(facts->memory_peak_bytes, peak));
    if (facts->memory_limit_bytes)
        buf_printf(text, "; the limit of all ranks is %s",
                   format_size_short(facts->memory_limit_bytes, limit));
}

static enum cause by_launch(const struct verdict_facts *facts, struct buf *text)
{
    buf_puts(text, facts->launch_error);
    return CAUSE_LAUNCH_FAILED;
}

static enum cause by_stop(const struct verdict_facts *facts, struct buf *text)
{
    buf_puts(text, facts->stop_text);
    if (facts->stop_cause == CAUSE_OOM)
        add_memory(text, facts);
    return facts->stop_cause;
}

static enum cause by_oom(const struct verdict_facts *facts, struct buf *text)
{
    add_subject(text, facts);
    buf_printf(text, " was killed by the kernel for lack of memory %s",
               facts->cgroup_oom_kills ? "within its limit" : "on the machine");
    add_memory(text, facts);
    return CAUSE_OOM;
}

static enum cause by_signal(const struct verdict_facts *facts, struct buf *text)
{
    char name[32];
    add_subject(text, facts);
    buf_printf(text, " died of %s, which Athanor did not send", signal_name(facts->code, name));
    if (facts->code == SIGKILL)
        add_memory(text, facts);
    add_line(text, facts);
    return CAUSE_SIGNAL;
}

static enum cause by_divergence(const struct verdict_facts *facts, struct buf *text)
{
    buf_printf(text, "%s; rank %u exited with code %d",
               facts->diverged_text[0] ? facts->diverged_text : "the program reported divergence",
               facts->rank, facts->code);
    return CAUSE_DIVERGED;
}

static enum cause by_giving_up(const struct verdict_facts *facts, struct buf *text)
{
    buf_puts(text, facts->gave_up[0] ? facts->gave_up : "the program gave up");
    return CAUSE_GAVE_UP;
}

static enum cause by_exit(const struct verdict_facts *facts, struct buf *text)
{
    add_subject(text, facts);
    buf_printf(text, " exited with code %d", facts->code);
    add_line(text, facts);
    return CAUSE_EXIT;
}

/* The first that applies, most certain first. */
static enum cause cause_of(const struct verdict_facts *facts, struct buf *text)
{
    bool killed = facts->failed && facts->by_signal && facts->code == SIGKILL;
    if (facts->launch_error)
        return by_launch(facts, text);
    if (facts->stop_cause != CAUSE_NONE)
        return by_stop(facts, text);
    if ((facts->failed && facts->cgroup_oom_kills) ||
        (killed && facts->machine_oom_kills && !facts->memory_counted))
        return by_oom(facts, text);
    if (facts->failed && facts->diverged)
        return by_divergence(facts, text);
    if (facts->failed && facts->gave_up && !facts->by_signal)
        return by_giving_up(facts, text);
    if (facts->failed)
        return facts->by_signal ? by_signal(facts, text) : by_exit(facts, text);
    return CAUSE_SUCCESS;
}

/* Evidence is shown as text: bytes that are none become '?'. */
static void make_printable(char *text)
{
    if (text_is_utf8(text, strlen(text)))
        return;
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            *text = '?';
}

void verdict_reach(const struct verdict_facts *facts, struct verdict *out)
{
    struct buf text = {0};
    out->cause = cause_of(facts, &text);
    bool coded =
        out->cause == CAUSE_EXIT || out->cause == CAUSE_SIGNAL || out->cause == CAUSE_DIVERGED ||
        out->cause == CAUSE_GAVE_UP;
    out->code = coded ? facts->code : 0;
    snprintf(out->text, sizeof out->text, "%s", buf_text(&text));
    make_printable(out->text);
    buf_done(&text);
}
