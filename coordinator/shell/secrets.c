/* secrets.c - a sorted array, as principals.c: secrets change rarely. */
#include "coordinator/shell/secrets.h"

#include "common/base/mem.h"
#include "common/spec/ref.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES   crypto_aead_xchacha20poly1305_ietf_KEYBYTES
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES   crypto_aead_xchacha20poly1305_ietf_ABYTES

struct secret {
    bool is_project;
    char *owner, *name;
    char key_id[SECRET_KEY_ID_SIZE];
    unsigned char *sealed;
    size_t length;
};

struct keys { /* in memory of sodium_malloc */
    struct keypair own;
    unsigned char at_rest[KEY_BYTES];
};

struct secrets {
    struct keys *keys;
    char key_id[SECRET_KEY_ID_SIZE];
    struct secret *items; /* those of accounts first; by owner, then name */
    size_t count, capacity;
};

/* ---- keys ----------------------------------------------------------------------------------- */

/* The identity is derived as the key is, for another purpose: it tells nothing of the key. */
static void keys_derive(struct secrets *secrets, const struct keypair *from)
{
    static const char for_values[] = "athanor secrets at rest, key";
    static const char for_name[] = "athanor secrets at rest, key id";
    unsigned char id[crypto_generichash_BYTES_MIN];
    const unsigned char *secret = (const unsigned char *)from->secret_key;
    crypto_generichash(secrets->keys->at_rest, KEY_BYTES, (const unsigned char *)for_values,
                       sizeof for_values - 1, secret, KEY_TEXT_LENGTH);
    crypto_generichash(id, sizeof id, (const unsigned char *)for_name, sizeof for_name - 1, secret,
                       KEY_TEXT_LENGTH);
    sodium_bin2hex(secrets->key_id, sizeof secrets->key_id, id, SECRET_KEY_ID_SIZE / 2);
}

int secrets_new(const struct keypair *own, const struct keypair *at_rest, struct secrets **out,
                struct err *err)
{
    CHECK(sodium_init() >= 0);
    struct secrets *secrets = mem_zalloc(sizeof *secrets);
    secrets->keys = sodium_malloc(sizeof *secrets->keys);
    if (!secrets->keys) {
        mem_free(secrets);
        return err_set(err, ERR_LIMIT, "there is no memory for keys");
    }
    secrets->keys->own = *own;
    keys_derive(secrets, at_rest);
    CHECK(sodium_mprotect_readonly(secrets->keys) == 0);
    *out = secrets;
    return 0;
}

const char *secrets_key_id(const struct secrets *secrets)
{
    return secrets->key_id;
}

/* ---- the table ------------------------------------------------------------------------------ */

static void secret_done(struct secret *secret)
{
    mem_free(secret->owner);
    mem_free(secret->name);
    mem_free(secret->sealed);
}

void secrets_clear(struct secrets *secrets)
{
    for (size_t i = 0; i < secrets->count; i++)
        secret_done(&secrets->items[i]);
    secrets->count = 0;
}

void secrets_free(struct secrets *secrets)
{
    if (!secrets)
        return;
    secrets_clear(secrets);
    mem_free(secrets->items);
    sodium_free(secrets->keys);
    mem_free(secrets);
}

static int compare(const struct secret *secret, struct secret_owner owner, const char *name)
{
    if (secret->is_project != owner.is_project)
        return secret->is_project ? 1 : -1;
    int order = strcmp(secret->owner, owner.name);

    return order ? order : strcmp(secret->name, name);
}

