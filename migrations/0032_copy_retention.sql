-- Copies go when what they are copies of goes, and stay while it stays.
-- programs from 0031

ALTER TABLE athanor.removal DROP CONSTRAINT removal_kind_check;
ALTER TABLE athanor.removal ADD CONSTRAINT removal_kind_check
    CHECK (kind IN ('checkpoint', 'artifact', 'copy'));
COMMENT ON CONSTRAINT removal_kind_check ON athanor.removal IS 'Reader: whoever looks object_id up.';
COMMENT ON COLUMN athanor.removals.kind IS 'checkpoint, artifact or copy';
COMMENT ON COLUMN athanor.removals.object_id IS 'number of the checkpoint, artifact or copy';
COMMENT ON COLUMN athanor.removals.job_id IS 'job that made it, of a copy what it is a copy of';
COMMENT ON COLUMN athanor.removals.path IS 'where it was; of a copy empty: where its worker keeps them';

ALTER FUNCTION athanor.retention_list(bigint, bigint) RENAME TO retention_originals;
COMMENT ON FUNCTION athanor.retention_originals(bigint, bigint) IS
    'Checkpoints and artifacts that are there: which of them go, and why the others stay.';

-- A copy goes when every checkpoint and artifact of its content is removed or goes now; one of a
-- content that nobody has made, by the rows, is left to its worker.
CREATE FUNCTION athanor.retention_list(checkpoint_ms bigint, artifact_ms bigint)
RETURNS TABLE (kind text, object_id bigint, job_id bigint, worker_id bigint, path text,
               content_hash bytea, size_bytes bigint, name text, used_at timestamptz,
               keep_ms bigint, goes boolean, why text)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH original AS MATERIALIZED (
        SELECT * FROM athanor.retention_originals(checkpoint_ms, artifact_ms)),
    content AS (
        SELECT content_hash, bool_and(goes) AS goes, max(used_at) AS used_at FROM original
         WHERE content_hash IS NOT NULL GROUP BY content_hash),
    judged AS (
        SELECT c.copy_id, m.job_id, c.worker_id, c.content_hash, c.size_bytes,
               'copy of ' || m.name AS name, o.used_at,
               CASE WHEN NOT o.goes THEN 'what it is a copy of stays'
                    WHEN w.state NOT IN ('OK', 'SUSPECT') THEN 'its worker is away'
                    WHEN EXISTS (SELECT FROM athanor.removal r WHERE r.kind = 'copy'
                                    AND r.object_id = c.copy_id AND r.worker_id = c.worker_id
                                    AND r.done_at IS NULL)
                        THEN 'its worker has been told to remove it'
               END AS why
          FROM athanor.copy c
          JOIN athanor.worker w USING (worker_id)
          JOIN LATERAL (
                SELECT made.job_id, made.name FROM (
                    SELECT k.job_id, 'step ' || k.step AS name, k.saved_at AS at
                      FROM athanor.checkpoint k WHERE k.content_hash = c.content_hash
                    UNION ALL
                    SELECT a.job_id, a.kind || ' ' || a.name, a.created_at
                      FROM athanor.artifact a WHERE a.content_hash = c.content_hash) made
                 ORDER BY made.at DESC LIMIT 1) m ON true
          LEFT JOIN content o USING (content_hash)
         WHERE c.removed_at IS NULL)
    SELECT * FROM original
    UNION ALL
    SELECT 'copy', copy_id, job_id, worker_id, '', content_hash, size_bytes, name, used_at,
           NULL::bigint, why IS NULL, why FROM judged
$$;
COMMENT ON FUNCTION athanor.retention_list(bigint, bigint) IS
    'Checkpoints, artifacts and copies that are there: which of them go, and why the others stay.';
REVOKE EXECUTE ON FUNCTION athanor.retention_list(bigint, bigint) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION athanor.retention_originals(bigint, bigint) FROM PUBLIC;

-- The same words as before: a function of SQL keeps the number of what it calls.
CREATE OR REPLACE FUNCTION athanor.retention_due(checkpoint_ms bigint, artifact_ms bigint, most integer)
RETURNS SETOF athanor.removal LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT 0::bigint, kind, object_id, job_id, worker_id, path, size_bytes, content_hash,
           now(), NULL::timestamptz
      FROM athanor.retention_list(checkpoint_ms, artifact_ms) WHERE goes
     ORDER BY kind = 'copy', kind, object_id LIMIT most
$$;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
