-- Which worker made a dataset, so that others can fetch it; and when retention removed one.
-- programs from 0022

ALTER TABLE athanor.artifact
    ADD COLUMN worker_id bigint REFERENCES athanor.worker DEFERRABLE INITIALLY DEFERRED,
    ADD COLUMN removed_at timestamptz;
UPDATE athanor.artifact a SET worker_id = t.worker_id
  FROM athanor.attempt t WHERE t.attempt_id = a.attempt_id;

CREATE OR REPLACE VIEW athanor.artifacts AS
SELECT a.artifact_id, a.kind, a.name, j.job_id, a.attempt_id, a.path, a.size_bytes,
       encode(a.content_hash, 'hex') AS content_hash, a.meta, a.created_at,
       a.removed_at IS NULL AND a.artifact_id = max(a.artifact_id)
           FILTER (WHERE a.removed_at IS NULL) OVER (PARTITION BY a.kind, a.name) AND
           j.job_id = a.job_id AS newest,
       w.name AS worker, a.removed_at
  FROM (SELECT job_id, job_id AS made_by FROM athanor.job
        UNION ALL
        SELECT job_id, reused_job_id FROM athanor.job WHERE reused_job_id IS NOT NULL) AS j
  JOIN athanor.artifact a ON a.job_id = j.made_by
  LEFT JOIN athanor.worker w ON w.worker_id = a.worker_id;
COMMENT ON COLUMN athanor.artifacts.worker IS 'worker whose disk it was made on';
COMMENT ON COLUMN athanor.artifacts.removed_at IS
    'when retention removed the files; NULL while they are there';
