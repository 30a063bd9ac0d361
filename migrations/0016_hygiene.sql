-- 0016_hygiene.sql - nodes that fail jobs: what their health checks say, what went wrong by their own
-- fault, and quarantine.

ALTER TABLE athanor.worker
    ADD COLUMN quarantine_reason text,
    ADD COLUMN quarantined_at timestamptz,
    ADD COLUMN unhealthy text,
    ADD COLUMN health jsonb,
    ADD COLUMN node_stamp bigint NOT NULL DEFAULT 0,
    ADD COLUMN incidents bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT worker_quarantine
        CHECK ((quarantine_reason IS NULL) = (quarantined_at IS NULL));
COMMENT ON CONSTRAINT worker_quarantine ON athanor.worker IS 'A quarantine has a reason and a time.';

ALTER TABLE athanor.attempt ADD COLUMN node_fault boolean NOT NULL DEFAULT false;

CREATE TABLE athanor.worker_incident (
    worker_id bigint REFERENCES athanor.worker DEFERRABLE INITIALLY DEFERRED,
    number bigint CHECK (number > 0),
    at timestamptz NOT NULL,
    kind text NOT NULL,
    job_id bigint,
    attempt_id bigint,
    evidence text NOT NULL,
    cleared_at timestamptz,
    PRIMARY KEY (worker_id, number)
);
CREATE INDEX worker_incident_open ON athanor.worker_incident (worker_id, number)
    WHERE cleared_at IS NULL;
COMMENT ON INDEX athanor.worker_incident_open IS
    'Reader: a new leader loads what counts towards quarantine.';

CREATE VIEW athanor.worker_incidents AS
SELECT i.worker_id, w.name AS worker, i.number, i.at, i.kind, i.job_id, i.attempt_id, i.evidence,
       i.cleared_at
  FROM athanor.worker_incident i JOIN athanor.worker w USING (worker_id);
COMMENT ON VIEW athanor.worker_incidents IS
    'What went wrong on nodes by their own fault; several soon after each other bring quarantine.';
COMMENT ON COLUMN athanor.worker_incidents.worker_id IS 'number of the worker';
COMMENT ON COLUMN athanor.worker_incidents.worker IS 'name of the worker';
COMMENT ON COLUMN athanor.worker_incidents.number IS 'number within the worker';
COMMENT ON COLUMN athanor.worker_incidents.at IS 'when the coordinator heard of it';
COMMENT ON COLUMN athanor.worker_incidents.kind IS
    'launch_failed, prolog, epilog, device (a GPU that did not come free) or health (a check)';
COMMENT ON COLUMN athanor.worker_incidents.job_id IS 'the job that met it, if one did';
COMMENT ON COLUMN athanor.worker_incidents.attempt_id IS 'its run';
COMMENT ON COLUMN athanor.worker_incidents.evidence IS 'what was seen';
COMMENT ON COLUMN athanor.worker_incidents.cleared_at IS
    'when it ceased to count: the worker was undrained, or newer ones took its place';

-- Views gain columns at the end.
CREATE OR REPLACE VIEW athanor.workers AS
SELECT w.worker_id, w.name, w.state, w.drained, w.drain_reason, w.host, w.cores, w.memory_bytes,
       w.gpus, w.labels, w.topology, w.joined_at, w.ended_at,
       (SELECT count(*) FROM athanor.attempt a
         WHERE a.worker_id = w.worker_id AND a.ended_at IS NULL) +
       (SELECT count(*) FROM athanor.attempt_node n
         WHERE n.worker_id = w.worker_id AND n.node > 0 AND n.ended_at IS NULL) AS runs,
       w.drain_by_at, w.endpoint, w.quarantine_reason, w.quarantined_at, w.unhealthy, w.health
  FROM athanor.worker w;
COMMENT ON COLUMN athanor.workers.quarantine_reason IS
    'why new work is kept away until athanor undrain; NULL: it is not';
COMMENT ON COLUMN athanor.workers.quarantined_at IS 'since when';
COMMENT ON COLUMN athanor.workers.unhealthy IS
    'health checks that fail; new work is kept away while they do';
COMMENT ON COLUMN athanor.workers.health IS
    'every health check as of the last change: name, status, code, text, ran_at_us, took_ms';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
