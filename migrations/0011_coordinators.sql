-- 0011_coordinators.sql - who leads, who stands by, and how leadership passes on.
--
-- The lease row of 0001 is locked by each batch of the leader from its begin to its end: it guards
-- writes, but cannot be renewed while a batch is under way. So the lease is renewed in a row of the
-- leader's own, from a connection of its own (coordinator/store/lease.c), and a long batch or a slow
-- disk under one connection costs no leadership. A leader leads as long as either row says so:
-- leaders of before this migration renew only the first, later ones both.
--
-- All times are this server's clock. Workers obey no epoch below the newest that they have seen.
-- Where the clock is ahead of the row it decides: a database restored from an old copy would else
-- give epochs away a second time, and its leader would be refused everywhere.

CREATE TABLE athanor.coordinator (
    holder text PRIMARY KEY CHECK (length(holder) BETWEEN 1 AND 127),
    endpoints text NOT NULL,
    version text NOT NULL,
    leads boolean NOT NULL DEFAULT false,
    epoch bigint CHECK (epoch > 0),
    led_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT coordinator_led CHECK (NOT leads OR (epoch IS NOT NULL AND led_at IS NOT NULL))
) WITH (fillfactor = 20);
COMMENT ON TABLE athanor.coordinator IS
    'Coordinator processes of this database: the leader and those that stand by. Renewing and taking '
    'the lease meet in the leader''s row, so that not both can win.';
COMMENT ON CONSTRAINT coordinator_led ON athanor.coordinator IS
    'Invariant: a leader has an epoch.';
CREATE UNIQUE INDEX coordinator_leads ON athanor.coordinator (leads) WHERE leads;
COMMENT ON INDEX athanor.coordinator_leads IS 'Invariant: at most one leads.';

