/* limits.h - how large anything on the wire may be, with the arithmetic. */
#ifndef ATHANOR_WIRE_LIMITS_H
#define ATHANOR_WIRE_LIMITS_H

#define WIRE_PROTOCOL 1 /* peers of WIRE_PROTOCOL - 1 and + 1 interoperate */

/* A frame: the largest legitimate message is a TABLE page of QUERY_ROWS_MAX rows at about 1 KiB,
 * or a SUBMIT with a spec of SPEC_BYTES_MAX; both stay below 8 MiB. */
#define WIRE_FRAME_BYTES_MAX ((size_t)8 << 20)
#define WIRE_STRING_BYTES_MAX ((size_t)4 << 20) /* one string or blob within a frame */
#define WIRE_LIST_ITEMS_MAX 131072u             /* 4096 rows x 32 columns of a TABLE */
#define WIRE_DEPTH_MAX 4u                       /* envelope, body, list, record */
#define WIRE_MAP_KEYS_MAX 64u

#define SPEC_BYTES_MAX ((size_t)1 << 20)
#define CATALOGUE_BYTES_MAX ((size_t)1 << 20)
#define QUERY_ROWS_DEFAULT 1000u
#define QUERY_ROWS_MAX 4096u
#define SUBMIT_JOBS_MAX 10000u /* jobs of one spec: 10,000 x 100 B of ids in the reply = 1 MB */

/* One REPORT: the worker cuts its stream at whichever comes first. */
#define REPORT_ITEMS_MAX 4096u
#define REPORT_BYTES_MAX ((size_t)1 << 20)
#define REPORT_TEXT_BYTES_MAX ((size_t)64 << 10) /* one log chunk, one line of the report socket */

/* EXEC: 256 of a coordinator hold at most 256 x 2 windows = 32 MiB in its queues. */
#define EXEC_CHUNK_BYTES 16384u
#define EXEC_WINDOW_BYTES 65536u
/* What a chunk takes of the window: so at most 64 small ones are under way in a direction. */
#define EXEC_COST(bytes) ((bytes) < 1024u ? 1024u : (uint64_t)(bytes))
#define EXEC_BEAT_MS 2000u
#define EXEC_SILENCE_MS 15000u /* of a client, after which its program is ended */
#define EXEC_ARGUMENTS_MAX 1024u
#define EXEC_ARGUMENT_BYTES_MAX 65536u /* of all together: one packet between daemon and shepherd */

/* A private key, a certificate chain, a service account's JSON; in memory 4,096 x 16 KiB. */
#define SECRET_BYTES_MAX 16384u
#define SECRETS_MAX      4096u

#endif
