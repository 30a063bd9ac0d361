/* verbs.h - declares the verbs of verbs.def. */
#ifndef ATHANOR_CLIENT_VERBS_H
#define ATHANOR_CLIENT_VERBS_H

#include "client/cli.h"

#define GROUP(title)
#define VERB(name) extern const struct verb verb_##name;
#include "client/verbs.def"
#undef GROUP
#undef VERB

#endif
