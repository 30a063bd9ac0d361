-- 0003_views.sql - the users' SQL API: stable views, each explained where psql shows it (\d+).
--
-- Tables are singular, views plural or a phrase, so that the two never clash (the table is
-- athanor.lineage, the view athanor.lineages). Columns are added at the end, never removed or
-- renamed; tables may change beneath. The role athanor_reader sees the views and nothing else.

CREATE FUNCTION athanor.bytes_text(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT
PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN encode(bytes, 'escape');
END $$;
COMMENT ON FUNCTION athanor.bytes_text IS
    'Program output as text; bytes that are not UTF-8 are shown escaped as \ooo.';

CREATE FUNCTION athanor.job_find(name_or_id text) RETURNS bigint LANGUAGE sql STABLE STRICT AS $$
    SELECT CASE WHEN name_or_id ~ '^[0-9]{1,18}$' THEN name_or_id::bigint
                ELSE (SELECT j.job_id FROM athanor.job j WHERE j.name = name_or_id
                       ORDER BY j.job_id DESC LIMIT 1) END
$$;
COMMENT ON FUNCTION athanor.job_find IS 'The job of this number, or the newest one of this name.';

CREATE VIEW athanor.experiments AS
SELECT e.experiment_id, e.name, e.account, e.created_at,
       count(j.job_id) AS jobs,
       count(j.job_id) FILTER (WHERE j.ended_at IS NULL) AS live,
       count(j.job_id) FILTER (WHERE j.state = 'SUCCEEDED') AS succeeded,
       count(j.job_id) FILTER (WHERE j.state = 'FAILED') AS failed,
       count(j.job_id) FILTER (WHERE j.state = 'CANCELLED') AS cancelled
  FROM athanor.experiment e LEFT JOIN athanor.job j USING (experiment_id)
 GROUP BY e.experiment_id;
COMMENT ON VIEW athanor.experiments IS 'Experiments with the number of their jobs by outcome.';

CREATE VIEW athanor.jobs AS
SELECT j.job_id, j.name, e.name AS experiment, j.kind, j.recipe, j.account, j.state, j.held, j.cause,
       j.detail, j.priority, j.ranks, j.cores, j.memory_bytes, j.gpus, j.attempt_count,
       j.progress_step, j.progress_total, j.progress_phase,
       j.submitted_at, j.eligible_at, j.started_at, j.ended_at,
       j.spec -> 'params' AS params, j.spec
  FROM athanor.job j JOIN athanor.experiment e USING (experiment_id);
COMMENT ON VIEW athanor.jobs IS 'Every job ever submitted, one row each.';

CREATE VIEW athanor.runs AS
SELECT a.attempt_id, a.job_id, j.name, a.number, a.state, a.cause, a.code, a.evidence, a.stop_cause,
       w.name AS worker, a.epoch, a.resume_checkpoint_id, c.step AS resume_step, a.placement, a.usage,
       a.placed_at, a.started_at, a.ended_at,
       (extract(epoch FROM a.ended_at - a.started_at) * 1000)::bigint AS run_ms
  FROM athanor.attempt a
  JOIN athanor.job j USING (job_id)
  JOIN athanor.worker w USING (worker_id)
  LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = a.resume_checkpoint_id;
COMMENT ON VIEW athanor.runs IS 'Every attempt at running a job, with how it ended and why.';

CREATE VIEW athanor.metrics AS
SELECT m.job_id, m.name, m.step, m.value, m.at, m.attempt_id, m.rank, m.node, m.seq
  FROM athanor.metric m;
COMMENT ON VIEW athanor.metrics IS
    'Every reported point. After a retry steps may repeat: see attempt_id, or athanor.series.';

CREATE VIEW athanor.series AS
SELECT DISTINCT ON (m.job_id, m.name, m.rank, m.step)
       m.job_id, m.name, m.rank, m.step, m.value, m.at, m.attempt_id
  FROM athanor.metric m
 ORDER BY m.job_id, m.name, m.rank, m.step, m.attempt_id DESC, m.node, m.seq DESC;
COMMENT ON VIEW athanor.series IS
    'Metrics with each step once: where a retry repeated a step, the newest attempt counts.';

CREATE VIEW athanor.best_metrics AS
SELECT m.job_id, j.name AS job, m.name, count(*) AS points,
       min(m.value) AS lowest,
       (array_agg(m.step ORDER BY m.value, m.step))[1] AS lowest_step,
       max(m.value) AS highest,
       (array_agg(m.step ORDER BY m.value DESC, m.step))[1] AS highest_step,
       (array_agg(m.value ORDER BY m.attempt_id DESC, m.step DESC, m.seq DESC))[1] AS last,
       max(m.step) AS last_step
  FROM athanor.metric m JOIN athanor.job j USING (job_id)
 WHERE m.value <> 'NaN'
 GROUP BY m.job_id, j.name, m.name;
COMMENT ON VIEW athanor.best_metrics IS
    'Per job and metric the lowest, highest and last value and their steps; NaN is left out.';

CREATE VIEW athanor.checkpoints AS
SELECT c.checkpoint_id, c.job_id, j.name, c.attempt_id, c.step, c.path, c.size_bytes,
       encode(c.content_hash, 'hex') AS content_hash, c.metrics, c.saved_at, c.removed_at, w.name AS worker
  FROM athanor.checkpoint c JOIN athanor.job j USING (job_id) LEFT JOIN athanor.worker w USING (worker_id);
COMMENT ON VIEW athanor.checkpoints IS 'Complete, hashed checkpoints; removed_at: files are gone.';

CREATE VIEW athanor.artifacts AS
SELECT a.artifact_id, a.kind, a.name, a.job_id, a.attempt_id, a.path, a.size_bytes,
       encode(a.content_hash, 'hex') AS content_hash, a.meta, a.created_at,
       a.artifact_id = max(a.artifact_id) OVER (PARTITION BY a.kind, a.name) AS newest
  FROM athanor.artifact a;
COMMENT ON VIEW athanor.artifacts IS 'Named things that jobs made; the newest of a name is used.';

CREATE VIEW athanor.datasets AS
SELECT a.name, a.artifact_id, a.job_id, a.path, a.size_bytes, a.content_hash, a.meta, a.created_at
  FROM athanor.artifacts a WHERE a.kind = 'dataset' AND a.newest;
COMMENT ON VIEW athanor.datasets IS 'The dataset that dataset:NAME stands for now.';

CREATE VIEW athanor.lineages AS
SELECT l.attempt_id, t.job_id, j.name, l.input, l.ref, l.path, l.source_job_id,
       s.name AS source_job, l.checkpoint_id, c.step AS checkpoint_step, l.artifact_id,
       encode(l.content_hash, 'hex') AS content_hash
  FROM athanor.lineage l
  JOIN athanor.attempt t USING (attempt_id)
  JOIN athanor.job j ON j.job_id = t.job_id
  LEFT JOIN athanor.job s ON s.job_id = l.source_job_id
  LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = l.checkpoint_id;
COMMENT ON VIEW athanor.lineages IS 'What each run read: input by input, with the job it came from.';

CREATE VIEW athanor.gpu_hours AS
SELECT e.name AS experiment, j.account, j.kind,
       date_trunc('day', a.started_at, 'UTC') AS day,
       count(*) AS runs,
       sum(hours.run * j.ranks * j.gpus) AS gpu_hours,
       sum(hours.run * j.ranks * j.cores) AS core_hours,
       sum(hours.run * j.ranks * j.gpus) FILTER (WHERE a.cause <> 'success') AS gpu_hours_lost,
       sum(hours.run * j.ranks * j.cores) FILTER (WHERE a.cause <> 'success') AS core_hours_lost
  FROM athanor.attempt a
  JOIN athanor.job j USING (job_id)
  JOIN athanor.experiment e USING (experiment_id),
       LATERAL (SELECT extract(epoch FROM coalesce(a.ended_at, now()) - a.started_at)::double precision
                       / 3600 AS run) hours
 WHERE a.started_at IS NOT NULL
 GROUP BY e.name, j.account, j.kind, day;
COMMENT ON VIEW athanor.gpu_hours IS
    'GPU and core hours by experiment, account, kind and day of start; running ones count so far.';

CREATE VIEW athanor.pending AS
SELECT j.job_id, j.name, e.name AS experiment, j.account, j.state, j.held, j.priority,
       j.submitted_at, p.reason, p.detail, p.from_at AS since
  FROM athanor.job j
  JOIN athanor.experiment e USING (experiment_id)
  LEFT JOIN athanor.pending_reason p ON p.job_id = j.job_id AND p.until_at IS NULL
 WHERE j.ended_at IS NULL AND j.state IN ('WAITING', 'READY', 'BACKOFF');
COMMENT ON VIEW athanor.pending IS
    'Jobs that wait, one row for each reason that binds them now.';

CREATE VIEW athanor.reasons AS
SELECT p.job_id, j.name, p.reason, p.detail, p.from_at, p.until_at,
       (extract(epoch FROM coalesce(p.until_at, now()) - p.from_at) * 1000)::bigint AS held_ms
  FROM athanor.pending_reason p JOIN athanor.job j USING (job_id);
COMMENT ON VIEW athanor.reasons IS 'Why jobs waited, over time.';

CREATE VIEW athanor.logs AS
SELECT c.job_id, c.attempt_id, c.rank, c.stream, c.at, athanor.bytes_text(c.bytes) AS text, c.node,
       c.seq
  FROM athanor.log_chunk c;
COMMENT ON VIEW athanor.logs IS 'What programs printed; order by attempt_id, node, seq.';

CREATE VIEW athanor.events AS
SELECT v.event_id, v.at, v.job_id, v.attempt_id, w.name AS worker, v.name, v.detail, v.account
  FROM athanor.job_event v LEFT JOIN athanor.worker w USING (worker_id);
COMMENT ON VIEW athanor.events IS 'What happened, in order of event_id.';

CREATE VIEW athanor.dependencies AS
SELECT d.job_id, j.name, d.parent_id, p.name AS parent, d.condition, d.state
  FROM athanor.job_dependency d
  JOIN athanor.job j ON j.job_id = d.job_id
  JOIN athanor.job p ON p.job_id = d.parent_id;
COMMENT ON VIEW athanor.dependencies IS 'Which job waits for which, and whether it may go on.';

CREATE VIEW athanor.workers AS
SELECT w.worker_id, w.name, w.state, w.drained, w.drain_reason, w.host, w.cores, w.memory_bytes,
       w.gpus, w.labels, w.topology, w.joined_at, w.ended_at,
       (SELECT count(*) FROM athanor.attempt a
         WHERE a.worker_id = w.worker_id AND a.ended_at IS NULL) AS runs
  FROM athanor.worker w;
COMMENT ON VIEW athanor.workers IS 'Nodes that joined, their state and what they offer.';

CREATE VIEW athanor.recipes AS
SELECT r.kind, r.name, r.version, r.engine, r.catalogue ->> 'summary' AS summary,
       r.catalogue ->> 'source' AS source, r.catalogue -> 'params' AS params,
       r.catalogue -> 'inputs' AS inputs, r.seen_at
  FROM athanor.recipe r;
COMMENT ON VIEW athanor.recipes IS 'Methods that workers of this cluster can run.';

-- Explanations of columns. A name means the same in every view, so one list serves them all; the
-- block fails when a view has a column that the list does not know.
DO $$
DECLARE
    help jsonb := '{
        "account": "principal that asked", "artifact_id": "number of the artifact",
        "at": "when, by the clock of the node", "attempt_count": "attempts so far",
        "attempt_id": "number of the run", "cancelled": "jobs that were cancelled",
        "catalogue": "description as the worker announced it", "cause": "why it ended, as in retry: on:",
        "checkpoint_id": "number of the checkpoint", "checkpoint_step": "step of that checkpoint",
        "code": "exit code, or signal number for cause signal",
        "condition": "how the parent must end: success, failure, any",
        "content_hash": "BLAKE2b-256 in hex; of manifest.json for checkpoints",
        "core_hours": "core hours spent", "core_hours_lost": "core hours of runs that did not succeed",
        "cores": "cores per rank; of a worker: cores offered", "created_at": "when it was made",
        "day": "day of start, UTC", "detail": "the same in a sentence",
        "drain_reason": "why no new work goes there", "drained": "whether new work is kept away",
        "eligible_at": "end of a backoff", "ended_at": "when it ended; NULL while it lives",
        "engine": "version of the engine that announced it", "epoch": "leader that placed the run",
        "event_id": "number of the event", "evidence": "what was seen when it ended",
        "experiment": "name of the experiment", "experiment_id": "number of the experiment",
        "failed": "jobs that failed", "from_at": "since when", "gpu_hours": "GPU hours spent",
        "gpu_hours_lost": "GPU hours of runs that did not succeed",
        "gpus": "GPUs per rank; of a worker: GPUs offered", "held": "whether a person holds it",
        "held_ms": "how long the reason held", "highest": "highest value",
        "highest_step": "first step with the highest value", "host": "host name",
        "input": "name of the input in the spec", "inputs": "what the recipe reads",
        "job": "name of the job", "job_id": "number of the job", "jobs": "number of jobs",
        "joined_at": "last time the worker joined", "kind": "kind of the job, artifact or recipe",
        "labels": "labels that constraints refer to", "last": "value of the newest step",
        "last_step": "newest step", "live": "jobs that have not ended", "lowest": "lowest value",
        "lowest_step": "first step with the lowest value",
        "memory_bytes": "memory per rank; of a worker: memory offered",
        "meta": "what the job told about it", "metrics": "metrics when it was saved", "name": "name",
        "newest": "whether it is the newest of its kind and name", "node": "node within the run",
        "number": "which attempt of its job, from 1",
        "params": "parameters, complete with defaults; of a recipe: their table",
        "parent": "name of the job waited for", "parent_id": "number of the job waited for",
        "path": "where it lies", "placed_at": "when it was given to a worker",
        "placement": "cores, GPUs and processes it got", "points": "number of points",
        "priority": "higher first", "progress_phase": "what it does now",
        "progress_step": "steps done", "progress_total": "steps in all", "rank": "rank that reported",
        "ranks": "number of ranks", "reason": "what keeps the job from starting",
        "recipe": "method; empty for kind command", "ref": "reference as in the spec",
        "removed_at": "when retention removed the files",
        "resume_checkpoint_id": "checkpoint it started from", "resume_step": "step of that checkpoint",
        "run_ms": "how long it ran", "runs": "number of runs; of a worker: those running now",
        "saved_at": "when it was complete", "seen_at": "last time a worker announced it",
        "seq": "position in the report stream", "since": "since when",
        "size_bytes": "size of all files", "source": "where the method is described",
        "source_job": "name of the job that made it", "source_job_id": "number of that job",
        "spec": "the job as resolved at submit", "started_at": "when its ranks were started",
        "state": "where it is in its life", "step": "optimiser step",
        "stop_cause": "why it was asked to stop", "stream": "stdout or stderr",
        "submitted_at": "when it was submitted", "succeeded": "jobs that succeeded",
        "summary": "what it does, in a line", "text": "the text",
        "topology": "sockets, caches and NUMA nodes", "until_at": "until when; NULL: still",
        "usage": "processor time, memory and the like at the end", "value": "the value",
        "version": "version of the recipe", "worker": "name of the worker",
        "worker_id": "number of the worker"}';
    col record;
BEGIN
    FOR col IN SELECT c.relname AS view, a.attname AS name
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
    LOOP
        IF help ->> col.name IS NULL THEN
            RAISE EXCEPTION 'column %.% has no explanation', col.view, col.name;
        END IF;
        EXECUTE format('COMMENT ON COLUMN athanor.%I.%I IS %L', col.view, col.name, help ->> col.name);
    END LOOP;
END $$;

-- The reading role. On a server where we may not create roles its administrator can do so and run
-- SELECT athanor.reader_grant().
CREATE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text) TO athanor_reader;
    FOR view IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'athanor'::regnamespace AND relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON athanor.%I TO athanor_reader', view);
    END LOOP;
END $$;
COMMENT ON FUNCTION athanor.reader_grant IS
    'Lets the role athanor_reader read every view, and nothing else.';

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA athanor FROM PUBLIC;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        BEGIN
            CREATE ROLE athanor_reader NOLOGIN;
            COMMENT ON ROLE athanor_reader IS 'May read the views of Athanor''s schema.';
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'no right to create the role athanor_reader: create it later and run '
                             'SELECT athanor.reader_grant()';
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of this server made it at the same moment
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
