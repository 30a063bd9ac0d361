/* log.h - one line per event on stderr, for main, shell and daemons only.
 *
 * Line: time level component message key=value ... Under systemd the journal's
 * "<N>" priority prefix is used instead of time and level. */
#ifndef ATHANOR_LOG_H
#define ATHANOR_LOG_H

#include "common/base/base.h"

enum log_level { LOG_LEVEL_ERROR = 1, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_init(const char *component, enum log_level most);
void log_line(enum log_level level, const char *format, ...) FORMAT(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
