-- 0009_ledger.sql - what cores and GPUs were used for: every moment of an attempt in one class.
--
-- An attempt holds its cores from placed_at to ended_at. In between lie, in this order, at most:
--   launching      until its ranks run
--   kept           work that the job's result rests on: useful, and checkpointing
--   thrown away    work behind the last point that was resumed from: recomputed, when the job runs
--                  again, or abandoned, when it does not; and checkpointing
--   idle           from the request to stop, or from the last sign of life of a lost node
-- Boundaries are clamped into this order, so the classes add up to the time held, to the
-- microsecond, whatever clocks and programs said.

ALTER TABLE athanor.attempt ADD COLUMN stopping_at timestamptz, ADD COLUMN silent_at timestamptz;
ALTER TABLE athanor.checkpoint ADD COLUMN save_ms bigint NOT NULL DEFAULT 0 CHECK (save_ms >= 0);

CREATE VIEW athanor.usage_ledger AS
WITH facts AS (
    SELECT a.attempt_id, a.job_id, a.number, a.worker_id, a.state, a.cause, a.placed_at AS t0,
           greatest(coalesce(a.ended_at, now()), a.placed_at) AS t1, a.started_at,
           least(a.stopping_at, a.silent_at,
                 CASE WHEN a.ended_at IS NULL AND w.state = 'LOST' THEN w.ended_at END) AS idle_at,
           a.ended_at, later.resumed_at, j.ended_at IS NULL AS job_lives,
           CASE WHEN a.number = 1 THEN j.submitted_at ELSE greatest(
               (SELECT b.ended_at FROM athanor.attempt b
                 WHERE b.job_id = a.job_id AND b.number = a.number - 1),
               (SELECT max(v.at) FROM athanor.job_event v WHERE v.job_id = a.job_id
                   AND v.name = 'reopened' AND v.at <= a.placed_at)) END AS ready_at,
           j.experiment_id, j.name, j.account, j.kind,
           j.ranks * j.cores AS cores, j.ranks * j.gpus AS gpus
      FROM athanor.attempt a JOIN athanor.job j USING (job_id)
      LEFT JOIN athanor.worker w USING (worker_id),
           -- The earliest point that a later attempt went back to; NULL: there is no later one.
           LATERAL (SELECT min(CASE WHEN c.attempt_id = a.attempt_id THEN c.saved_at
                                    WHEN c.attempt_id > a.attempt_id THEN 'infinity'
                                    ELSE '-infinity' END) AS resumed_at
                      FROM athanor.attempt b
                      LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = b.resume_checkpoint_id
                     WHERE b.job_id = a.job_id AND b.number > a.number) later),
 began AS (
    SELECT f.*, least(greatest(coalesce(f.started_at, f.t1), f.t0), f.t1) AS ts FROM facts f),
 worked AS (
    SELECT b.*, greatest(least(coalesce(b.idle_at, b.t1), b.t1), b.ts) AS te FROM began b),
 parted AS (
    SELECT w.*, greatest(least(coalesce(w.resumed_at, CASE
               WHEN w.ended_at IS NULL OR w.cause = 'success' THEN 'infinity'
               ELSE (SELECT max(c.saved_at) FROM athanor.checkpoint c
                      WHERE c.attempt_id = w.attempt_id) END, '-infinity'), w.te), w.ts) AS kept_at
      FROM worked w),
 spans AS (
    SELECT p.*, us.held, us.launching, us.kept, us.lost, us.idle,
           least(saves.kept, us.kept) AS saving_kept, least(saves.lost, us.lost) AS saving_lost
      FROM parted p,
           LATERAL (SELECT (extract(epoch FROM p.t1 - p.t0) * 1000000)::bigint AS held,
                           (extract(epoch FROM p.ts - p.t0) * 1000000)::bigint AS launching,
                           (extract(epoch FROM p.kept_at - p.ts) * 1000000)::bigint AS kept,
                           (extract(epoch FROM p.te - p.kept_at) * 1000000)::bigint AS lost,
                           (extract(epoch FROM p.t1 - p.te) * 1000000)::bigint AS idle) us,
           LATERAL (SELECT coalesce(sum(c.save_ms) FILTER (WHERE c.saved_at <= p.kept_at), 0)::bigint
                           * 1000 AS kept,
                           coalesce(sum(c.save_ms) FILTER (WHERE c.saved_at > p.kept_at), 0)::bigint
                           * 1000 AS lost
                      FROM athanor.checkpoint c WHERE c.attempt_id = p.attempt_id) saves),
 rows AS (
    SELECT s.attempt_id, s.job_id, s.number, s.worker_id, s.state, s.cause, s.experiment_id, s.name,
           s.account, s.kind, s.cores, s.gpus, s.t0 AS placed_at, s.ended_at,
           greatest((extract(epoch FROM s.t0 - s.ready_at) * 1000000)::bigint, 0) AS queued,
           s.held, s.launching, s.kept - s.saving_kept AS useful,
           s.saving_kept + s.saving_lost AS checkpointing,
           CASE WHEN s.resumed_at IS NOT NULL OR s.job_lives THEN s.lost - s.saving_lost ELSE 0 END
               AS recomputed,
           CASE WHEN s.resumed_at IS NOT NULL OR s.job_lives THEN 0 ELSE s.lost - s.saving_lost END
               AS abandoned, s.idle
      FROM spans s
    UNION ALL
    SELECT NULL, j.job_id, NULL, NULL, j.state, j.cause, j.experiment_id, j.name, j.account, j.kind,
           j.ranks * j.cores, j.ranks * j.gpus, NULL, j.ended_at,
           (extract(epoch FROM coalesce(j.ended_at, now()) - w.ready_at) * 1000000)::bigint,
           0, 0, 0, 0, 0, 0, 0
      FROM athanor.job j,
           LATERAL (SELECT greatest(j.submitted_at,
                       (SELECT coalesce(max(b.ended_at), '-infinity') FROM athanor.attempt b
                         WHERE b.job_id = j.job_id),
                       CASE WHEN j.attempt_count > 0 THEN
                           (SELECT max(v.at) FROM athanor.job_event v
                             WHERE v.job_id = j.job_id AND v.name = 'reopened') END) AS ready_at) w
     WHERE coalesce(j.ended_at, now()) > w.ready_at
       AND NOT EXISTS (SELECT FROM athanor.attempt b
                        WHERE b.job_id = j.job_id AND b.ended_at IS NULL))
