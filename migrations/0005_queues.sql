-- 0005_queues.sql - who may use how much: queues, projects, quotas, usage, reservations.
--
-- Columns equal coordinator/rows/<table>.def. These rows are configuration that operators change
-- through the coordinator; what was removed stays with removed_at, so that history can be read.

CREATE TABLE athanor.setting (
    name text PRIMARY KEY,
    value bigint NOT NULL CHECK (value >= 0)
);

CREATE TABLE athanor.queue (
    name text PRIMARY KEY,
    priority bigint NOT NULL CHECK (priority BETWEEN -1000000 AND 1000000),
    default_wall_ms bigint NOT NULL CHECK (default_wall_ms >= 0),
    max_wall_ms bigint NOT NULL CHECK (max_wall_ms >= 0),
    preemption bigint NOT NULL CHECK (preemption BETWEEN 0 AND 1000),
    evicts boolean NOT NULL,
    evictable boolean NOT NULL,
    removed_at timestamptz
);

CREATE TABLE athanor.project (
    name text PRIMARY KEY,
    open boolean NOT NULL,
    members jsonb NOT NULL,
    weight bigint NOT NULL CHECK (weight BETWEEN 1 AND 1000000),
    removed_at timestamptz
);

CREATE TABLE athanor.quota (
    scope text PRIMARY KEY,
    account text NOT NULL,
    project text NOT NULL,
    queue text NOT NULL,
    jobs bigint NOT NULL CHECK (jobs >= -1),
    cores bigint NOT NULL CHECK (cores >= -1),
    gpus bigint NOT NULL CHECK (gpus >= -1),
    queued bigint NOT NULL CHECK (queued >= -1),
    gpu_ms bigint NOT NULL CHECK (gpu_ms >= -1),
    period_ms bigint NOT NULL CHECK (period_ms IN (0, 86400000, 604800000, 2592000000)),
    removed_at timestamptz,
    CONSTRAINT quota_scope CHECK (account <> '' OR project <> '' OR queue <> ''),
    CONSTRAINT quota_period CHECK ((gpu_ms >= 0) = (period_ms > 0))
);
COMMENT ON CONSTRAINT quota_scope ON athanor.quota IS 'A quota is of somebody or something.';
COMMENT ON CONSTRAINT quota_period ON athanor.quota IS 'GPU time is allowed per period.';