/* The first index that is not less. */
static size_t index_of(const struct secrets *secrets, struct secret_owner owner, const char *name)
{
    size_t low = 0, high = secrets->count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(&secrets->items[middle], owner, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct secret *find(const struct secrets *secrets, struct secret_owner owner,
                           const char *name)
{
    size_t index = index_of(secrets, owner, name);

    return index < secrets->count && compare(&secrets->items[index], owner, name) == 0
               ? &secrets->items[index]
               : NULL;
}

static struct secret *put(struct secrets *secrets, struct secret_owner owner, const char *name)
{
    size_t index = index_of(secrets, owner, name);

    VEC_RESERVE(secrets->items, secrets->count, secrets->capacity);
    memmove(secrets->items + index + 1, secrets->items + index,
            (secrets->count - index) * sizeof *secrets->items);
    secrets->count++;
    secrets->items[index] = (struct secret){.is_project = owner.is_project,
                                            .owner = mem_strdup(owner.name),
                                            .name = mem_strdup(name)};
    return &secrets->items[index];
}

/* Takes sealed. */
static void fill(struct secret *secret, const char *key_id, unsigned char *sealed, size_t length)
{
    mem_free(secret->sealed);
    secret->sealed = sealed;
    secret->length = length;
    snprintf(secret->key_id, sizeof secret->key_id, "%s", key_id);
}

static void load(struct secrets *secrets, struct secret_owner owner, const char *name,
                 const char *key_id, const struct row_blob *value)
{
    struct secret *secret = find(secrets, owner, name);
    unsigned char *sealed = mem_array(value->length + 1, 1);

    memcpy(sealed, value->bytes, value->length);
    fill(secret ? secret : put(secrets, owner, name), key_id, sealed, value->length);
}

void secrets_load(struct secrets *secrets, const struct row_secret *row)
{
    load(secrets, (struct secret_owner){false, row->account}, row->name, row->key_id,
         &row->sealed);
}

void secrets_load_shared(struct secrets *secrets, const struct row_project_secret *row)
{
    load(secrets, (struct secret_owner){true, row->project}, row->name, row->key_id, &row->sealed);
}

/* ---- encryption at rest --------------------------------------------------------------------- */

/* What the tag covers besides the value: a row that is copied to another owner does not open. */
static char *bound_to(const struct secret *secret, size_t *out_length)
{
    char *text = mem_printf("%s%s/%s", secret->is_project ? "//" : "", secret->owner,
                            secret->name); /* names hold no '/' */

    *out_length = strlen(text);
    return text;
}

static unsigned char *encrypt(const struct secrets *secrets, const struct secret *secret,
                              const struct clear_value *value, size_t *out_length)
{
    size_t bound_length;
    char *bound = bound_to(secret, &bound_length);
    unsigned char *sealed = mem_array(NONCE_BYTES + value->length + TAG_BYTES, 1);
    unsigned long long length;

    randombytes_buf(sealed, NONCE_BYTES); /* 192 bits: chance never draws one twice */
    crypto_aead_xchacha20poly1305_ietf_encrypt(
        sealed + NONCE_BYTES, &length, value->bytes, value->length, (const unsigned char *)bound,
        bound_length, NULL, sealed, secrets->keys->at_rest);
    mem_free(bound);
    *out_length = NONCE_BYTES + (size_t)length;
    return sealed;
}

static int decrypt(const struct secrets *secrets, const struct secret *secret,
                   struct clear_value *out, struct err *err)
{
    size_t bound_length;
    struct clear_value value;

    if (strcmp(secret->key_id, secrets->key_id) != 0)
        return err_set(err, ERR_DENIED,
                       "secret '%s' of %s is encrypted with key %s, this coordinator has %s: set "
                       "it again, or start the coordinators with --secrets-key",
                       secret->name, secret->owner, secret->key_id, secrets->key_id);
    if (secret->length < NONCE_BYTES + TAG_BYTES)
        return err_set(err, ERR_DENIED, "secret '%s' of %s is damaged in the database",
                       secret->name, secret->owner);
    if (clear_value_new(secret->length - NONCE_BYTES - TAG_BYTES, &value, err) < 0)
        return -1;
    char *bound = bound_to(secret, &bound_length);
    int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
        value.bytes, NULL, NULL, secret->sealed + NONCE_BYTES, secret->length - NONCE_BYTES,
        (const unsigned char *)bound, bound_length, secret->sealed, secrets->keys->at_rest);
    mem_free(bound);
    if (rc < 0) {
        clear_value_done(&value);
        return err_set(err, ERR_DENIED, "secret '%s' of %s was changed in the database",
                       secret->name, secret->owner);
    }
    *out = value;
    return 0;
}

/* ---- changes -------------------------------------------------------------------------------- */

/* sealed.length 0: it is removed. */
static void persist(const struct secret_change *change, const char *key_id, struct row_blob sealed,
                    struct effects *effects)
{
    uint64_t removed_at = sealed.length ? 0 : change->wall_us;
    const struct row_secret own = {.account = change->owner.name,
                                   .name = change->name,
                                   .sealed = sealed,
                                   .key_id = key_id,
                                   .set_at = change->wall_us,
                                   .removed_at = removed_at};
    const struct row_project_secret shared = {.project = change->owner.name,
                                              .name = change->name,
                                              .sealed = sealed,
                                              .key_id = key_id,
                                              .set_by = change->by,
                                              .set_at = change->wall_us,
                                              .removed_at = removed_at};

    if (change->owner.is_project)
        effects_persist(effects, ROW_TABLE_project_secret, PERSIST_UPSERT, &shared);
    else
        effects_persist(effects, ROW_TABLE_secret, PERSIST_UPSERT, &own);
}

size_t secrets_count(const struct secrets *secrets, struct secret_owner owner)
{
    size_t first = index_of(secrets, owner, ""), end = first;

    while (end < secrets->count && secrets->items[end].is_project == owner.is_project &&
           strcmp(secrets->items[end].owner, owner.name) == 0)
        end++;
    return end - first;
}

static int room_check(const struct secrets *secrets, struct secret_owner owner, struct err *err)
{
    size_t own = secrets_count(secrets, owner);

    if (own >= SECRETS_OF_OWNER_MAX || secrets->count >= SECRETS_MAX)
        return err_set(err, ERR_LIMIT, "%s has %zu secrets, the cluster %zu: at most %u and %u",
                       owner.name, own, secrets->count, SECRETS_OF_OWNER_MAX, SECRETS_MAX);
    return 0;
}

int secrets_set(struct secrets *secrets, const struct secret_change *change,
                const struct wire_bytes *box, struct effects *effects, struct err *err)
{
    struct clear_value value;
    struct secret *secret = find(secrets, change->owner, change->name);
    size_t length;

    if (!spec_name_is_valid(change->name))
        return err_set(err, ERR_INVALID,
                       "'%.100s' is not a name for a secret, expected letters, digits, '.', '_' "
                       "and '-', starting with a letter or digit, at most 100 characters",
                       change->name);
    if (box->length <= SEALED_EXTRA_BYTES || box->length > SEALED_EXTRA_BYTES + SECRET_BYTES_MAX)
        return err_set(err, ERR_INVALID, "the value of a secret has 1 to %u bytes",
                       SECRET_BYTES_MAX);
    if ((!secret && room_check(secrets, change->owner, err) < 0) ||
        sealed_open(&secrets->keys->own, box->bytes, box->length, &value, err) < 0)
        return -1;
    if (!secret)
        secret = put(secrets, change->owner, change->name);
    unsigned char *sealed = encrypt(secrets, secret, &value, &length);
    clear_value_done(&value);
    fill(secret, secrets->key_id, sealed, length);
    persist(change, secret->key_id, (struct row_blob){sealed, length}, effects);
    return 0;
}

int secrets_remove(struct secrets *secrets, const struct secret_change *change,
                   struct effects *effects, struct err *err)
{
    struct secret *secret = find(secrets, change->owner, change->name);

    if (!secret)
        return err_set(err, ERR_NOT_FOUND, "%s%.80s has no secret '%.100s': see athanor secret ls",
                       change->owner.is_project ? "project " : "", change->owner.name,
                       change->name);
    persist(change, "", (struct row_blob){"", 0}, effects);
    secret_done(secret);
    size_t index = (size_t)(secret - secrets->items);
    memmove(secret, secret + 1, (secrets->count - index - 1) * sizeof *secret);
    secrets->count--;
    return 0;
}

/* ---- use ------------------------------------------------------------------------------------ */

size_t secrets_names(const struct secrets *secrets, const char *account,
                     const char *const *projects, size_t project_count, struct arena *arena,
                     const struct secret_name **out)
{
    size_t room = secrets_count(secrets, (struct secret_owner){false, account}), count = 0;

    for (size_t i = 0; i < project_count; i++)
        room += secrets_count(secrets, (struct secret_owner){true, projects[i]});
    struct secret_name *names = arena_alloc(arena, (room + 1) * sizeof *names);
    for (size_t i = 0; i <= project_count; i++) {
        struct secret_owner owner = {i > 0, i > 0 ? projects[i - 1] : account};
        size_t first = index_of(secrets, owner, ""), end = first + secrets_count(secrets, owner);
        const char *project = i > 0 ? arena_strdup(arena, owner.name) : "";
        for (size_t k = first; k < end; k++)
            names[count++] =
                (struct secret_name){project, arena_strdup(arena, secrets->items[k].name)};
    }
    *out = names;
    return count;
}

int secrets_give(const struct secrets *secrets, const char *account, const char *project,
                 const char *name, const char *public_key, struct buf *out, struct err *err)
{
    const struct secret *secret = find(secrets, (struct secret_owner){false, account}, name);
    struct clear_value value;

    if (!secret && project[0])
        secret = find(secrets, (struct secret_owner){true, project}, name);
    if (!secret)
        return err_set(err, ERR_NOT_FOUND,
                       "%s has no secret '%.100s': store it with 'athanor secret set %.100s'%s%s",
                       account, name, name,
                       project[0] ? ", or with --project " : "; those of the job's project are "
                                                             "for who may submit there",
                       project);
    if (decrypt(secrets, secret, &value, err) < 0)
        return -1;
    int rc = sealed_make(public_key, &value, out, err);
    clear_value_done(&value);
    return rc;
}
