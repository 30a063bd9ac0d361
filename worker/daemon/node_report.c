/* node_report.c - what the daemon finds wrong with its own node, told one at a time.
 *
 * A report keeps its stamp until it is acknowledged, so that a repeat is known for one. Stamps go
 * on from what the coordinator has taken (WORKER_WELCOME). What is waiting when the daemon ends is
 * lost: health is told anew by the next one, and epilogs run again for attempts that are still
 * here. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/daemon/daemon.h"

#include <string.h>

#define REPORTS_MAX     64u /* the oldest go first; each is below 2 kB */
#define REPORT_AGAIN_MS 2000u

struct node_report {
    struct node_report *next;
    uint64_t stamp; /* 0: not sent yet */
    char *kind, *text;
    bool severe;
    uint64_t job_id, attempt_id;
};

static void report_free(struct node_report *report)
{
    mem_free(report->kind);
    mem_free(report->text);
    mem_free(report);
}

static struct node_report *report_unlink(struct daemon *daemon)
{
    struct node_report *report = daemon->node_reports;
    daemon->node_reports = report->next;
    daemon->node_report_count--;
    return report;
}

static void report_send(struct daemon *daemon)
{
    struct node_report *report = daemon->node_reports;
    struct message message = {.tag = MSG_NODE_REPORT};
    struct msg_node_report *out = &message.u.node_report;
    struct err err = {0};
    struct arena arena = {0};
    if (!daemon->worker_id || !report)
        return;
    if (!report->stamp)
        report->stamp = ++daemon->node_stamp;
    *out = (struct msg_node_report){.worker_id = daemon->worker_id,
                                    .incarnation = daemon->incarnation,
                                    .stamp = report->stamp,
                                    .kind = report->kind,
                                    .severe = report->severe,
                                    .text = report->text,
                                    .job_id = report->job_id,
                                    .attempt_id = report->attempt_id};
    if (strcmp(report->kind, "health") == 0)
        out->checks = health_checks(daemon->health, &arena, &out->checks_count);
    daemon->node_report_ms = clock_steady_ms();
    if (peer_send(daemon->peer, &message, NULL, &err) < 0)
        log_warn("%s is not sent: %s", msg_name(message.tag), err.text);
    arena_done(&arena);
}

void node_report_add(struct daemon *daemon, const char *kind, bool severe, const char *text,
                     uint64_t job_id, uint64_t attempt_id)
{
    struct node_report **end = &daemon->node_reports;
    struct node_report *report = mem_zalloc(sizeof *report);
    *report = (struct node_report){.kind = mem_strdup(kind),
                                   .text = mem_strdup(text),
                                   .severe = severe,
                                   .job_id = job_id,
                                   .attempt_id = attempt_id};
    if (*text)
        log_warn("%s: %s", kind, text);
    if (daemon->node_report_count == REPORTS_MAX)
        report_free(report_unlink(daemon));
    while (*end)
        end = &(*end)->next;
    *end = report;
    daemon->node_report_count++;
    if (daemon->node_reports == report)
        report_send(daemon);
}

void node_report_acked(struct daemon *daemon, uint64_t stamp)
{
    const struct node_report *first = daemon->node_reports;
    daemon->node_stamp = max_u64(daemon->node_stamp, stamp);
    if (first && first->stamp && first->stamp <= stamp)
        report_free(report_unlink(daemon));
    report_send(daemon);
}

void node_report_tick(struct daemon *daemon)
{
    if (daemon->node_reports && clock_steady_ms() - daemon->node_report_ms >= REPORT_AGAIN_MS)
        report_send(daemon);
}

void node_reports_close(struct daemon *daemon)
{
    while (daemon->node_reports)
        report_free(report_unlink(daemon));
}