SELECT r.attempt_id, r.job_id, r.name, r.number, e.name AS experiment, r.account, r.kind,
       w.name AS worker, r.state, r.cause, r.cores, r.gpus, r.placed_at, r.ended_at,
       round(r.queued / 1000000.0, 6) AS queued_s, round(r.held / 1000000.0, 6) AS held_s,
       round(r.launching / 1000000.0, 6) AS launching_s, round(r.useful / 1000000.0, 6) AS useful_s,
       round(r.checkpointing / 1000000.0, 6) AS checkpointing_s, round(r.recomputed / 1000000.0, 6) AS recomputed_s,
       round(r.abandoned / 1000000.0, 6) AS abandoned_s, round(r.idle / 1000000.0, 6) AS idle_s
  FROM rows r JOIN athanor.experiment e USING (experiment_id)
  LEFT JOIN athanor.worker w USING (worker_id);
COMMENT ON VIEW athanor.usage_ledger IS
    'What each attempt''s time was used for. held_s = launching_s + useful_s + checkpointing_s + '
    'recomputed_s + abandoned_s + idle_s, exactly; times cores and gpus: core- and GPU-seconds. '
    'A row without attempt is the wait of a job behind its last attempt. Classes of attempts that '
    'have not ended are those of this moment.';

-- Sums over the ledger: one text for all, so that they cannot differ.
DO $$
DECLARE
    classes text[] := ARRAY['launching', 'useful', 'checkpointing', 'recomputed', 'abandoned', 'idle'];
    sums text := '';
    class text;
    each record;
BEGIN
    FOREACH class IN ARRAY classes LOOP
        sums := sums || format(', sum(l.%1$s_s * l.cores) / 3600 AS core_hours_%1$s', class);
    END LOOP;
    FOREACH class IN ARRAY classes LOOP
        sums := sums || format(', sum(l.%1$s_s * l.gpus) / 3600 AS gpu_hours_%1$s', class);
    END LOOP;
    FOR each IN SELECT * FROM (VALUES
        ('usage_of_jobs', 'l.job_id, l.name, l.experiment, l.account', '', 'each job'),
        ('usage_of_accounts', 'l.account', '', 'each account'),
        ('usage_of_workers', 'l.worker', 'WHERE l.attempt_id IS NOT NULL', 'each worker'),
        ('usage_of_causes', 'l.cause', 'WHERE l.attempt_id IS NOT NULL',
         'attempts by the cause that ended them; NULL: they have not ended'))
        AS v (name, keys, chosen, what)
    LOOP
        EXECUTE format('CREATE VIEW athanor.%I AS SELECT %s, count(DISTINCT l.job_id) AS jobs, '
                       'count(DISTINCT l.attempt_id) AS runs, sum(l.queued_s) AS queued_s, '
                       'sum(l.held_s * l.cores) / 3600 AS core_hours, '
                       'sum(l.held_s * l.gpus) / 3600 AS gpu_hours%s '
                       'FROM athanor.usage_ledger l %s GROUP BY %s',
                       each.name, each.keys, sums, each.chosen, each.keys);
        EXECUTE format('COMMENT ON VIEW athanor.%I IS %L', each.name,
                       'Core and GPU hours of ' || each.what || ', and what they were used for: '
                       'the classes of athanor.usage_ledger add up to core_hours and gpu_hours.');
    END LOOP;
END $$;

