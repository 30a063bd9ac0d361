/* code.h - folders of code on their way to the cluster, and back. */
#ifndef ATHANOR_CLIENT_CODE_H
#define ATHANOR_CLIENT_CODE_H

#include "client/client.h"
#include "common/snapshot/snapshot.h"

/* Packs every folder of code that the SUBMIT's spec names and adds the hashes to it; with `send`
 * the archives go to the coordinator, which needs only those it does not have. On a terminal a bar
 * shows how far it is. Returns an exit code; what went wrong has been printed. */
int code_attach(struct client *client, struct message *submit, bool send);

/* An archive in memory: a descriptor for the caller to close. Same errors as above. */
int code_pack(struct client *client, const char *folder, int *out_fd);

/* The hash of the code that a job (number or name) runs, in hex, in the client's arena. */
int code_of_job(struct client *client, const char *job, const char **out_hex);
/* Fetches an archive, checked by its hash, into memory: a descriptor for the caller to close. */
int code_fetch(struct client *client, const char *hex, int *out_fd);
/* Prints the files of an archive, and for people its hash. */
int code_print(struct client *client, int fd);

#endif
