-- Copies of checkpoints and datasets that workers fetched from others and keep.
-- programs from 0029

CREATE TABLE athanor.copy (
    copy_id      bigint PRIMARY KEY,
    worker_id    bigint NOT NULL REFERENCES athanor.worker DEFERRABLE INITIALLY DEFERRED,
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    kind         text NOT NULL CHECK (kind IN ('checkpoint', 'dataset')),
    size_bytes   bigint,
    source       text NOT NULL,
    fetched_at   timestamptz NOT NULL,
    told_at      timestamptz NOT NULL,
    removed_at   timestamptz
);
COMMENT ON TABLE athanor.copy IS 'what workers have fetched from others, and whether they keep it';
CREATE UNIQUE INDEX copy_held ON athanor.copy (content_hash, worker_id) WHERE removed_at IS NULL;
COMMENT ON INDEX athanor.copy_held IS
    'A worker keeps a content once. Readers: a leader that takes over; views of who has what.';
CREATE INDEX copy_fetched ON athanor.copy (worker_id, content_hash, told_at);
COMMENT ON INDEX athanor.copy_fetched IS 'Reader: the view reads, what an attempt fetched.';
CREATE INDEX checkpoint_content ON athanor.checkpoint (content_hash);
COMMENT ON INDEX athanor.checkpoint_content IS 'Reader: the view copies, what is copied.';
CREATE INDEX artifact_content ON athanor.artifact (content_hash);
COMMENT ON INDEX athanor.artifact_content IS 'Reader: the view copies, what is copied.';

CREATE VIEW athanor.copies AS
SELECT c.copy_id, c.kind, encode(c.content_hash, 'hex') AS content_hash, w.name AS worker,
       c.source, c.size_bytes, o.job_id, o.name, c.fetched_at, c.removed_at
  FROM athanor.copy c
  JOIN athanor.worker w USING (worker_id)
  LEFT JOIN LATERAL (
        SELECT job_id, name FROM (
            SELECT k.job_id, 'step ' || k.step AS name, k.saved_at AS at FROM athanor.checkpoint k
             WHERE k.content_hash = c.content_hash
            UNION ALL
            SELECT a.job_id, a.name, a.created_at FROM athanor.artifact a
             WHERE a.content_hash = c.content_hash) made
         ORDER BY at DESC LIMIT 1) o ON true;
COMMENT ON VIEW athanor.copies IS
    'Checkpoints and datasets that workers fetched from others; removed_at: kept no more.';
COMMENT ON COLUMN athanor.copies.copy_id IS 'number of the copy';
COMMENT ON COLUMN athanor.copies.kind IS 'checkpoint or dataset';
COMMENT ON COLUMN athanor.copies.content_hash IS 'BLAKE2b-256 of its index, in hex';
COMMENT ON COLUMN athanor.copies.worker IS 'worker that fetched it';
COMMENT ON COLUMN athanor.copies.source IS 'worker that gave it, the last of several';
COMMENT ON COLUMN athanor.copies.size_bytes IS 'size of all its files';
COMMENT ON COLUMN athanor.copies.job_id IS 'job that made what is copied, the latest of several';
COMMENT ON COLUMN athanor.copies.name IS 'name of the dataset, or step of the checkpoint';
COMMENT ON COLUMN athanor.copies.fetched_at IS 'when it was whole, by its worker''s clock';
COMMENT ON COLUMN athanor.copies.removed_at IS 'when its worker told that it keeps it no more; NULL: it does';

-- Of an attempt what it resumes from and its inputs, on each of its workers. Fetched for it is what
-- was told while it waited there for its start; what nobody fetched was there before, or at its
-- path.
CREATE VIEW athanor.reads AS
SELECT r.attempt_id, t.job_id, j.name, r.input, r.ref, encode(r.content_hash, 'hex') AS content_hash,
       r.size_bytes, w.name AS worker, m.name AS made_on, c.source AS fetched_from,
       c.size_bytes AS fetched_bytes, c.fetched_at,
       ARRAY(SELECT h.name FROM athanor.copy k JOIN athanor.worker h USING (worker_id)
              WHERE k.content_hash = r.content_hash AND k.removed_at IS NULL
              ORDER BY h.name) AS copies_on
  FROM (SELECT a.attempt_id, 'resume' AS input, 'step ' || k.step AS ref, k.content_hash,
               k.size_bytes, k.worker_id AS made_id
          FROM athanor.attempt a JOIN athanor.checkpoint k ON k.checkpoint_id = a.resume_checkpoint_id
        UNION ALL
        SELECT l.attempt_id, l.input, l.ref, l.content_hash, coalesce(k.size_bytes, f.size_bytes),
               coalesce(k.worker_id, f.worker_id)
          FROM athanor.lineage l
          LEFT JOIN athanor.checkpoint k ON k.checkpoint_id = l.checkpoint_id
          LEFT JOIN athanor.artifact f ON f.artifact_id = l.artifact_id
         WHERE l.content_hash IS NOT NULL) r
  JOIN athanor.attempt t USING (attempt_id)
  JOIN athanor.job j USING (job_id)
  JOIN LATERAL (SELECT t.worker_id UNION
                SELECT n.worker_id FROM athanor.attempt_node n
                 WHERE n.attempt_id = t.attempt_id) p ON true
  JOIN athanor.worker w ON w.worker_id = p.worker_id
  LEFT JOIN athanor.worker m ON m.worker_id = r.made_id
  LEFT JOIN LATERAL (
        SELECT k.source, k.size_bytes, k.fetched_at FROM athanor.copy k
         WHERE k.worker_id = p.worker_id AND k.content_hash = r.content_hash
           AND k.told_at >= t.placed_at AND k.told_at <= coalesce(t.started_at, t.ended_at, now())
         ORDER BY k.told_at DESC LIMIT 1) c ON true;
COMMENT ON VIEW athanor.reads IS
    'What each run reads that has a hash, where that was made, who has copies, and what was fetched.';
COMMENT ON COLUMN athanor.reads.attempt_id IS 'number of the run';
COMMENT ON COLUMN athanor.reads.job_id IS 'its job';
COMMENT ON COLUMN athanor.reads.name IS 'name of the job';
COMMENT ON COLUMN athanor.reads.input IS 'name of the input; resume: the checkpoint it goes on from';
COMMENT ON COLUMN athanor.reads.ref IS 'as in the spec; of a resume point its step';
COMMENT ON COLUMN athanor.reads.content_hash IS 'BLAKE2b-256 of its index, in hex';
COMMENT ON COLUMN athanor.reads.size_bytes IS 'size of all its files';
COMMENT ON COLUMN athanor.reads.worker IS 'worker of the run; a run on several has a row for each';
COMMENT ON COLUMN athanor.reads.made_on IS 'worker that made what is read';
COMMENT ON COLUMN athanor.reads.fetched_from IS 'worker it was fetched from for this run; NULL: it was not';
COMMENT ON COLUMN athanor.reads.fetched_bytes IS 'how much was fetched';
COMMENT ON COLUMN athanor.reads.fetched_at IS 'when that was whole, by the worker''s clock';
COMMENT ON COLUMN athanor.reads.copies_on IS 'workers that keep a copy now';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
