-- 0037_blocks.sql - which rank made which block of a distillation, when and in which time.
--
-- Runs tell each block as an event, in order of its number, once it is counted
-- (worker/recipes/distillation/impossible). Jobs of any kind may send events of any text: what is
-- not of the expected shape gives no row, and never an error.
-- programs from 0029

CREATE FUNCTION athanor.block_read(detail text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    o jsonb;
    field text;
BEGIN
    BEGIN
        o := detail::jsonb;
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END;
    FOREACH field IN ARRAY ARRAY['block', 'blocks', 'first', 'contexts', 'pool', 'pairs', 'rank',
                                 'leases', 'ms', 'sample_us', 'critic_us'] LOOP
        IF coalesce(o ->> field, '') !~ '^\d{1,17}$' THEN
            RETURN NULL;
        END IF;
    END LOOP;
    IF coalesce(o ->> 'stage', '') !~ '^[a-z0-9-]{1,64}$' OR coalesce(o ->> 'round', '0') !~ '^\d{1,9}$' THEN
        RETURN NULL;
    END IF;
    RETURN o;
END $$;
COMMENT ON FUNCTION athanor.block_read IS
    'The detail of an event block; NULL where it is none.';

-- An attempt tells again what earlier ones left: the first telling counts.
CREATE VIEW athanor.distillation_blocks AS
SELECT DISTINCT ON (v.job_id, o ->> 'stage', (o ->> 'block')::bigint)
       v.job_id, j.name AS job, o ->> 'stage' AS stage, (o ->> 'block')::bigint AS block,
       (o ->> 'round')::bigint AS round, (o ->> 'blocks')::bigint AS blocks,
       (o ->> 'first')::bigint AS first_context, (o ->> 'contexts')::bigint AS contexts,
       (o ->> 'pool')::bigint AS pool, (o ->> 'pairs')::bigint AS pairs, o ->> 'hash' AS hash,
       v.attempt_id, (o ->> 'rank')::bigint AS rank, (o ->> 'leases')::bigint AS leases,
       greatest((o ->> 'leases')::bigint - 1, 0) AS expired,
       (o ->> 'ms')::double precision / 1e3 AS seconds,
       (o ->> 'sample_us')::double precision / 1e6 AS sample_seconds,
       (o ->> 'critic_us')::double precision / 1e6 AS critic_seconds, v.at AS told_at
  FROM athanor.job_event v
  JOIN athanor.job j USING (job_id)
 CROSS JOIN LATERAL (SELECT athanor.block_read(v.detail) AS o OFFSET 0) r
 WHERE v.name = 'block' AND v.attempt_id IS NOT NULL AND o IS NOT NULL
 ORDER BY v.job_id, o ->> 'stage', (o ->> 'block')::bigint, v.event_id;
COMMENT ON VIEW athanor.distillation_blocks IS
    'Blocks of contexts of distillations that are done, in order of numbers up to the last one that '
    'is counted: who made them, and how long it took.';
DO $$
DECLARE
    help CONSTANT jsonb := '{
        "job_id": "number of the job", "job": "its name",
        "stage": "stage of the job; pairs: of a job of its own", "block": "number, from 0",
        "round": "0: the first; then of self-distillation; NULL: of a pipeline, which does not say",
        "blocks": "most that there can be", "first_context": "number of its first context",
        "contexts": "how many it has", "pool": "pairs that were judged", "pairs": "kept ones",
        "hash": "BLAKE2b-256 of the block, in hex", "attempt_id": "run that told it first",
        "rank": "who made it", "leases": "times it was given to a rank; 0: made before there were leases",
        "expired": "those whose rank had not made it in time",
        "seconds": "from lease to end", "sample_seconds": "of sampling", "critic_seconds": "of judging",
        "told_at": "when it was counted"}';
    col record;
BEGIN
    FOR col IN SELECT a.attname AS name FROM pg_attribute a
                WHERE a.attrelid = 'athanor.distillation_blocks'::regclass AND a.attnum > 0
    LOOP
        EXECUTE format('COMMENT ON COLUMN athanor.distillation_blocks.%I IS %L', col.name,
                       help ->> col.name);
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION athanor.block_read(text) FROM PUBLIC;
-- Views call functions with the rights of who reads.
CREATE OR REPLACE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text),
        athanor.sweep_find(text), athanor.params_text(jsonb), athanor.card_number(jsonb, text),
        athanor.card_list(jsonb, text), athanor.pair_lineage(text, text), athanor.order_read(text),
        athanor.mix64(bigint), athanor.order_item(numeric, bigint, bigint),
        athanor.step_items(bigint, bigint), athanor.block_read(text) TO athanor_reader;
    FOR view IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'athanor'::regnamespace AND relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON athanor.%I TO athanor_reader', view);
    END LOOP;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
