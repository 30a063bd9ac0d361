-- 0018_charges.sql - what an attempt holds and is charged for: of an exclusive job all cores and GPUs
-- of its workers, of others what their ranks ask for. Attempts of before have zeros here, and
-- are counted by what their ranks ask for.
-- programs from 0017

ALTER TABLE athanor.attempt
    ADD COLUMN cores bigint NOT NULL DEFAULT 0 CHECK (cores >= 0),
    ADD COLUMN gpus bigint NOT NULL DEFAULT 0 CHECK (gpus >= 0);
ALTER TABLE athanor.attempt_node
    ADD COLUMN cores bigint NOT NULL DEFAULT 0 CHECK (cores >= 0),
    ADD COLUMN gpus bigint NOT NULL DEFAULT 0 CHECK (gpus >= 0);

CREATE OR REPLACE VIEW athanor.usage_ledger AS
WITH facts AS (
    SELECT a.attempt_id, a.job_id, a.number, coalesce(n.node, 0) AS node,
           coalesce(n.worker_id, a.worker_id) AS worker_id, a.state, a.cause, a.placed_at AS t0,
           greatest(coalesce(n.ended_at, a.ended_at, now()), a.placed_at) AS t1,
           CASE WHEN n.node IS NULL THEN a.started_at ELSE n.started_at END AS started_at,
           CASE WHEN n.node IS NULL THEN a.started_at ELSE
               (SELECT CASE WHEN count(*) = count(p.started_at) THEN max(p.started_at) END
                  FROM athanor.attempt_node p WHERE p.attempt_id = a.attempt_id) END AS complete_at,
           least(a.stopping_at, a.silent_at,
                 CASE WHEN a.ended_at IS NULL AND w.state = 'LOST' THEN w.ended_at END) AS idle_at,
           a.ended_at, later.resumed_at, j.ended_at IS NULL AS job_lives,
           CASE WHEN a.number = 1 THEN j.submitted_at ELSE greatest(
               (SELECT b.ended_at FROM athanor.attempt b
                 WHERE b.job_id = a.job_id AND b.number = a.number - 1),
               (SELECT max(v.at) FROM athanor.job_event v WHERE v.job_id = a.job_id
                   AND v.name = 'reopened' AND v.at <= a.placed_at)) END AS ready_at,
           j.experiment_id, j.name, j.account, j.kind,
           CASE WHEN a.cores + a.gpus > 0 THEN coalesce(n.cores, a.cores)
                ELSE coalesce(n.ranks, j.ranks) * j.cores END AS cores,
           CASE WHEN a.cores + a.gpus > 0 THEN coalesce(n.gpus, a.gpus)
                ELSE coalesce(n.ranks, j.ranks) * j.gpus END AS gpus
      FROM athanor.attempt a JOIN athanor.job j USING (job_id)
      LEFT JOIN athanor.attempt_node n ON n.attempt_id = a.attempt_id
      LEFT JOIN athanor.worker w ON w.worker_id = coalesce(n.worker_id, a.worker_id),
           -- The earliest point that a later attempt went back to; NULL: there is no later one.
           LATERAL (SELECT min(CASE WHEN c.attempt_id = a.attempt_id THEN c.saved_at
                                    WHEN c.attempt_id > a.attempt_id THEN 'infinity'
                                    ELSE '-infinity' END) AS resumed_at
                      FROM athanor.attempt b
                      LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = b.resume_checkpoint_id
                     WHERE b.job_id = a.job_id AND b.number > a.number) later),
 began AS (
    SELECT f.*, least(greatest(coalesce(f.started_at, f.t1), f.t0), f.t1) AS ts FROM facts f),
 met AS (
    SELECT b.*, least(greatest(coalesce(b.complete_at, b.t1), b.ts), b.t1) AS tm FROM began b),
 worked AS (
    SELECT m.*, greatest(least(coalesce(m.idle_at, m.t1), m.t1), m.tm) AS te FROM met m),
 parted AS (
    SELECT w.*, greatest(least(coalesce(w.resumed_at, CASE
               WHEN w.ended_at IS NULL OR w.cause = 'success' THEN 'infinity'
               ELSE (SELECT max(c.saved_at) FROM athanor.checkpoint c
                      WHERE c.attempt_id = w.attempt_id) END, '-infinity'), w.te), w.tm) AS kept_at
      FROM worked w),
 spans AS (
    SELECT p.*, us.held, us.launching, us.kept, us.lost, us.idle,
           least(saves.kept, us.kept) AS saving_kept, least(saves.lost, us.lost) AS saving_lost
      FROM parted p,
           LATERAL (SELECT (extract(epoch FROM p.t1 - p.t0) * 1000000)::bigint AS held,
                           (extract(epoch FROM p.ts - p.t0) * 1000000)::bigint AS launching,
                           (extract(epoch FROM p.kept_at - p.tm) * 1000000)::bigint AS kept,
                           (extract(epoch FROM p.te - p.kept_at) * 1000000)::bigint AS lost,
                           (extract(epoch FROM (p.t1 - p.te) + (p.tm - p.ts)) * 1000000)::bigint
                               AS idle) us,
           LATERAL (SELECT coalesce(sum(c.save_ms) FILTER (WHERE c.saved_at <= p.kept_at), 0)::bigint
                           * 1000 AS kept,
                           coalesce(sum(c.save_ms) FILTER (WHERE c.saved_at > p.kept_at), 0)::bigint
                           * 1000 AS lost
                      FROM athanor.checkpoint c WHERE c.attempt_id = p.attempt_id) saves),
 rows AS (
    SELECT s.attempt_id, s.job_id, s.number, s.node, s.worker_id, s.state, s.cause, s.experiment_id, s.name,
           s.account, s.kind, s.cores, s.gpus, s.t0 AS placed_at, s.ended_at,
           CASE WHEN s.node > 0 THEN 0 ELSE
               greatest((extract(epoch FROM s.t0 - s.ready_at) * 1000000)::bigint, 0) END AS queued,
           s.held, s.launching, s.kept - s.saving_kept AS useful,
           s.saving_kept + s.saving_lost AS checkpointing,
           CASE WHEN s.resumed_at IS NOT NULL OR s.job_lives THEN s.lost - s.saving_lost ELSE 0 END
               AS recomputed,
           CASE WHEN s.resumed_at IS NOT NULL OR s.job_lives THEN 0 ELSE s.lost - s.saving_lost END
               AS abandoned, s.idle
      FROM spans s
    UNION ALL
    SELECT NULL, j.job_id, NULL, NULL, NULL, j.state, j.cause, j.experiment_id, j.name, j.account, j.kind,
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
       round(r.abandoned / 1000000.0, 6) AS abandoned_s, round(r.idle / 1000000.0, 6) AS idle_s, r.node
  FROM rows r JOIN athanor.experiment e USING (experiment_id)
  LEFT JOIN athanor.worker w USING (worker_id);
COMMENT ON COLUMN athanor.usage_ledger.cores IS 'cores held there: of an exclusive job all there are';
COMMENT ON COLUMN athanor.usage_ledger.gpus IS 'GPUs held there: of an exclusive job all there are';

CREATE OR REPLACE VIEW athanor.gpu_hours AS
SELECT e.name AS experiment, j.account, j.kind,
       date_trunc('day', a.started_at, 'UTC') AS day,
       count(*) AS runs,
       sum(hours.run * charge.gpus) AS gpu_hours,
       sum(hours.run * charge.cores) AS core_hours,
       sum(hours.run * charge.gpus) FILTER (WHERE a.cause <> 'success') AS gpu_hours_lost,
       sum(hours.run * charge.cores) FILTER (WHERE a.cause <> 'success') AS core_hours_lost,
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
                       / 3600 AS run) hours,
       LATERAL (SELECT CASE WHEN a.cores + a.gpus > 0 THEN a.cores ELSE j.ranks * j.cores END AS cores,
                       CASE WHEN a.cores + a.gpus > 0 THEN a.gpus ELSE j.ranks * j.gpus END AS gpus)
               charge
 WHERE a.started_at IS NOT NULL
 GROUP BY e.name, j.account, j.kind, day;