-- What a coordinator that does not lead asks a few times a second. It says that it is there (once a
-- second), tells who leads and where, and takes the lease when nobody holds it (its own of before
-- it stood by again counts as nobody's), or by_force. Of
-- several that try one succeeds: the advisory lock keeps them from waiting for each other.
--
-- A leader may have been stopped in the middle of a batch, which would hold the lease row for as
-- long as it sleeps: whoever still has such a batch after the lease has expired is disconnected,
-- before its rows count. It has the row exclusively locked in pg_locks, and nobody else does.
CREATE FUNCTION athanor.coordinator_follow(
    me text, my_endpoints text, my_version text, lease_ms bigint, by_force boolean,
    OUT taken boolean, OUT leader text, OUT leader_endpoints text, OUT leader_epoch bigint,
    OUT last_batch bigint, OUT cluster bigint, OUT keys text)
LANGUAGE plpgsql AS $$
DECLARE
    lease interval := lease_ms * interval '1 millisecond';
    vacant boolean;
BEGIN
    UPDATE athanor.coordinator c SET seen_at = clock_timestamp()
     WHERE c.holder = me AND c.seen_at < clock_timestamp() - interval '1 second';
    IF NOT FOUND THEN
        INSERT INTO athanor.coordinator (holder, endpoints, version)
        VALUES (me, my_endpoints, my_version) ON CONFLICT DO NOTHING;
    END IF;
    SELECT false, l.holder, coalesce(c.endpoints, ''), l.epoch, l.batch, s.cluster_id,
           by_force OR l.holder = me OR (l.expires_at < clock_timestamp()
               AND (c.expires_at IS NULL OR c.expires_at < clock_timestamp()))
      INTO taken, leader, leader_endpoints, leader_epoch, last_batch, cluster, vacant
      FROM athanor.cluster s, athanor.coordinator_lease l LEFT JOIN athanor.coordinator c ON c.leads;
    SELECT count(*) || ' ' || coalesce(max(greatest(p.enrolled_at, p.revoked_at))::text, '')
      INTO keys FROM athanor.principal p;
    IF NOT vacant THEN
        RETURN;
    END IF;
    leader := '';
    leader_endpoints := '';
    IF NOT pg_try_advisory_xact_lock(27429347283628915) THEN
        RETURN;
    END IF;
    BEGIN
        UPDATE athanor.coordinator c SET leads = false
         WHERE c.leads AND (by_force OR c.holder = me OR c.expires_at < clock_timestamp());
        IF EXISTS (SELECT FROM athanor.coordinator c WHERE c.leads) THEN
            RAISE EXCEPTION 'renewed meanwhile' USING ERRCODE = 'AT003';
        END IF;
        BEGIN
            PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
             WHERE k.relation = 'athanor.coordinator_lease'::regclass AND k.granted
               AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND k.mode = 'RowExclusiveLock' AND k.pid <> pg_backend_pid();
        EXCEPTION WHEN insufficient_privilege THEN
            NULL; -- coordinators under several accounts: wait for the batch to end instead
        END;
        UPDATE athanor.coordinator_lease l
           SET holder = me,
               epoch = greatest(l.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint),
               expires_at = clock_timestamp() + lease
         WHERE by_force OR l.holder = me OR l.expires_at < clock_timestamp()
        RETURNING l.epoch, l.batch INTO leader_epoch, last_batch;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'renewed meanwhile' USING ERRCODE = 'AT003';
        END IF;
        UPDATE athanor.coordinator c
           SET leads = true, epoch = leader_epoch, led_at = clock_timestamp(),
               seen_at = clock_timestamp(), expires_at = clock_timestamp() + lease
         WHERE c.holder = me;
        taken := true;
        leader := me;
        leader_endpoints := my_endpoints;
    EXCEPTION WHEN SQLSTATE 'AT003' OR lock_not_available THEN
        taken := false; -- and everything of this block is undone
    END;
END $$;
COMMENT ON FUNCTION athanor.coordinator_follow IS
    'Says that a coordinator stands by, tells who leads, and takes the lease when nobody holds it.';

-- False: another coordinator leads, or led since. The lease row of 0001 is renewed too, for
-- coordinators that know only that one, unless a batch has it locked and renews it by itself.
CREATE FUNCTION athanor.coordinator_renew(me text, my_epoch bigint, lease_ms bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    lease interval := lease_ms * interval '1 millisecond';
BEGIN
    UPDATE athanor.coordinator c
       SET seen_at = clock_timestamp(), expires_at = clock_timestamp() + lease
     WHERE c.holder = me AND c.epoch = my_epoch AND c.leads;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE athanor.coordinator_lease l SET expires_at = clock_timestamp() + lease
     WHERE l.only_row IN (SELECT o.only_row FROM athanor.coordinator_lease o
                           WHERE o.holder = me AND o.epoch = my_epoch FOR UPDATE SKIP LOCKED);
    DELETE FROM athanor.coordinator c
     WHERE NOT c.leads AND c.seen_at < clock_timestamp() - interval '1 minute';
    RETURN true;
END $$;
COMMENT ON FUNCTION athanor.coordinator_renew IS
    'Renews the lease of the one who leads; forgets coordinators that were silent for a minute.';

CREATE FUNCTION athanor.coordinator_leave(me text) RETURNS void LANGUAGE sql AS $$
    UPDATE athanor.coordinator_lease SET expires_at = '-infinity' WHERE holder = me;
    DELETE FROM athanor.coordinator WHERE holder = me;
$$;
COMMENT ON FUNCTION athanor.coordinator_leave IS
    'A coordinator ends: a lease that it held is free at once.';

CREATE VIEW athanor.coordinators AS
    SELECT c.holder AS name, c.endpoints,
           CASE WHEN c.leads AND c.expires_at > clock_timestamp() THEN 'leader'
                WHEN NOT c.leads AND c.seen_at > clock_timestamp() - interval '5 seconds'
                THEN 'standby' ELSE 'silent' END AS state,
           c.version, c.epoch, coalesce(CASE WHEN c.leads THEN c.led_at END, c.started_at) AS since,
           c.seen_at
      FROM athanor.coordinator c;
COMMENT ON VIEW athanor.coordinators IS
    'Coordinator processes that were seen within the last minute, and the leader.';
COMMENT ON COLUMN athanor.coordinators.name IS 'Host, process and a random number, with colons.';
COMMENT ON COLUMN athanor.coordinators.endpoints IS 'Where clients and workers reach it.';
COMMENT ON COLUMN athanor.coordinators.state IS
    'leader; standby: ready to take over; silent: not heard from lately.';
COMMENT ON COLUMN athanor.coordinators.version IS 'Its program''s version.';
COMMENT ON COLUMN athanor.coordinators.epoch IS
    'The epoch that it leads, or led before it stood by again; empty: none.';
COMMENT ON COLUMN athanor.coordinators.since IS 'When it began to lead, or to stand by.';
COMMENT ON COLUMN athanor.coordinators.seen_at IS 'Its newest sign of life.';

REVOKE EXECUTE ON FUNCTION
    athanor.coordinator_follow, athanor.coordinator_renew, athanor.coordinator_leave FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        GRANT SELECT ON athanor.coordinators TO athanor_reader;
    END IF;
END $$;
