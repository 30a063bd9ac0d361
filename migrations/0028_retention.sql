-- What jobs leave behind: how long it stays, why, and what is being removed.
-- programs from 0027

CREATE TABLE athanor.removal (
    removal_id   bigint PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('checkpoint', 'artifact')),
    object_id    bigint NOT NULL,
    job_id       bigint NOT NULL REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    worker_id    bigint NOT NULL REFERENCES athanor.worker DEFERRABLE INITIALLY DEFERRED,
    path         text NOT NULL,
    size_bytes   bigint,
    content_hash bytea,
    ordered_at   timestamptz NOT NULL,
    done_at      timestamptz
);
COMMENT ON TABLE athanor.removal IS
    'files that retention has chosen, and whether their worker has removed them';
CREATE INDEX removal_open ON athanor.removal (worker_id) WHERE done_at IS NULL;
COMMENT ON INDEX athanor.removal_open IS 'Reader: a leader that takes over and orders them again.';
CREATE INDEX removal_job ON athanor.removal (job_id);
COMMENT ON INDEX athanor.removal_job IS
    'Reader: submit --reuse, which takes no results of which something is gone.';

-- Every checkpoint and artifact that is there: whether it goes, and why, if it stays. What decides,
-- first to last: its job lives; a living job descends from its job (by needs, inputs that were
-- read, or results that were taken); nobody has said how long it is to stay; it is not old enough,
-- from the end of its job or of the last one that used it; the files can only be removed by the
-- worker that made them. A number in place of NULL is used instead of what specs and settings say.
-- Cost: all dependencies and lineage once, some seconds with a million jobs.
CREATE FUNCTION athanor.retention_list(checkpoint_ms bigint, artifact_ms bigint)
RETURNS TABLE (kind text, object_id bigint, job_id bigint, worker_id bigint, path text,
               content_hash bytea, size_bytes bigint, name text, used_at timestamptz,
               keep_ms bigint, goes boolean, why text)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH RECURSIVE edge AS (
        SELECT d.job_id AS child, d.parent_id AS parent FROM athanor.job_dependency d
        UNION
        SELECT j.job_id, j.reused_job_id FROM athanor.job j WHERE j.reused_job_id IS NOT NULL
        UNION
        SELECT a.job_id, l.source_job_id FROM athanor.lineage l
          JOIN athanor.attempt a USING (attempt_id) WHERE l.source_job_id IS NOT NULL),
    needed AS (
        SELECT e.parent, e.child FROM edge e
          JOIN athanor.job j ON j.job_id = e.child WHERE j.ended_at IS NULL
        UNION
        SELECT e.parent, e.child FROM needed n JOIN edge e ON e.child = n.parent),
    need AS (SELECT parent AS job_id, min(child) AS child FROM needed GROUP BY parent),
    used AS (SELECT e.parent AS job_id, max(j.ended_at) AS at
               FROM edge e JOIN athanor.job j ON j.job_id = e.child GROUP BY e.parent),
    thing AS (
        SELECT 'checkpoint' AS kind, c.checkpoint_id AS object_id, c.job_id, c.worker_id, c.path,
               c.content_hash, c.size_bytes, 'step ' || c.step AS name, false AS is_outdone,
               coalesce(checkpoint_ms, (j.spec -> 'retention' ->> 'checkpoints_ms')::bigint,
                   (SELECT value FROM athanor.setting WHERE name = 'checkpoint_keep_ms')) AS keep_ms
          FROM athanor.checkpoint c JOIN athanor.job j USING (job_id) WHERE c.removed_at IS NULL
        UNION ALL
        SELECT 'artifact', a.artifact_id, a.job_id, a.worker_id, a.path, a.content_hash,
               a.size_bytes, a.kind || ' ' || a.name,
               EXISTS (SELECT FROM athanor.artifact n WHERE n.job_id = a.job_id
                          AND n.removed_at IS NULL AND n.artifact_id <> a.artifact_id
                          AND (n.path = a.path AND n.artifact_id > a.artifact_id
                               OR starts_with(n.path, a.path || '/')))
                   OR EXISTS (SELECT FROM athanor.checkpoint c WHERE c.job_id = a.job_id
                          AND c.removed_at IS NULL AND starts_with(c.path, a.path || '/')),
               coalesce(artifact_ms, (j.spec -> 'retention' ->> 'artifacts_ms')::bigint,
                   (SELECT value FROM athanor.setting WHERE name = 'artifact_keep_ms'))
          FROM athanor.artifact a JOIN athanor.job j USING (job_id) WHERE a.removed_at IS NULL),
    judged AS (
        SELECT t.*, greatest(j.ended_at, u.at) AS used_at,
               CASE WHEN j.ended_at IS NULL THEN 'its job has not ended'
                    WHEN n.child IS NOT NULL THEN
                        'job ' || n.child || ', or one that descends from it, has not ended'
                    WHEN t.keep_ms IS NULL OR t.keep_ms = 0 AND checkpoint_ms IS NULL
                         AND artifact_ms IS NULL THEN 'it is kept for ever'
                    WHEN greatest(j.ended_at, u.at) > now() - t.keep_ms * interval '1 millisecond'
                        THEN 'it is kept until ' || to_char((greatest(j.ended_at, u.at)
                            + t.keep_ms * interval '1 millisecond') AT TIME ZONE 'UTC',
                            'YYYY-MM-DD HH24:MI "UTC"')
                    WHEN t.is_outdone THEN 'a later one lies at its path, or another within it'
                    WHEN w.worker_id IS NULL OR w.state NOT IN ('OK', 'SUSPECT')
                        THEN 'its worker is away'
               END AS why
          FROM thing t JOIN athanor.job j USING (job_id) LEFT JOIN need n USING (job_id)
          LEFT JOIN used u USING (job_id) LEFT JOIN athanor.worker w ON w.worker_id = t.worker_id)
    SELECT kind, object_id, job_id, worker_id, path, content_hash, size_bytes, name, used_at,
           nullif(keep_ms, 0), why IS NULL, why FROM judged
