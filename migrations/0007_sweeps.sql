-- 0007_sweeps.sql - searches: a job's trials, what they showed at each rung, and the users' views.

CREATE TABLE athanor.sweep (
    sweep_id bigint PRIMARY KEY,
    experiment_id bigint NOT NULL,
    name text NOT NULL,
    account text,
    method text NOT NULL CHECK (method IN ('grid', 'random', 'asha')),
    metric text,
    mode text NOT NULL CHECK (mode IN ('min', 'max')),
    resource text NOT NULL,
    min_resource bigint NOT NULL CHECK (min_resource >= 0),
    max_resource bigint NOT NULL CHECK (max_resource >= 0),
    reduction bigint NOT NULL CHECK (reduction >= 2),
    at_once bigint NOT NULL CHECK (at_once >= 0),
    seed bigint NOT NULL,
    trial_count bigint NOT NULL CHECK (trial_count > 0),
    space jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    CONSTRAINT sweep_asha CHECK (method <> 'asha' OR (metric IS NOT NULL AND min_resource > 0
                                                      AND max_resource > min_resource))
);
COMMENT ON CONSTRAINT sweep_asha ON athanor.sweep IS 'Reader: the core, which divides into rungs.';
CREATE INDEX sweep_live ON athanor.sweep (sweep_id) WHERE ended_at IS NULL;
COMMENT ON INDEX athanor.sweep_live IS 'Reader: loader.';
CREATE INDEX sweep_name ON athanor.sweep (name, sweep_id);
COMMENT ON INDEX athanor.sweep_name IS 'Reader: queries by name.';

CREATE TABLE athanor.trial (
    sweep_id bigint REFERENCES athanor.sweep DEFERRABLE INITIALLY DEFERRED,
    trial bigint CHECK (trial >= 0),
    job_id bigint NOT NULL REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    params jsonb NOT NULL,
    rung bigint NOT NULL CHECK (rung >= 0),
    resource bigint NOT NULL CHECK (resource >= 0),
    reports bigint NOT NULL CHECK (reports >= 0),
    best_value double precision NOT NULL,
    best_step bigint NOT NULL,
    PRIMARY KEY (sweep_id, trial),
    CONSTRAINT trial_job CHECK (job_id = sweep_id + trial)
) WITH (fillfactor = 60);
COMMENT ON CONSTRAINT trial_job ON athanor.trial IS 'The core finds a trial by its job''s number.';
CREATE UNIQUE INDEX trial_of_job ON athanor.trial (job_id);
COMMENT ON INDEX athanor.trial_of_job IS 'Reader: the trial of a job; the foreign key.';

CREATE TABLE athanor.trial_rung (
    sweep_id bigint,
    rung bigint CHECK (rung >= 0),
    trial bigint,
    value double precision NOT NULL,
    resource bigint NOT NULL,
    kept boolean NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (sweep_id, rung, trial),
    FOREIGN KEY (sweep_id, trial) REFERENCES athanor.trial DEFERRABLE INITIALLY DEFERRED
);

-- ---- the users' views --------------------------------------------------------------------------