-- The lost-work ledger: what was computed in vain, or held without computing, and why.
CREATE VIEW athanor.lost_work AS
SELECT l.cause, l.account, l.job_id, l.name, count(DISTINCT l.attempt_id) AS runs,
       sum((l.recomputed_s + l.abandoned_s) * l.cores) / 3600 AS core_hours_lost,
       sum((l.recomputed_s + l.abandoned_s) * l.gpus) / 3600 AS gpu_hours_lost,
       sum(l.idle_s * l.cores) / 3600 AS core_hours_idle,
       sum(l.idle_s * l.gpus) / 3600 AS gpu_hours_idle
  FROM athanor.usage_ledger l
 WHERE l.attempt_id IS NOT NULL AND l.recomputed_s + l.abandoned_s + l.idle_s > 0
 GROUP BY l.cause, l.account, l.job_id, l.name;
COMMENT ON VIEW athanor.lost_work IS
    'Work thrown away and time held without working, by cause and job: sum it by either.';

CREATE OR REPLACE VIEW athanor.gpu_hours AS
SELECT e.name AS experiment, j.account, j.kind,
       date_trunc('day', a.started_at, 'UTC') AS day,
       count(*) AS runs,
       sum(hours.run * j.ranks * j.gpus) AS gpu_hours,
       sum(hours.run * j.ranks * j.cores) AS core_hours,
       sum(hours.run * j.ranks * j.gpus) FILTER (WHERE a.cause <> 'success') AS gpu_hours_lost,
       sum(hours.run * j.ranks * j.cores) FILTER (WHERE a.cause <> 'success') AS core_hours_lost,
       sum(l.gpu_useful) AS gpu_hours_useful, sum(l.core_useful) AS core_hours_useful,
       sum(l.gpu_lost) AS gpu_hours_thrown_away, sum(l.core_lost) AS core_hours_thrown_away
  FROM athanor.attempt a
  JOIN athanor.job j USING (job_id)
  JOIN athanor.experiment e USING (experiment_id),
       LATERAL (SELECT sum(u.useful_s * u.gpus) / 3600 AS gpu_useful,
                       sum(u.useful_s * u.cores) / 3600 AS core_useful,
                       sum((u.recomputed_s + u.abandoned_s) * u.gpus) / 3600 AS gpu_lost,
                       sum((u.recomputed_s + u.abandoned_s) * u.cores) / 3600 AS core_lost
                  FROM athanor.usage_ledger u WHERE u.attempt_id = a.attempt_id) l,
       LATERAL (SELECT extract(epoch FROM coalesce(a.ended_at, now()) - a.started_at)::double precision
                       / 3600 AS run) hours
 WHERE a.started_at IS NOT NULL
 GROUP BY e.name, j.account, j.kind, day;
COMMENT ON VIEW athanor.gpu_hours IS
    'GPU and core hours by experiment, account, kind and day of start; running ones count so far. '
    'Lost: of runs that did not succeed; thrown away: work that no result rests on.';

DO $$
DECLARE
    help jsonb := '{
        "queued_s": "seconds of waiting: before the attempt, or behind the last one",
        "held_s": "seconds from being placed to the end",
        "launching_s": "seconds until its ranks ran",
        "useful_s": "seconds of work that the result rests on, or may still",
        "checkpointing_s": "seconds of saving checkpoints, as far as programs tell it",
        "recomputed_s": "seconds of work behind the last point resumed from: made again",
        "abandoned_s": "seconds of work behind the last checkpoint of a job that ended without success",
        "idle_s": "seconds of stopping, or of being held for a lost node",
        "attempt_id": "number of the run; NULL: a wait behind the last run",
        "job_id": "number of the job", "name": "name of the job", "number": "which attempt, from 1",
        "experiment": "name of the experiment", "account": "principal that asked",
        "kind": "kind of the job", "worker": "name of the worker", "state": "of the run; of the job",
        "cause": "why it ended; NULL: it has not", "cores": "cores of all ranks",
        "gpus": "GPUs of all ranks", "placed_at": "when it was given to a worker",
        "ended_at": "when it ended", "jobs": "number of jobs", "runs": "number of runs",
        "core_hours": "core hours held", "gpu_hours": "GPU hours held",
        "core_hours_lost": "core hours of work thrown away",
        "gpu_hours_lost": "GPU hours of work thrown away"}';
    col record;
    text text;
BEGIN
    FOR col IN SELECT c.relname AS view, a.attname AS name
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                WHERE c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v'
                  AND col_description(c.oid, a.attnum) IS NULL
                  AND (c.relname LIKE 'usage\_%' OR c.relname IN ('lost_work', 'gpu_hours'))
    LOOP
        text := coalesce(help ->> col.name,
                         regexp_replace(replace(col.name, '_', ' '), '^(core|gpu) hours ',
                                        '\1 hours: '));
        EXECUTE format('COMMENT ON COLUMN athanor.%I.%I IS %L', col.view, col.name, text);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