$$;
COMMENT ON FUNCTION athanor.retention_list(bigint, bigint) IS
    'Checkpoints and artifacts that are there: which of them go, and why the others stay.';

-- What the coordinator removes next, in the form of orders; numbers and times are its own.
CREATE FUNCTION athanor.retention_due(checkpoint_ms bigint, artifact_ms bigint, most integer)
RETURNS SETOF athanor.removal LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT 0::bigint, kind, object_id, job_id, worker_id, path, size_bytes, content_hash,
           now(), NULL::timestamptz
      FROM athanor.retention_list(checkpoint_ms, artifact_ms) WHERE goes
     ORDER BY kind, object_id LIMIT most
$$;
COMMENT ON FUNCTION athanor.retention_due(bigint, bigint, integer) IS
    'Orders to remove what retention_list says goes. Reader: the coordinator.';
REVOKE EXECUTE ON FUNCTION athanor.retention_due(bigint, bigint, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION athanor.retention_list(bigint, bigint) FROM PUBLIC;

CREATE VIEW athanor.removals AS
SELECT r.removal_id, r.kind, r.object_id, r.job_id, w.name AS worker, r.path, r.size_bytes,
       r.ordered_at, r.done_at
  FROM athanor.removal r JOIN athanor.worker w USING (worker_id);
COMMENT ON VIEW athanor.removals IS 'What retention has removed, or told a worker to remove.';
COMMENT ON COLUMN athanor.removals.removal_id IS 'number of the order';
COMMENT ON COLUMN athanor.removals.kind IS 'checkpoint or artifact';
COMMENT ON COLUMN athanor.removals.object_id IS 'number of the checkpoint or artifact';
COMMENT ON COLUMN athanor.removals.job_id IS 'job that made it';
COMMENT ON COLUMN athanor.removals.worker IS 'worker on whose disk it is';
COMMENT ON COLUMN athanor.removals.path IS 'where it was';
COMMENT ON COLUMN athanor.removals.size_bytes IS 'size of all its files';
COMMENT ON COLUMN athanor.removals.ordered_at IS 'since when nothing refers to it any more';
COMMENT ON COLUMN athanor.removals.done_at IS 'when the worker said that no file is left; NULL: not yet';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