CREATE FUNCTION athanor.sweep_find(name_or_id text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT s.sweep_id
      FROM athanor.sweep s JOIN athanor.experiment e USING (experiment_id)
     WHERE CASE WHEN name_or_id ~ '^[0-9]{1,18}$'
                THEN s.sweep_id = name_or_id::bigint
                ELSE name_or_id IN (s.name, e.name || '/' || s.name) END
     ORDER BY s.sweep_id DESC LIMIT 1
$$;
COMMENT ON FUNCTION athanor.sweep_find IS
    'The sweep of this number, or the newest one of this name or experiment/name.';

CREATE FUNCTION athanor.params_text(params jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(regexp_replace(key, '^params\.', '') || '=' || (value #>> '{}'), ' '
                      ORDER BY key)
      FROM jsonb_each(params)
$$;
COMMENT ON FUNCTION athanor.params_text IS 'A trial''s values in a line: learning_rate=0.1 layers=2.';

CREATE VIEW athanor.trials AS
SELECT t.sweep_id, s.name AS sweep, e.name AS experiment, t.trial, t.job_id, j.name, j.state,
       j.cause, j.detail, t.params, athanor.params_text(t.params) AS setting, t.rung,
       greatest(t.resource, coalesce(j.progress_step, 0)) AS resource, s.metric,
       CASE WHEN t.reports > 0 THEN nullif(t.best_value, 'NaN') END AS best_value,
       CASE WHEN t.reports > 0 THEN t.best_step END AS best_step,
       row_number() OVER (PARTITION BY t.sweep_id ORDER BY
           CASE WHEN t.reports > 0 AND t.best_value <> 'NaN'
                THEN CASE s.mode WHEN 'max' THEN -t.best_value ELSE t.best_value END END
           NULLS LAST, t.trial) AS place,
       j.started_at, j.ended_at,
       (extract(epoch FROM coalesce(j.ended_at, now()) - j.started_at) * 1000)::bigint AS run_ms
  FROM athanor.trial t
  JOIN athanor.sweep s USING (sweep_id)
  JOIN athanor.experiment e USING (experiment_id)
  JOIN athanor.job j ON j.job_id = t.job_id;
COMMENT ON VIEW athanor.trials IS
    'Every trial of every sweep: its values, how far it came, its best metric, its place.';

CREATE VIEW athanor.best_trials AS
SELECT t.sweep_id, t.sweep, t.experiment, t.trial, t.job_id, t.name, t.state, t.params, t.setting,
       t.metric, t.best_value, t.best_step, t.resource
  FROM athanor.trials t WHERE t.place = 1 AND t.best_value IS NOT NULL;
COMMENT ON VIEW athanor.best_trials IS 'Of each sweep the trial with the best metric so far.';

CREATE VIEW athanor.trial_table AS
SELECT t.sweep_id, t.sweep, t.trial, t.job_id, p.key AS parameter, p.value #>> '{}' AS value,
       t.metric, t.best_value, t.place, t.resource, t.state
  FROM athanor.trials t CROSS JOIN LATERAL jsonb_each(t.params) AS p;
COMMENT ON VIEW athanor.trial_table IS
    'Parameters against the metric: one row for each trial and parameter that varies.';

CREATE VIEW athanor.rungs AS
SELECT r.sweep_id, s.name AS sweep, r.rung, r.trial, r.value, r.resource, r.kept, r.at
  FROM athanor.trial_rung r JOIN athanor.sweep s USING (sweep_id);
COMMENT ON VIEW athanor.rungs IS 'What each trial showed at each rung, and whether it went on.';

CREATE VIEW athanor.sweeps AS
SELECT s.sweep_id, s.name, e.name AS experiment, s.account, s.method, s.metric, s.mode,
       s.trial_count AS trials, c.live, c.succeeded, c.pruned, c.failed, c.cancelled,
       b.trial AS best_trial, b.job_id AS best_job_id, b.best_value, b.setting AS best_setting,
       b.params AS best_params, c.resource_spent, s.resource, s.min_resource, s.max_resource,
       s.reduction, s.at_once, s.seed, s.space, s.created_at, s.ended_at
  FROM athanor.sweep s
  JOIN athanor.experiment e USING (experiment_id)
  LEFT JOIN athanor.best_trials b ON b.sweep_id = s.sweep_id
  CROSS JOIN LATERAL (
      SELECT count(*) FILTER (WHERE j.ended_at IS NULL) AS live,
             count(*) FILTER (WHERE j.state = 'SUCCEEDED') AS succeeded,
             count(*) FILTER (WHERE j.state = 'CANCELLED' AND j.cause = 'pruned') AS pruned,
             count(*) FILTER (WHERE j.state = 'FAILED') AS failed,
             count(*) FILTER (WHERE j.state = 'CANCELLED' AND j.cause <> 'pruned') AS cancelled,
             sum(greatest(t.resource, coalesce(j.progress_step, 0)))::bigint AS resource_spent
        FROM athanor.trial t JOIN athanor.job j ON j.job_id = t.job_id
       WHERE t.sweep_id = s.sweep_id) AS c;
COMMENT ON VIEW athanor.sweeps IS 'Every sweep with its trials by outcome and the best of them.';

DO $$
DECLARE
    help jsonb := '{
        "account": "principal that submitted it", "at": "when it was judged",
        "at_once": "trials that may run at a time; 0: as many as fit",
        "best_job_id": "job of the best trial", "best_params": "values of the best trial",
        "best_setting": "the same in a line", "best_step": "step of the best value",
        "best_trial": "number of the best trial so far",
        "best_value": "best value of the sweep''s metric; NULL: none yet",
        "cancelled": "trials that a person cancelled or that a dependency took along",
        "cause": "why its job ended; pruned: stopped to make room for better trials",
        "created_at": "when it was submitted", "detail": "the same in a sentence",
        "ended_at": "when it ended; NULL while it lives", "experiment": "name of the experiment",
        "failed": "trials that failed", "job_id": "job of the trial",
        "kept": "false: the trial was stopped here", "live": "trials that have not ended",
        "max_resource": "how far a trial goes that nothing stops",
        "method": "grid, random or asha", "metric": "what trials are compared by",
        "min_resource": "asha: resource at the first rung", "mode": "min or max: what is better",
        "name": "name of the sweep; of trials: of the job", "parameter": "field that varies",
        "params": "the values it has, by field", "place": "1 for the best of the sweep",
        "pruned": "trials stopped early", "reduction": "asha: one in so many goes on",
        "resource": "how far it came; of sweeps: what rungs count, steps or a metric",
        "resource_spent": "sum over the trials of how far they came", "run_ms": "how long it ran",
        "rung": "rungs at which it was judged; in athanor.rungs: which rung, from 0",
        "seed": "seed of what was drawn", "setting": "its values in a line",
        "space": "fields that vary and their values or distributions",
        "started_at": "when it first started", "state": "where its job is in its life",
        "succeeded": "trials that ran to their end", "sweep": "name of the sweep",
        "sweep_id": "number of the sweep, which is that of its first job",
        "trial": "number of the trial, from 0", "trials": "number of trials",
        "value": "value of the parameter; in athanor.rungs: of the metric"}';
    col record;
BEGIN
    FOR col IN SELECT c.relname AS view, a.attname AS name
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'athanor'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
                  AND c.relname IN ('trials', 'best_trials', 'trial_table', 'rungs', 'sweeps')
    LOOP
        IF help ->> col.name IS NULL THEN
            RAISE EXCEPTION 'column %.% has no explanation', col.view, col.name;
        END IF;
        EXECUTE format('COMMENT ON COLUMN athanor.%I.%I IS %L', col.view, col.name, help ->> col.name);
    END LOOP;
END $$;

-- Views call functions with the rights of who reads.
CREATE OR REPLACE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text),
        athanor.sweep_find(text), athanor.params_text(jsonb) TO athanor_reader;
    FOR view IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'athanor'::regnamespace AND relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON athanor.%I TO athanor_reader', view);
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION athanor.sweep_find(text), athanor.params_text(jsonb) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
