/* dump.h - an attempt's spool as text, for people and tests. */
#ifndef ATHANOR_SHEPHERD_DUMP_H
#define ATHANOR_SHEPHERD_DUMP_H

#include "common/base/err.h"

#include <stdio.h>

/* One JSON object a line for each report of the folder's spool, with the fields of its kind. */
int dump_spool(const char *folder, FILE *out, struct err *err) WARN_UNUSED;

#endif
