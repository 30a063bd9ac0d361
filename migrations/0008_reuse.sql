-- 0008_reuse.sql - jobs that take the results of identical ones (athanor submit --reuse).

ALTER TABLE athanor.job
    ADD COLUMN spec_hash bytea,
    ADD COLUMN reused_job_id bigint REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    ADD COLUMN identity bytea,
    ADD CONSTRAINT job_reused CHECK (reused_job_id IS NULL OR reused_job_id < job_id);
COMMENT ON CONSTRAINT job_reused ON athanor.job IS 'Results come from a job that was there before.';
CREATE INDEX job_spec_hash ON athanor.job (spec_hash, job_id)
    WHERE identity IS NOT NULL AND state = 'SUCCEEDED';
COMMENT ON INDEX athanor.job_spec_hash IS 'Reader: submit --reuse, which looks for identical jobs.';
CREATE INDEX job_reused_job ON athanor.job (reused_job_id) WHERE reused_job_id IS NOT NULL;
COMMENT ON INDEX athanor.job_reused_job IS 'Reader: views of checkpoints and artifacts; the foreign key.';
ALTER TABLE athanor.worker ADD COLUMN engine text;

-- What a job has made, or the job whose results it took.
CREATE VIEW athanor.reuses AS
SELECT j.job_id, j.name, e.name AS experiment, j.reused_job_id, s.name AS reused_name,
       f.name AS reused_experiment, encode(s.identity, 'hex') AS identity, j.ended_at
  FROM athanor.job j
  JOIN athanor.experiment e ON e.experiment_id = j.experiment_id
  JOIN athanor.job s ON s.job_id = j.reused_job_id
  JOIN athanor.experiment f ON f.experiment_id = s.experiment_id;
COMMENT ON VIEW athanor.reuses IS 'Jobs that took the results of an identical one instead of running.';
COMMENT ON COLUMN athanor.reuses.job_id IS 'number of the job that did not run';
COMMENT ON COLUMN athanor.reuses.name IS 'its name';
COMMENT ON COLUMN athanor.reuses.experiment IS 'its experiment';
COMMENT ON COLUMN athanor.reuses.reused_job_id IS 'number of the job whose results it took';
COMMENT ON COLUMN athanor.reuses.reused_name IS 'name of that job';
COMMENT ON COLUMN athanor.reuses.reused_experiment IS 'experiment of that job';
COMMENT ON COLUMN athanor.reuses.identity IS
    'hash of what ran: resolved spec, contents of the inputs, program of the engine';
COMMENT ON COLUMN athanor.reuses.ended_at IS 'when the results were taken';

CREATE OR REPLACE VIEW athanor.checkpoints AS
SELECT c.checkpoint_id, j.job_id, j.name, c.attempt_id, c.step, c.path, c.size_bytes,
       encode(c.content_hash, 'hex') AS content_hash, c.metrics, c.saved_at, c.removed_at, w.name AS worker
  FROM (SELECT job_id, name, job_id AS made_by FROM athanor.job
        UNION ALL
        SELECT job_id, name, reused_job_id FROM athanor.job WHERE reused_job_id IS NOT NULL) AS j
  JOIN athanor.checkpoint c ON c.job_id = j.made_by
  LEFT JOIN athanor.worker w ON w.worker_id = c.worker_id;
COMMENT ON VIEW athanor.checkpoints IS
    'Complete, hashed checkpoints, also those of jobs that took the results of another; '
    'removed_at: files are gone.';

CREATE OR REPLACE VIEW athanor.artifacts AS
SELECT a.artifact_id, a.kind, a.name, j.job_id, a.attempt_id, a.path, a.size_bytes,
       encode(a.content_hash, 'hex') AS content_hash, a.meta, a.created_at,
       a.artifact_id = max(a.artifact_id) OVER (PARTITION BY a.kind, a.name) AND
           j.job_id = a.job_id AS newest
  FROM (SELECT job_id, job_id AS made_by FROM athanor.job
        UNION ALL
        SELECT job_id, reused_job_id FROM athanor.job WHERE reused_job_id IS NOT NULL) AS j
  JOIN athanor.artifact a ON a.job_id = j.made_by;
COMMENT ON VIEW athanor.artifacts IS
    'Named things that jobs made, also those of jobs that took the results of another; the newest '
    'of a name is used.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