CREATE TABLE athanor.quota_usage (
    scope text PRIMARY KEY,
    gpu_ms bigint NOT NULL CHECK (gpu_ms >= 0),
    window_at timestamptz NOT NULL,
    as_of timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE athanor.usage (
    kind text CHECK (kind IN ('account', 'project')),
    name text,
    weight bigint NOT NULL CHECK (weight BETWEEN 1 AND 1000000),
    core_ms bigint NOT NULL CHECK (core_ms >= 0),
    as_of timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
) WITH (fillfactor = 50);

CREATE TABLE athanor.reservation (
    name text PRIMARY KEY,
    from_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL,
    workers jsonb NOT NULL,
    worker_constraint jsonb NOT NULL,
    entitled jsonb NOT NULL,
    stop boolean NOT NULL,
    reason text NOT NULL,
    account text NOT NULL,
    removed_at timestamptz,
    CONSTRAINT reservation_interval CHECK (from_at < until_at)
);
COMMENT ON CONSTRAINT reservation_interval ON athanor.reservation IS 'It begins before it ends.';

INSERT INTO athanor.setting (name, value) VALUES
    ('half_life_ms', 604800000), ('gpu_cores', 16), ('weight_account', 1000),
    ('weight_project', 1000), ('weight_size', 0), ('age_per_hour', 100);
INSERT INTO athanor.queue (name, priority, default_wall_ms, max_wall_ms, preemption, evicts, evictable)
    VALUES ('default', 0, 0, 0, 0, false, true);
INSERT INTO athanor.project (name, open, members, weight) VALUES ('default', true, '[]', 1);

ALTER TABLE athanor.job
    ADD COLUMN queue text NOT NULL DEFAULT 'default',
    ADD COLUMN project text NOT NULL DEFAULT 'default';
ALTER TABLE athanor.worker ADD COLUMN drain_by_at timestamptz;

-- ---- what users see -----------------------------------------------------------------------------

CREATE OR REPLACE VIEW athanor.jobs AS
SELECT j.job_id, j.name, e.name AS experiment, j.kind, j.recipe, j.account, j.state, j.held, j.cause,
       j.detail, j.priority, j.ranks, j.cores, j.memory_bytes, j.gpus, j.attempt_count,
       j.progress_step, j.progress_total, j.progress_phase,
       j.submitted_at, j.eligible_at, j.started_at, j.ended_at,
       j.spec -> 'params' AS params, j.spec, j.queue, j.project
  FROM athanor.job j JOIN athanor.experiment e USING (experiment_id);

CREATE OR REPLACE VIEW athanor.workers AS
SELECT w.worker_id, w.name, w.state, w.drained, w.drain_reason, w.host, w.cores, w.memory_bytes,
       w.gpus, w.labels, w.topology, w.joined_at, w.ended_at,
       (SELECT count(*) FROM athanor.attempt a
         WHERE a.worker_id = w.worker_id AND a.ended_at IS NULL) AS runs, w.drain_by_at
  FROM athanor.worker w;

CREATE VIEW athanor.settings AS SELECT s.name, s.value FROM athanor.setting s;
COMMENT ON VIEW athanor.settings IS 'Numbers that scheduling is tuned with (athanor quota weights).';

CREATE VIEW athanor.queues AS
SELECT q.name, q.priority, NULLIF(q.default_wall_ms, 0) AS default_wall_ms,
       NULLIF(q.max_wall_ms, 0) AS max_wall_ms, q.preemption, q.evicts, q.evictable,
       (SELECT count(*) FROM athanor.job j WHERE j.ended_at IS NULL AND j.queue = q.name
           AND j.state IN ('WAITING', 'READY', 'BACKOFF')) AS queued,
       (SELECT count(*) FROM athanor.job j WHERE j.ended_at IS NULL AND j.queue = q.name
           AND j.state IN ('PLACED', 'RUNNING', 'STOPPING')) AS running
  FROM athanor.queue q WHERE q.removed_at IS NULL;
COMMENT ON VIEW athanor.queues IS 'Queues that jobs may name, and what stands in them.';

CREATE VIEW athanor.projects AS
SELECT p.name, p.open, p.members, p.weight,
       (SELECT count(*) FROM athanor.job j WHERE j.ended_at IS NULL AND j.project = p.name) AS live
  FROM athanor.project p WHERE p.removed_at IS NULL;
COMMENT ON VIEW athanor.projects IS 'Projects that jobs may name, and who may use them.';

CREATE VIEW athanor.quotas AS
SELECT q.scope, NULLIF(q.account, '') AS account, NULLIF(q.project, '') AS project,
       NULLIF(q.queue, '') AS queue, NULLIF(q.jobs, -1) AS jobs, NULLIF(q.cores, -1) AS cores,
       NULLIF(q.gpus, -1) AS gpus, NULLIF(q.queued, -1) AS queued, NULLIF(q.gpu_ms, -1) AS gpu_ms,
       NULLIF(q.period_ms, 0) AS period_ms
  FROM athanor.quota q WHERE q.removed_at IS NULL;
COMMENT ON VIEW athanor.quotas IS
    'Limits in force. "*" in a scope means each one for itself; a name goes before "*".';

-- Periods are counted from Monday 1970-01-05, UTC: days begin at midnight, weeks on Mondays.
-- The quotas that a live job counts against: of those that name the same parts, the one that
-- names most, the account before the project before the queue.
CREATE VIEW athanor.quota_uses AS
WITH live AS (
    SELECT j.job_id, j.account, j.project, j.queue,
           j.state IN ('PLACED', 'RUNNING', 'STOPPING') AS runs,
           j.ranks * j.cores AS cores, j.ranks * j.gpus AS gpus
      FROM athanor.job j WHERE j.ended_at IS NULL),
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
COMMENT ON VIEW athanor.quota_uses IS
    'Every quota with what is used of it now; where its scope says "*", a row for each user, '
    'project or queue that has jobs.';

-- The same arithmetic as coordinator/core/share.c, in floating point: usage halves every
-- half-life, running attempts add to it all the time.
CREATE VIEW athanor.shares AS
WITH tuned AS (
    SELECT max(s.value) FILTER (WHERE s.name = 'half_life_ms') / 1000.0::double precision AS half_life,
           max(s.value) FILTER (WHERE s.name = 'gpu_cores') AS gpu_cores FROM athanor.setting s),
 rates AS (
    SELECT k.kind, CASE k.kind WHEN 'account' THEN j.account ELSE j.project END AS name,
           sum(j.ranks * (j.cores + j.gpus * t.gpu_cores))::double precision AS cores
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
COMMENT ON VIEW athanor.shares IS
    'Fair share of accounts and projects: what each is due, what it used of late, its factor.';

CREATE VIEW athanor.reservations AS
SELECT r.name, r.from_at, r.until_at, r.workers, r.worker_constraint, r.entitled, r.stop, r.reason,
       r.account,
       CASE WHEN now() < r.from_at THEN 'coming' WHEN now() < r.until_at THEN 'open' ELSE 'over' END
         AS state
  FROM athanor.reservation r WHERE r.removed_at IS NULL;
COMMENT ON VIEW athanor.reservations IS
    'Workers kept free for some users or projects, or for nobody, for a while.';

-- Columns without an explanation get one; the block fails when the list does not know one.
DO $$
DECLARE
    help jsonb := '{
        "account": "principal that asked; of a quota: whose use is counted",
        "core_hours": "core hours spent lately, halved every half-life; a GPU counts as gpu_cores",
        "cores": "cores that may run at once", "cores_now": "cores that run now, GPUs weighted",
        "cores_used": "cores that run now", "default_wall_ms": "planned for jobs without a limit",
        "drain_by_at": "when what still runs there is stopped",
        "entitled": "who may start jobs there: user:NAME, project:NAME; empty: nobody",
        "evictable": "whether its jobs may be stopped for others",
        "evicts": "whether its jobs may have others stopped",
        "factor": "2^-(used/share): 1 has used nothing, 0.5 just its share", "from_at": "since when",
        "gpu_ms": "GPU time allowed in a period", "gpu_ms_used": "GPU time used in this period",
        "gpus": "GPUs that may run at once", "gpus_used": "GPUs that run now",
        "instance": "scope with names in the place of *", "jobs": "jobs that may run at once",
        "jobs_used": "jobs that run now", "kind": "account or project", "live": "jobs that have not ended",
        "max_wall_ms": "longest limits.wall_time that is accepted",
        "members": "principals that may use it, unless it is open", "name": "name",
        "open": "whether everybody may use it", "period_ms": "length of a period: 1, 7 or 30 days",
        "preemption": "class of preemption: greater ones may evict smaller ones",
        "priority": "points added to its jobs", "project": "project whose quotas and share it uses",
        "queue": "queue it waits in", "queued": "jobs that wait; of a quota: how many may",
        "queued_used": "jobs that wait now", "reason": "why it was made", "running": "jobs that run",
        "scope": "whose use is counted", "share": "its part of all weights", "state": "coming, open or over",
        "stop": "whether what still runs at its begin is stopped", "until_at": "until when",
        "used": "its part of all use", "value": "the number", "weight": "of its share, against the others",
        "worker_constraint": "labels of the workers", "workers": "names of the workers; empty: all"}';
    col record;
BEGIN
    FOR col IN SELECT c.relname AS view, a.attname AS name
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
                  AND col_description(c.oid, a.attnum) IS NULL
    LOOP
        IF help ->> col.name IS NULL THEN
            RAISE EXCEPTION 'column %.% has no explanation', col.view, col.name;
        END IF;
        EXECUTE format('COMMENT ON COLUMN athanor.%I.%I IS %L', col.view, col.name, help ->> col.name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