CREATE OR REPLACE VIEW athanor.quota_uses AS
WITH live AS (
    SELECT j.job_id, j.account, j.project, j.queue,
           j.state IN ('PLACED', 'RUNNING', 'STOPPING') AS runs,
           CASE WHEN a.cores + a.gpus > 0 THEN a.cores ELSE j.ranks * j.cores END AS cores,
           CASE WHEN a.cores + a.gpus > 0 THEN a.gpus ELSE j.ranks * j.gpus END AS gpus
      FROM athanor.job j
      LEFT JOIN athanor.attempt a ON a.job_id = j.job_id AND a.ended_at IS NULL
     WHERE j.ended_at IS NULL),
 counts AS (
    SELECT DISTINCT ON (l.job_id, q.account = '', q.project = '', q.queue = '')
           l.job_id, q.scope, CASE WHEN q.account = '*' THEN l.account ELSE q.account END AS account,
           CASE WHEN q.project = '*' THEN l.project ELSE q.project END AS project,
           CASE WHEN q.queue = '*' THEN l.queue ELSE q.queue END AS queue, l.runs, l.cores, l.gpus
      FROM live l JOIN athanor.quota q ON q.removed_at IS NULL
       AND q.account IN ('', '*', l.account) AND q.project IN ('', '*', l.project)
       AND q.queue IN ('', '*', l.queue)
     ORDER BY l.job_id, q.account = '', q.project = '', q.queue = '',
              q.account = '*', q.project = '*', q.queue = '*'),
 uses AS (
    SELECT c.scope, c.account, c.project, c.queue, count(*) FILTER (WHERE c.runs) AS jobs_used,
           coalesce(sum(c.cores) FILTER (WHERE c.runs), 0)::bigint AS cores_used,
           coalesce(sum(c.gpus) FILTER (WHERE c.runs), 0)::bigint AS gpus_used,
           count(*) FILTER (WHERE NOT c.runs) AS queued_used
      FROM counts c GROUP BY c.scope, c.account, c.project, c.queue),
 named AS (
    SELECT u.*, concat_ws(' ', 'user=' || NULLIF(u.account, ''), 'project=' || NULLIF(u.project, ''),
                          'queue=' || NULLIF(u.queue, '')) AS instance FROM uses u)
