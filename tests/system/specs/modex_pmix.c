/* modex_pmix.c - ranks that ask each other for what was never collected: each puts a word, all meet
 * in a fence that carries no data, each gets the words of all others. Only a direct question to the
 * shepherd of the other node ("direct modex") can answer that. */
#include <pmix.h>
#include <stdio.h>
#include <string.h>

static int failed(const char *what, pmix_status_t status)
{
    fprintf(stderr, "%s: %s\n", what, PMIx_Error_string(status));
    return 1;
}

int main(void)
{
    pmix_proc_t self, peer;
    pmix_value_t *value, word;
    char text[32], wanted[32];
    bool no = false;
    pmix_info_t collect, now;
    pmix_status_t status = PMIx_Init(&self, NULL, 0);
    if (status != PMIX_SUCCESS)
        return failed("init", status);
    snprintf(text, sizeof text, "word of %u", self.rank);
    PMIX_VALUE_CONSTRUCT(&word);
    PMIX_VALUE_LOAD(&word, text, PMIX_STRING);
    if ((status = PMIx_Put(PMIX_GLOBAL, "word", &word)) != PMIX_SUCCESS ||
        (status = PMIx_Commit()) != PMIX_SUCCESS)
        return failed("put", status);
    PMIX_INFO_LOAD(&collect, PMIX_COLLECT_DATA, &no, PMIX_BOOL);
    if ((status = PMIx_Fence(NULL, 0, &collect, 1)) != PMIX_SUCCESS)
        return failed("fence", status);
    PMIX_PROC_CONSTRUCT(&peer);
    snprintf(peer.nspace, sizeof peer.nspace, "%s", self.nspace);
    peer.rank = PMIX_RANK_WILDCARD;
    if ((status = PMIx_Get(&peer, PMIX_JOB_SIZE, NULL, 0, &value)) != PMIX_SUCCESS)
        return failed("size", status);
    unsigned size = value->data.uint32, got = 0;
    int limit = 60;
    PMIX_INFO_LOAD(&now, PMIX_TIMEOUT, &limit, PMIX_INT);
    for (peer.rank = 0; peer.rank < size; peer.rank++) {
        if ((status = PMIx_Get(&peer, "word", &now, 1, &value)) != PMIX_SUCCESS)
            return failed("get", status);
        snprintf(wanted, sizeof wanted, "word of %u", peer.rank);
        got += value->type == PMIX_STRING && strcmp(value->data.string, wanted) == 0;
    }
    printf("rank %u has %u words of %u\n", self.rank, got, size);
    fflush(stdout);
    PMIx_Fence(NULL, 0, NULL, 0); /* nobody leaves while others still ask */
    PMIx_Finalize(NULL, 0);
    return got == size ? 0 : 2;
}
