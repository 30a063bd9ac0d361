-- 0001_jobs.sql - what the coordinator decides and must not forget: jobs, attempts, workers.
--
-- Columns equal coordinator/rows/<table>.def (a test compares them). Constraints repeat the
-- invariants of the core, so that people who write SQL and our own bugs both meet them. Foreign
-- keys are checked at commit: the writer sends a batch grouped by table, not by parent. The two
-- that every job would check against one and the same row (job to experiment, attempt to worker)
-- are left to the core: they cost a fifth of PostgreSQL's time per job.
-- Tables that change often leave room on their pages (fillfactor) for in-place updates.

CREATE TABLE athanor.cluster (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id bigint NOT NULL CHECK (cluster_id > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE athanor.cluster IS 'Who this database is: one row, made with the schema.';
INSERT INTO athanor.cluster (cluster_id)
    VALUES (1 + ('x' || substr(md5(gen_random_uuid()::text), 1, 15))::bit(60)::bigint);

CREATE TABLE athanor.coordinator_lease (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    batch bigint NOT NULL DEFAULT 0 CHECK (batch >= 0),
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);
COMMENT ON TABLE athanor.coordinator_lease IS
    'The leading coordinator. Every write of a leader updates this row in the same transaction, so '
    'a leader whose epoch has passed cannot write, and an unknown COMMIT is told by batch.';
INSERT INTO athanor.coordinator_lease DEFAULT VALUES;

CREATE TABLE athanor.experiment (
    experiment_id bigint PRIMARY KEY,
    name text NOT NULL,
    account text,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX experiment_name ON athanor.experiment (name);
COMMENT ON INDEX athanor.experiment_name IS 'Reader: loader and queries that name an experiment.';

CREATE TABLE athanor.worker (
    worker_id bigint PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('OK', 'SUSPECT', 'LOST', 'LEFT')),
    incarnation bigint,
    host text,
    cores bigint NOT NULL CHECK (cores >= 0),
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    gpus bigint NOT NULL CHECK (gpus >= 0),
    labels jsonb,
    topology jsonb,
    drained boolean NOT NULL,
    drain_reason text,
    joined_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT worker_ended CHECK ((ended_at IS NOT NULL) = (state IN ('LOST', 'LEFT')))
) WITH (fillfactor = 50);
COMMENT ON CONSTRAINT worker_ended ON athanor.worker IS 'ended_at is set exactly while lost or left.';
CREATE UNIQUE INDEX worker_name ON athanor.worker (name);
COMMENT ON INDEX athanor.worker_name IS 'Invariant: a name is one worker. Reader: queries by name.';

CREATE TABLE athanor.worker_device (
    worker_id bigint REFERENCES athanor.worker DEFERRABLE INITIALLY DEFERRED,
    device_index bigint CHECK (device_index >= 0),
    kind text,
    model text,
    uuid text,
    memory_bytes bigint,
    PRIMARY KEY (worker_id, device_index)
);

CREATE TABLE athanor.job (
    job_id bigint PRIMARY KEY,
    experiment_id bigint NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('pretraining', 'distillation', 'unlearning', 'eval', 'data',
                                       'finetuning', 'command')),
    recipe text,
    account text,
    submit_key bytea NOT NULL,
    submit_index bigint NOT NULL CHECK (submit_index >= 0),
    spec jsonb NOT NULL,
    spec_source text,
    ranks bigint NOT NULL CHECK (ranks > 0),
    cores bigint NOT NULL CHECK (cores >= 0),
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    gpus bigint NOT NULL CHECK (gpus >= 0),
    submitted_at timestamptz NOT NULL,
    priority bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('WAITING', 'READY', 'BACKOFF', 'PLACED', 'RUNNING',
                                         'STOPPING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    held boolean NOT NULL,
    cause text,
    detail text,
    attempt_count bigint NOT NULL CHECK (attempt_count >= 0),
    attempts_spent bigint NOT NULL CHECK (attempts_spent BETWEEN 0 AND attempt_count),
    eligible_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    progress_step bigint,
    progress_total bigint,
    progress_phase text,
    CONSTRAINT job_ended
        CHECK ((ended_at IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')))
) WITH (fillfactor = 60);
COMMENT ON CONSTRAINT job_ended ON athanor.job IS
    'Invariant 4: ended_at is set exactly in terminal states.';
CREATE UNIQUE INDEX job_submit ON athanor.job (submit_key, submit_index);
COMMENT ON INDEX athanor.job_submit IS
    'Invariant 10: the same submit sent twice is one job. Reader: the repeated submit.';
CREATE INDEX job_live ON athanor.job (job_id) WHERE ended_at IS NULL;
COMMENT ON INDEX athanor.job_live IS 'Reader: loader; views of what is pending or running.';
CREATE INDEX job_name ON athanor.job (name, job_id);
COMMENT ON INDEX athanor.job_name IS 'Reader: references such as job:NAME/checkpoint:best; queries by name.';
CREATE INDEX job_experiment ON athanor.job (experiment_id, job_id);
COMMENT ON INDEX athanor.job_experiment IS 'Reader: jobs of an experiment.';

-- Success is for ever (invariant 4), whoever writes. A failed or cancelled job may be opened again
-- by a person (athanor retry): it then lives, and ended_at is NULL.
CREATE FUNCTION athanor.job_stays_succeeded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % has succeeded, it cannot become %', OLD.job_id, NEW.state
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER job_stays_succeeded BEFORE UPDATE ON athanor.job FOR EACH ROW
    WHEN (OLD.state = 'SUCCEEDED' AND NEW.state <> OLD.state)
    EXECUTE FUNCTION athanor.job_stays_succeeded();

CREATE TABLE athanor.job_dependency (
    job_id bigint REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    parent_id bigint REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    condition text NOT NULL CHECK (condition IN ('success', 'failure', 'any')),
    state text NOT NULL CHECK (state IN ('waiting', 'met', 'broken')),
    PRIMARY KEY (job_id, parent_id),
    CONSTRAINT job_dependency_other CHECK (job_id <> parent_id)
);
CREATE INDEX job_dependency_parent ON athanor.job_dependency (parent_id);
COMMENT ON INDEX athanor.job_dependency_parent IS 'Reader: who waits for a job; the foreign key.';

CREATE TABLE athanor.attempt (
    attempt_id bigint PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    number bigint NOT NULL CHECK (number > 0),
    worker_id bigint NOT NULL,
    epoch bigint NOT NULL,
    resume_checkpoint_id bigint,
    placed_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('PLACED', 'RUNNING', 'STOPPING', 'ENDED')),
    stop_cause text,
    cause text,
    code bigint,
    evidence text,
    placement jsonb,
    usage jsonb,
    started_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT attempt_ended CHECK ((ended_at IS NOT NULL) = (state = 'ENDED')),
    CONSTRAINT attempt_cause CHECK (state <> 'ENDED' OR cause IS NOT NULL)
) WITH (fillfactor = 60);
COMMENT ON CONSTRAINT attempt_ended ON athanor.attempt IS 'ended_at is set exactly when it has ended.';
COMMENT ON CONSTRAINT attempt_cause ON athanor.attempt IS 'Every attempt ends with a typed cause.';
CREATE UNIQUE INDEX attempt_number ON athanor.attempt (job_id, number);
COMMENT ON INDEX athanor.attempt_number IS 'Invariant: attempts of a job are numbered. Reader: attempts of a job; the foreign key.';
CREATE UNIQUE INDEX attempt_live ON athanor.attempt (job_id) WHERE ended_at IS NULL;
COMMENT ON INDEX athanor.attempt_live IS 'Invariant 1: at most one live attempt per job. Reader: loader.';
CREATE INDEX attempt_worker ON athanor.attempt (worker_id, attempt_id);
COMMENT ON INDEX athanor.attempt_worker IS 'Reader: what ran on a worker.';

CREATE TABLE athanor.checkpoint (
    checkpoint_id bigint PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    attempt_id bigint NOT NULL REFERENCES athanor.attempt DEFERRABLE INITIALLY DEFERRED,
    worker_id bigint,
    step bigint NOT NULL CHECK (step >= 0),
    path text NOT NULL,
    size_bytes bigint,
    content_hash bytea NOT NULL CHECK (octet_length(content_hash) = 32),
    metrics jsonb,
    saved_at timestamptz NOT NULL,
    removed_at timestamptz
);
COMMENT ON TABLE athanor.checkpoint IS
    'Complete checkpoints only (invariant 7): the row is written after the files and their hashes.';
CREATE UNIQUE INDEX checkpoint_step ON athanor.checkpoint (attempt_id, step);
COMMENT ON INDEX athanor.checkpoint_step IS 'Invariant: a repeated report is one checkpoint; the foreign key.';
CREATE INDEX checkpoint_job ON athanor.checkpoint (job_id, step);
COMMENT ON INDEX athanor.checkpoint_job IS 'Reader: resume points and references to checkpoints of a job.';

CREATE TABLE athanor.artifact (
    artifact_id bigint PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    attempt_id bigint NOT NULL REFERENCES athanor.attempt DEFERRABLE INITIALLY DEFERRED,
    kind text NOT NULL,
    name text NOT NULL,
    path text NOT NULL,
    size_bytes bigint,
    content_hash bytea,
    meta jsonb,
    created_at timestamptz NOT NULL
);
CREATE INDEX artifact_name ON athanor.artifact (kind, name, artifact_id);
COMMENT ON INDEX athanor.artifact_name IS 'Reader: references such as dataset:NAME, where the newest wins.';
CREATE INDEX artifact_job ON athanor.artifact (job_id);
COMMENT ON INDEX athanor.artifact_job IS 'Reader: artifacts of a job; the foreign key.';
CREATE INDEX artifact_attempt ON athanor.artifact (attempt_id);
COMMENT ON INDEX athanor.artifact_attempt IS 'Reader: artifacts of a run; the foreign key.';

CREATE TABLE athanor.lineage (
    attempt_id bigint REFERENCES athanor.attempt DEFERRABLE INITIALLY DEFERRED,
    input text,
    ref text,
    path text,
    source_job_id bigint,
    checkpoint_id bigint,
    artifact_id bigint,
    content_hash bytea,
    PRIMARY KEY (attempt_id, input)
);
CREATE INDEX lineage_source ON athanor.lineage (source_job_id) WHERE source_job_id IS NOT NULL;
COMMENT ON INDEX athanor.lineage_source IS 'Reader: what was made from a job.';

CREATE TABLE athanor.pending_reason (
    job_id bigint REFERENCES athanor.job DEFERRABLE INITIALLY DEFERRED,
    reason text,
    from_at timestamptz,
    detail text,
    until_at timestamptz,
    PRIMARY KEY (job_id, reason, from_at)
);
COMMENT ON TABLE athanor.pending_reason IS
    'Why a job did not start, over time; until_at is NULL while the reason holds.';
CREATE INDEX pending_reason_open ON athanor.pending_reason (job_id) WHERE until_at IS NULL;
COMMENT ON INDEX athanor.pending_reason_open IS 'Reader: loader and the view of what is pending.';

CREATE TABLE athanor.report_cursor (
    attempt_id bigint,
    node smallint,
    seq bigint NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (attempt_id, node)
) WITH (fillfactor = 60);
COMMENT ON TABLE athanor.report_cursor IS
    'How far each report stream is stored. Written in the transaction of the reports themselves, '
    'so that a repeated report is recognised: nothing lost, nothing twice.';

CREATE TABLE athanor.principal (
    public_key text PRIMARY KEY CHECK (length(public_key) = 40),
    name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    role text NOT NULL CHECK (role IN ('user', 'operator', 'worker', 'admin')),
    enrolled_at timestamptz NOT NULL,
    revoked_at timestamptz
);
COMMENT ON TABLE athanor.principal IS
    'Who may talk to the coordinator, by CURVE public key (Z85). A row is never deleted: '
    'revoked_at ends it. One principal may have several keys.';
CREATE INDEX principal_name ON athanor.principal (name);
COMMENT ON INDEX athanor.principal_name IS 'Reader: keys of a principal.';

CREATE TABLE athanor.recipe (
    kind text,
    name text,
    version bigint NOT NULL CHECK (version >= 0),
    engine text NOT NULL,
    catalogue jsonb NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
COMMENT ON TABLE athanor.recipe IS
    'The newest description of each recipe that a worker announced; validates specs before any '
    'worker has joined.';

-- The guard of every write: taken first in each batch of the writer. The row lock lasts until the
-- batch ends, so a successor's epoch and this batch cannot both win. A batch that is there already
-- (sent again after a lost connection, while the first copy was still under way) is refused with
-- another state, so that the writer looks again. coordinator/store/pg.c knows both states.
CREATE FUNCTION athanor.batch_begin(want_holder text, want_epoch bigint, next_batch bigint,
                                    lease_ms bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE athanor.coordinator_lease
       SET batch = next_batch,
           expires_at = clock_timestamp() + lease_ms * interval '1 millisecond'
     WHERE epoch = want_epoch AND holder = want_holder AND batch < next_batch;
    IF FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM athanor.coordinator_lease WHERE epoch = want_epoch AND holder = want_holder;
    IF FOUND THEN
        RAISE EXCEPTION 'batch % is written already', next_batch USING ERRCODE = 'AT002';
    END IF;
    RAISE EXCEPTION 'the lease of % at epoch % has passed to another coordinator',
        want_holder, want_epoch USING ERRCODE = 'AT001';
END $$;
COMMENT ON FUNCTION athanor.batch_begin IS
    'Refuses with AT001 unless the caller still leads; records the number of its batch and renews '
    'the lease.';