SELECT q.scope, coalesce(n.instance, CASE WHEN strpos(q.scope, '*') = 0 THEN q.scope END) AS instance,
       coalesce(n.jobs_used, 0) AS jobs_used, NULLIF(q.jobs, -1) AS jobs,
       coalesce(n.cores_used, 0) AS cores_used, NULLIF(q.cores, -1) AS cores,
       coalesce(n.gpus_used, 0) AS gpus_used, NULLIF(q.gpus, -1) AS gpus,
       coalesce(n.queued_used, 0) AS queued_used, NULLIF(q.queued, -1) AS queued,
       CASE WHEN q.gpu_ms >= 0 THEN (CASE WHEN u.window_at >= w.begins_at THEN u.gpu_ms ELSE 0 END
           + coalesce(n.gpus_used, 0) * 1000
             * extract(epoch FROM now() - greatest(u.as_of, w.begins_at)))::bigint END AS gpu_ms_used,
       NULLIF(q.gpu_ms, -1) AS gpu_ms, NULLIF(q.period_ms, 0) AS period_ms
  FROM athanor.quota q LEFT JOIN named n USING (scope)
  LEFT JOIN athanor.quota_usage u ON u.scope = coalesce(n.instance, q.scope),
       LATERAL (SELECT date_bin(make_interval(secs => greatest(q.period_ms, 1000) / 1000.0), now(),
                                timestamptz '1970-01-05 00:00+00') AS begins_at) w
 WHERE q.removed_at IS NULL;

CREATE OR REPLACE VIEW athanor.shares AS
WITH tuned AS (
    SELECT max(s.value) FILTER (WHERE s.name = 'half_life_ms') / 1000.0::double precision AS half_life,
           max(s.value) FILTER (WHERE s.name = 'gpu_cores') AS gpu_cores FROM athanor.setting s),
 rates AS (
    SELECT k.kind, CASE k.kind WHEN 'account' THEN j.account ELSE j.project END AS name,
           sum(CASE WHEN a.cores + a.gpus > 0 THEN a.cores + a.gpus * t.gpu_cores
                    ELSE j.ranks * (j.cores + j.gpus * t.gpu_cores) END)::double precision AS cores
      FROM athanor.attempt a JOIN athanor.job j USING (job_id), tuned t,
           (VALUES ('account'), ('project')) AS k(kind)
     WHERE a.ended_at IS NULL GROUP BY 1, 2),
 aged AS (
    SELECT u.kind, u.name, coalesce(p.weight, u.weight) AS weight, coalesce(r.cores, 0) AS cores_now,
           power(2, -x.age / t.half_life) * u.core_ms / 3600000
           + coalesce(r.cores, 0) * t.half_life / ln(2) * (1 - power(2, -x.age / t.half_life)) / 3600
             AS core_hours
      FROM athanor.usage u LEFT JOIN rates r USING (kind, name)
      LEFT JOIN athanor.project p ON u.kind = 'project' AND p.name = u.name AND p.removed_at IS NULL,
           tuned t,
           LATERAL (SELECT greatest(extract(epoch FROM now() - u.as_of)::double precision, 0) AS age) x),
 fractions AS (
    SELECT a.*, a.weight / sum(a.weight) OVER (PARTITION BY a.kind)::double precision AS share,
           a.core_hours / NULLIF(sum(a.core_hours) OVER (PARTITION BY a.kind), 0) AS used
      FROM aged a)
SELECT f.kind, f.name, f.weight, f.share, f.core_hours, coalesce(f.used, 0) AS used, f.cores_now,
       power(2, -coalesce(f.used, 0) / f.share) AS factor
  FROM fractions f;
