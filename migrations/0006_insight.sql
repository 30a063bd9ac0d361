-- 0006_insight.sql - what happened, where the first views were silent: a name within an experiment,
-- values that are no numbers, jobs whose node is lost.

-- By the views, so that the reading role may call it too.
CREATE OR REPLACE FUNCTION athanor.job_find(name_or_id text) RETURNS bigint
LANGUAGE sql STABLE STRICT AS $$
    SELECT CASE WHEN name_or_id ~ '^[0-9]{1,18}$' THEN name_or_id::bigint
                WHEN position('/' IN name_or_id) > 0 THEN
                    (SELECT j.job_id FROM athanor.jobs j
                      WHERE j.experiment = split_part(name_or_id, '/', 1)
                        AND j.name = substr(name_or_id, position('/' IN name_or_id) + 1)
                      ORDER BY j.job_id DESC LIMIT 1)
                ELSE (SELECT j.job_id FROM athanor.jobs j WHERE j.name = name_or_id
                       ORDER BY j.job_id DESC LIMIT 1) END
$$;
COMMENT ON FUNCTION athanor.job_find IS
    'The job of this number, or the newest one of this NAME or EXPERIMENT/NAME.';

-- NaN ranks behind every number, in both directions: lowest and highest are NaN only where no
-- number was reported, but the last value, the count of NaNs and the verdict show it.
CREATE OR REPLACE VIEW athanor.best_metrics AS
SELECT m.job_id, j.name AS job, m.name, count(*) AS points,
       min(m.value) AS lowest,
       (array_agg(m.step ORDER BY m.value, m.step))[1] AS lowest_step,
       coalesce(max(m.value) FILTER (WHERE m.value <> 'NaN'), 'NaN') AS highest,
       (array_agg(m.step ORDER BY m.value = 'NaN', m.value DESC, m.step))[1] AS highest_step,
       (array_agg(m.value ORDER BY m.attempt_id DESC, m.step DESC, m.seq DESC))[1] AS last,
       max(m.step) AS last_step,
       count(*) FILTER (WHERE m.value = 'NaN') AS nans,
       (array_agg(m.value ORDER BY m.attempt_id DESC, m.step DESC, m.seq DESC))[1]
           IN ('NaN', 'Infinity', '-Infinity')
       OR EXISTS (SELECT FROM athanor.attempt a
                   WHERE a.job_id = m.job_id AND a.cause = 'diverged') AS diverged
  FROM athanor.metric m JOIN athanor.job j USING (job_id)
 GROUP BY m.job_id, j.name, m.name;
COMMENT ON VIEW athanor.best_metrics IS
    'Per job and metric the lowest, highest and last value and their steps. NaN ranks behind every '
    'number; nans counts it.';
COMMENT ON COLUMN athanor.best_metrics.nans IS 'how many of the points are NaN';
COMMENT ON COLUMN athanor.best_metrics.diverged IS
    'whether the last value is NaN or infinite, or a run of the job ended as diverged';

-- A job that keeps its node while the node is gone (on_disconnect: wait) is still RUNNING.
CREATE OR REPLACE VIEW athanor.jobs AS
SELECT j.job_id, j.name, e.name AS experiment, j.kind, j.recipe, j.account, j.state, j.held, j.cause,
       j.detail, j.priority, j.ranks, j.cores, j.memory_bytes, j.gpus, j.attempt_count,
       j.progress_step, j.progress_total, j.progress_phase,
       j.submitted_at, j.eligible_at, j.started_at, j.ended_at,
       j.spec -> 'params' AS params, j.spec, j.queue, j.project,
       CASE WHEN j.state IN ('PLACED', 'RUNNING', 'STOPPING') THEN
           (SELECT w.ended_at FROM athanor.attempt a JOIN athanor.worker w USING (worker_id)
             WHERE a.job_id = j.job_id AND a.ended_at IS NULL AND w.state = 'LOST') END
           AS node_lost_at
  FROM athanor.job j JOIN athanor.experiment e USING (experiment_id);
COMMENT ON COLUMN athanor.jobs.node_lost_at IS
    'since when the node that it runs on is lost; NULL: it is not';

-- Views keep their grants when they are replaced; new ones need them.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
