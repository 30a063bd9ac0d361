-- 0002_history.sql - what only grows: metrics, logs, events. Partitioned by time, so that old
-- history leaves by DETACH and DROP instead of DELETE, and indexes stay narrow.
--
-- A row goes to the week of its own clock (months for events). Partitions are made ahead by
-- athanor.history_prepare; rows of clocks that are wrong by years wait in the default partition.
-- Keys are unique per partition only together with `at`; that nothing is stored twice is the
-- report_cursor's business.

CREATE TABLE athanor.metric (
    attempt_id bigint NOT NULL,
    node smallint NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    job_id bigint NOT NULL,
    rank integer,
    name text NOT NULL,
    step bigint,
    value double precision,
    PRIMARY KEY (attempt_id, node, seq, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE athanor.metric IS
    'One point a row. The key doubles as the reader''s index: series are read by attempt.';

CREATE TABLE athanor.log_chunk (
    attempt_id bigint NOT NULL,
    node smallint NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    job_id bigint NOT NULL,
    rank integer,
    stream text,
    bytes bytea,
    PRIMARY KEY (attempt_id, node, seq, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE athanor.log_chunk IS 'Output of ranks, in order of (attempt_id, node, seq).';

CREATE TABLE athanor.job_event (
    event_id bigint NOT NULL,
    at timestamptz NOT NULL,
    job_id bigint,
    attempt_id bigint,
    worker_id bigint,
    name text NOT NULL,
    detail text,
    account text,
    PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE athanor.job_event IS 'What happened to jobs, attempts and workers; append-only.';
CREATE INDEX job_event_job ON athanor.job_event (job_id, event_id) WHERE job_id IS NOT NULL;
COMMENT ON INDEX athanor.job_event_job IS 'Reader: the events of a job.';

CREATE TABLE athanor.metric_default PARTITION OF athanor.metric DEFAULT;
CREATE TABLE athanor.log_chunk_default PARTITION OF athanor.log_chunk DEFAULT;
CREATE TABLE athanor.job_event_default PARTITION OF athanor.job_event DEFAULT;

-- One partition for the period that contains `moment`; rows of it that were waiting in the default
-- partition move along. ATTACH, unlike CREATE ... PARTITION OF, lets the parent be written
-- meanwhile. Returns whether a partition was made.
CREATE FUNCTION athanor.partition_make(parent text, period text, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    lower_at timestamptz := date_trunc(period, moment, 'UTC');
    upper_at timestamptz := date_trunc(period, lower_at + ('1 ' || period)::interval
                                               + interval '12 hours', 'UTC');
    child text := parent || '_' || to_char(lower_at AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    IF to_regclass('athanor.' || quote_ident(child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE athanor.%I (LIKE athanor.%I INCLUDING DEFAULTS)', child, parent);
    EXECUTE format('ALTER TABLE athanor.%I ADD CONSTRAINT in_period CHECK (at >= %L AND at < %L)',
                   child, lower_at, upper_at);
    EXECUTE format('LOCK TABLE athanor.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
    EXECUTE format('WITH moved AS (DELETE FROM athanor.%I WHERE at >= %L AND at < %L RETURNING *) '
                   'INSERT INTO athanor.%I SELECT * FROM moved',
                   parent || '_default', lower_at, upper_at, child);
    EXECUTE format('ALTER TABLE athanor.%I ATTACH PARTITION athanor.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, child, lower_at, upper_at);
    EXECUTE format('ALTER TABLE athanor.%I DROP CONSTRAINT in_period', child);
    RETURN true;
END $$;

-- Partitions from now to two periods ahead. Called by the leader at its start and daily.
CREATE FUNCTION athanor.history_prepare(moment timestamptz DEFAULT now())
RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FILTER (WHERE athanor.partition_make(parent, period,
                                      moment + ahead * ('1 ' || period)::interval))
      FROM (VALUES ('metric', 'week'), ('log_chunk', 'week'), ('job_event', 'month'))
               AS t (parent, period),
           generate_series(0, 2) AS ahead
$$;
COMMENT ON FUNCTION athanor.history_prepare IS 'Makes partitions ahead; returns how many were new.';

-- Drops the partitions of `parent` that end before `before_at`. Rows of the default partition stay.
CREATE FUNCTION athanor.history_drop(parent text, before_at timestamptz)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    child record;
    dropped bigint := 0;
BEGIN
    IF parent NOT IN ('metric', 'log_chunk', 'job_event') THEN
        RAISE EXCEPTION 'table % has no partitions, expected metric, log_chunk or job_event', parent;
    END IF;
    FOR child IN
        SELECT c.relname,
               (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz
                   AS upper_at
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = ('athanor.' || quote_ident(parent))::regclass
         ORDER BY c.relname
    LOOP
        IF child.upper_at <= before_at THEN
            EXECUTE format('ALTER TABLE athanor.%I DETACH PARTITION athanor.%I', parent, child.relname);
            EXECUTE format('DROP TABLE athanor.%I', child.relname);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION athanor.history_drop IS
    'Retention: drops whole partitions of metric, log_chunk or job_event; returns how many.';

SELECT athanor.history_prepare();
