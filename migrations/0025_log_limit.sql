-- How much output each job has left, which its limit (limits.log) is of.
-- programs from 0024

ALTER TABLE athanor.job
    ADD COLUMN log_bytes bigint NOT NULL DEFAULT 0 CHECK (log_bytes >= 0);
ALTER TABLE athanor.report_cursor
    ADD COLUMN log_bytes bigint NOT NULL DEFAULT 0 CHECK (log_bytes >= 0);

CREATE OR REPLACE VIEW athanor.jobs AS
SELECT j.job_id, j.name, e.name AS experiment, j.kind, j.recipe, j.account, j.state, j.held, j.cause,
       j.detail, j.priority, j.ranks, j.cores, j.memory_bytes, j.gpus, j.attempt_count,
       j.progress_step, j.progress_total, j.progress_phase,
       j.submitted_at, j.eligible_at, j.started_at, j.ended_at,
       j.spec -> 'params' AS params, j.spec, j.queue, j.project,
       CASE WHEN j.state IN ('PLACED', 'RUNNING', 'STOPPING') THEN
           (SELECT w.ended_at FROM athanor.attempt a JOIN athanor.worker w USING (worker_id)
             WHERE a.job_id = j.job_id AND a.ended_at IS NULL AND w.state = 'LOST') END
           AS node_lost_at,
       j.log_bytes
  FROM athanor.job j JOIN athanor.experiment e USING (experiment_id);
COMMENT ON COLUMN athanor.jobs.log_bytes IS
    'output that its ended attempts have left; limits.log in the spec says how much it may be';
