-- 0015_until.sql - workers whose time is limited, as in an allocation of another scheduler.
-- programs from 0016

ALTER TABLE athanor.worker
    ADD COLUMN until_at timestamptz,
    ADD COLUMN open_ended boolean NOT NULL DEFAULT false;

CREATE OR REPLACE VIEW athanor.workers AS
SELECT w.worker_id, w.name, w.state, w.drained, w.drain_reason, w.host, w.cores, w.memory_bytes,
       w.gpus, w.labels, w.topology, w.joined_at, w.ended_at,
       (SELECT count(*) FROM athanor.attempt a
         WHERE a.worker_id = w.worker_id AND a.ended_at IS NULL) +
       (SELECT count(*) FROM athanor.attempt_node n
         WHERE n.worker_id = w.worker_id AND n.node > 0 AND n.ended_at IS NULL) AS runs,
       w.drain_by_at, w.endpoint, w.quarantine_reason, w.quarantined_at, w.unhealthy, w.health,
       w.until_at, w.open_ended
  FROM athanor.worker w;
COMMENT ON COLUMN athanor.workers.until_at IS
    'when its time is over: what runs then is stopped as node_ended and requeued; NULL: never';
COMMENT ON COLUMN athanor.workers.open_ended IS
    'whether it takes jobs without a wall time although its time is limited';
