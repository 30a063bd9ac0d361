/* spec_file.h - a spec read for submit and check, as a SUBMIT message. */
#ifndef ATHANOR_CLIENT_SPEC_FILE_H
#define ATHANOR_CLIENT_SPEC_FILE_H

#include "client/client.h"

#define SPEC_OPTIONS                                                                               \
    {                                                                                              \
        "set", 0, VALUE_PAIR, "PATH=VALUE", "override a field: --set params.learning_rate=3e-4",   \
        true},                                                                                     \
    {                                                                                              \
        "experiment", 'e', VALUE_TEXT, "NAME", "short for --set experiment=NAME", false            \
    }

/* Reads the file named by the first word ("-": standard input). Returns an exit code; what the
 * message points to lives in the client's arena. */
int spec_file_message(struct client *client, const struct args *args, struct message *out);

#endif
