/* run.h - drives one recipe through one attempt: the loop around open, step, save, close. */
#ifndef ATHANOR_RUN_H
#define ATHANOR_RUN_H

#include "common/base/err.h"

struct job;

struct run_options {
    const char *job_dir;     /* checkpoints and artifacts; made if missing */
    const char *run_dir;     /* scratch */
    const char *resume;      /* checkpoint directory; NULL or "": a fresh start */
    uint64_t data_skip;      /* batches of data to leave out */
    const char *report_path; /* report socket; NULL or "": metrics are printed on stdout */
};

/* Runs the job on all ranks and returns 0 when it is done, or stopped after a checkpoint.
 * On an error the other ranks are ended too (comm_abort): this may not return. */
int run_job(const struct job *job, const struct run_options *options, struct err *err) WARN_UNUSED;

#endif
