-- 0012_attempt_nodes.sql - attempts that run on several workers, and where workers reach each other.
--
-- An attempt on one worker has no row here: its own row says everything, and costs what it did.

ALTER TABLE athanor.worker ADD COLUMN endpoint text, ADD COLUMN public_key text;

CREATE TABLE athanor.attempt_node (
    attempt_id bigint REFERENCES athanor.attempt DEFERRABLE INITIALLY DEFERRED,
    node bigint CHECK (node >= 0),
    worker_id bigint NOT NULL,
    first_rank bigint NOT NULL CHECK (first_rank >= 0),
    ranks bigint NOT NULL CHECK (ranks > 0),
    state text NOT NULL CHECK (state IN ('PLACED', 'RUNNING', 'ENDED')),
    cause text,
    code bigint,
    evidence text,
    placement jsonb,
    usage jsonb,
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (attempt_id, node),
    CONSTRAINT attempt_node_first CHECK ((node = 0) = (first_rank = 0)),
    CONSTRAINT attempt_node_ended CHECK ((ended_at IS NOT NULL) = (state = 'ENDED')),
    CONSTRAINT attempt_node_cause CHECK ((cause IS NOT NULL) = (state = 'ENDED'))
) WITH (fillfactor = 60);
COMMENT ON CONSTRAINT attempt_node_first ON athanor.attempt_node IS 'Node 0 has rank 0.';
COMMENT ON CONSTRAINT attempt_node_ended ON athanor.attempt_node IS
    'ended_at is set exactly when it has ended.';
COMMENT ON CONSTRAINT attempt_node_cause ON athanor.attempt_node IS
    'Every part ends with a typed cause: of one that was stopped because another failed, peer_failed.';
CREATE UNIQUE INDEX attempt_node_worker ON athanor.attempt_node (worker_id, attempt_id);
COMMENT ON INDEX athanor.attempt_node_worker IS
    'Invariant: a worker has one part of an attempt. Reader: what ran on a worker.';

CREATE VIEW athanor.run_nodes AS
SELECT n.attempt_id, a.job_id, j.name, n.node, w.name AS worker, n.first_rank, n.ranks, n.state,
       n.cause, n.code, n.evidence, n.placement, n.usage, n.started_at, n.ended_at
  FROM athanor.attempt_node n
  JOIN athanor.attempt a USING (attempt_id)
  JOIN athanor.job j USING (job_id)
  JOIN athanor.worker w ON w.worker_id = n.worker_id
UNION ALL
SELECT a.attempt_id, a.job_id, j.name, 0, w.name, 0, j.ranks, a.state,
       a.cause, a.code, a.evidence, a.placement, a.usage, a.started_at, a.ended_at
  FROM athanor.attempt a
  JOIN athanor.job j USING (job_id)
  JOIN athanor.worker w USING (worker_id)
 WHERE NOT EXISTS (SELECT FROM athanor.attempt_node n WHERE n.attempt_id = a.attempt_id);
COMMENT ON VIEW athanor.run_nodes IS
    'Every run worker by worker: one row, or one for each node of a run on several.';
COMMENT ON COLUMN athanor.run_nodes.attempt_id IS 'number of the run';
COMMENT ON COLUMN athanor.run_nodes.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.run_nodes.name IS 'name';
COMMENT ON COLUMN athanor.run_nodes.node IS 'node within the run';
COMMENT ON COLUMN athanor.run_nodes.worker IS 'name of the worker';
COMMENT ON COLUMN athanor.run_nodes.first_rank IS 'lowest rank that runs there';
COMMENT ON COLUMN athanor.run_nodes.ranks IS 'number of ranks that run there';
COMMENT ON COLUMN athanor.run_nodes.state IS 'where it is in its life';
COMMENT ON COLUMN athanor.run_nodes.cause IS
    'why it ended, as in retry: on:; peer_failed: another node of the run failed';
COMMENT ON COLUMN athanor.run_nodes.code IS
    'exit code, or signal number for cause signal';
COMMENT ON COLUMN athanor.run_nodes.evidence IS 'what was seen when it ended';
COMMENT ON COLUMN athanor.run_nodes.placement IS 'cores, GPUs and processes it got';
COMMENT ON COLUMN athanor.run_nodes.usage IS 'processor time, memory and the like at the end';
COMMENT ON COLUMN athanor.run_nodes.started_at IS 'when its ranks were started';
COMMENT ON COLUMN athanor.run_nodes.ended_at IS 'when it ended; NULL while it lives';

-- A worker runs what it has parts of. Views gain columns at the end.
CREATE OR REPLACE VIEW athanor.workers AS
SELECT w.worker_id, w.name, w.state, w.drained, w.drain_reason, w.host, w.cores, w.memory_bytes,
       w.gpus, w.labels, w.topology, w.joined_at, w.ended_at,
       (SELECT count(*) FROM athanor.attempt a
         WHERE a.worker_id = w.worker_id AND a.ended_at IS NULL) +
       (SELECT count(*) FROM athanor.attempt_node n
         WHERE n.worker_id = w.worker_id AND n.node > 0 AND n.ended_at IS NULL) AS runs,
       w.drain_by_at, w.endpoint
  FROM athanor.worker w;
COMMENT ON COLUMN athanor.workers.endpoint IS
    'where other workers reach it; without one it takes no part in runs on several workers';

-- Views keep their grants when they are replaced; new ones need them.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
