-- Where an attempt's numbers went bad, and how many batches of data its job leaves out since.
-- programs from 0019

ALTER TABLE athanor.job ADD COLUMN data_skip bigint NOT NULL DEFAULT 0 CHECK (data_skip >= 0);
ALTER TABLE athanor.attempt
    ADD COLUMN data_skip bigint NOT NULL DEFAULT 0 CHECK (data_skip >= 0),
    ADD COLUMN diverged_step bigint NOT NULL DEFAULT 0 CHECK (diverged_step >= 0);

CREATE OR REPLACE VIEW athanor.runs AS
SELECT a.attempt_id, a.job_id, j.name, a.number, a.state, a.cause, a.code, a.evidence, a.stop_cause,
       w.name AS worker, a.epoch, a.resume_checkpoint_id, c.step AS resume_step, a.placement, a.usage,
       a.placed_at, a.started_at, a.ended_at,
       (extract(epoch FROM a.ended_at - a.started_at) * 1000)::bigint AS run_ms,
       a.data_skip, nullif(a.diverged_step, 0) AS diverged_step
  FROM athanor.attempt a
  JOIN athanor.job j USING (job_id)
  JOIN athanor.worker w USING (worker_id)
  LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = a.resume_checkpoint_id;
COMMENT ON COLUMN athanor.runs.data_skip IS
    'batches of data left out after divergence: step s read batch s + data_skip of the data''s order';
COMMENT ON COLUMN athanor.runs.diverged_step IS
    'step at which a metric was not finite or passed its bound; NULL: none did';
