-- 0013_ledger_nodes.sql - the ledger, worker by worker: each node of an attempt on several is held and
-- given back by itself. In between placing and the end it has one class more: it waits, idle, until
-- the ranks of all nodes run.

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
           coalesce(n.ranks, j.ranks) * j.cores AS cores, coalesce(n.ranks, j.ranks) * j.gpus AS gpus
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
COMMENT ON VIEW athanor.usage_ledger IS
    'What each attempt''s time was used for, one row for each worker that it ran on. held_s = '
    'launching_s + useful_s + checkpointing_s + recomputed_s + abandoned_s + idle_s, exactly; times '
    'cores and gpus: core- and GPU-seconds. A row without attempt is the wait of a job behind its '
    'last attempt. Classes of attempts that have not ended are those of this moment.';
COMMENT ON COLUMN athanor.usage_ledger.node IS 'node within the run';
COMMENT ON COLUMN athanor.usage_ledger.cores IS 'cores of all ranks there';
COMMENT ON COLUMN athanor.usage_ledger.gpus IS 'GPUs of all ranks there';
COMMENT ON COLUMN athanor.usage_ledger.idle_s IS
    'seconds of waiting for the ranks of other nodes, of stopping, or of being held for a lost node';
