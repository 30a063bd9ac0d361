/* trace.h - a script of events in, the decisions of the core beside them: golden traces.
 *
 * Lines of a trace:
 *   # comment                  kept
 *   > TIME VERB WORDS...       one event at steady time TIME ms (see below)
 *   | YAML                     the spec of the submit above, without `athanor: 1`
 *   < ...                      what the step decided; rewritten on each run
 *
 * Verbs:
 *   join WORKER cores=N memory=GIB gpus=N label=NAME:VALUE incarnation=N held=ID,ID key=NAME
 *        engine=DIGIT link=DIGIT (others reach it) copies=PATH@WORKER,...
 *   copies WORKER PATH@WORKER,...   all that it keeps now, each from another worker
 *   beat WORKER | leave WORKER | tick | restart (a new leader loads what is committed)
 *   submit KEY [check|reuse]   KEY: any word, the submit key
 *   started ATTEMPT | finished ATTEMPT CAUSE [code=N] [text=WORD]
 *   metric ATTEMPT NAME=VALUE step=N | progress ATTEMPT STEP TOTAL | log ATTEMPT WORD
 *   checkpoint ATTEMPT STEP [path=P] [METRIC=VALUE] | dataset ATTEMPT NAME
 *        all of these take seq=N (default: the next one) and from=WORKER
 *   cancel|hold|release|retry|drain|undrain KIND:TARGET ... [as=ACCOUNT]
 *   collect code|checkpoint|artifact [as=ACCOUNT]   what nothing needs goes, however young
 *   removed WORKER REMOVAL [failure=WORD]
 *   why JOB
 *   outlook JOB [cores=N gpus=N ranks=N nodes=N wall_ms=N queue=NAME]   when it would start, so
 *   wall SECONDS               the wall clock jumps by that much from here on
 * Every step is committed to a memory_db, whose constraints are thus tested as well, and
 * followed by core_check. */
#ifndef ATHANOR_TESTS_TRACE_H
#define ATHANOR_TESTS_TRACE_H

#include "common/base/buf.h"
#include "common/base/err.h"

/* Runs the events of `text` and appends the whole trace, decisions renewed, to `out`.
 * Errors: a line that is not understood, a broken invariant or constraint, with its line. */
int trace_run(const char *text, struct buf *out, struct err *err) WARN_UNUSED;

#endif
