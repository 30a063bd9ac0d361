-- 0034_fit.sql - programs lead only where they understand every job, so that 0031 needs no stop.
--
-- A coordinator says which migrations its program ends at; one from before this migration says
-- nothing. What such a program would take for something else keeps it from leading, and from
-- nothing more: it stands by, and a newer one takes the lease. That makes 0031 to 0033 fit for the
-- programs below, whose rows say so from now on.
-- programs from 0029

ALTER TABLE athanor.coordinator ADD COLUMN program bigint;
COMMENT ON COLUMN athanor.coordinator.program IS
    'The last migration that its program has; NULL: one from before 0034.';

-- An input of the best trial of a sweep (0031) is one of the first trial to an older program, also
-- when its job has ended: it may be asked for again. Such a job has an edge from a trial.
CREATE FUNCTION athanor.program_needed() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (
        SELECT FROM athanor.trial t
          JOIN athanor.job_dependency d ON d.parent_id = t.job_id
          JOIN athanor.job j ON j.job_id = d.job_id
         WHERE j.spec @? '$.inputs.*.trials') THEN 31 ELSE 0 END
$$;
COMMENT ON FUNCTION athanor.program_needed IS
    'The last migration that a program must have to lead this database, as far as its jobs go.';

-- athanor.coordinator_follow takes this error for a lease that was renewed meanwhile.
CREATE FUNCTION athanor.coordinator_fit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(NEW.program, 0) < 31 AND coalesce(NEW.program, 0) < athanor.program_needed() THEN
        RAISE EXCEPTION 'an older program cannot lead' USING ERRCODE = 'AT003';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION athanor.coordinator_fit IS
    'Keeps programs from leading that would misread a job.';
CREATE TRIGGER coordinator_fit BEFORE UPDATE OF leads ON athanor.coordinator
    FOR EACH ROW WHEN (NEW.leads AND NOT OLD.leads) EXECUTE FUNCTION athanor.coordinator_fit();
COMMENT ON TRIGGER coordinator_fit ON athanor.coordinator IS
    'Invariant: who leads understands every job.';

CREATE FUNCTION athanor.coordinator_follow(
    me text, my_endpoints text, my_version text, lease_ms bigint, by_force boolean,
    my_program bigint,
    OUT taken boolean, OUT leader text, OUT leader_endpoints text, OUT leader_epoch bigint,
    OUT last_batch bigint, OUT cluster bigint, OUT keys text)
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM athanor.coordinator c
                    WHERE c.holder = me AND c.program = my_program) THEN
        INSERT INTO athanor.coordinator (holder, endpoints, version, program)
        VALUES (me, my_endpoints, my_version, my_program)
        ON CONFLICT (holder) DO UPDATE SET program = excluded.program;
    END IF;
    SELECT f.* INTO taken, leader, leader_endpoints, leader_epoch, last_batch, cluster, keys
      FROM athanor.coordinator_follow(me, my_endpoints, my_version, lease_ms, by_force) f;
END $$;
COMMENT ON FUNCTION athanor.coordinator_follow(text, text, text, bigint, boolean, bigint) IS
    'The same, of a program that says what its last migration is.';

REVOKE EXECUTE ON FUNCTION
    athanor.program_needed(), athanor.coordinator_fit(),
    athanor.coordinator_follow(text, text, text, bigint, boolean, bigint) FROM PUBLIC;

UPDATE athanor.schema_migration SET oldest = 29 WHERE number BETWEEN 31 AND 33;
