-- Word of the end of jobs, kept until it is sent or has become old.
-- programs from 0020

CREATE TABLE athanor.notification (
    notification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('webhook', 'mail')),
    target text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz DEFAULT now(), -- NULL: nothing more is tried
    tries integer NOT NULL DEFAULT 0,
    sent_at timestamptz,
    error text,
    CHECK (sent_at IS NULL OR next_at IS NULL)
);
COMMENT ON TABLE athanor.notification IS
    'Outbox: written in the transaction that ends the job, so that no end is told that was not, and '
    'none is forgotten when a coordinator dies.';
CREATE INDEX notification_due ON athanor.notification (next_at) WHERE next_at IS NOT NULL;
COMMENT ON INDEX athanor.notification_due IS 'Reader: notification_claim.';
CREATE INDEX notification_job ON athanor.notification (job_id);
COMMENT ON INDEX athanor.notification_job IS 'Reader: people who ask the view about a job.';

-- A trigger and not the core: what is told follows from the row alone, and whoever sends keeps its
-- own state in the same row, which the core must not have to load.
CREATE FUNCTION athanor.notification_add() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ending text := CASE NEW.state WHEN 'SUCCEEDED' THEN 'done' ELSE lower(NEW.state) END;
BEGIN
    IF NOT coalesce((NEW.spec -> 'notify' -> 'on') ? ending, false) THEN
        RETURN NULL;
    END IF;
    INSERT INTO athanor.notification (job_id, kind, target, payload)
    SELECT NEW.job_id, t.kind, t.target,
           jsonb_build_object('format', 1, 'event', ending, 'job_id', NEW.job_id, 'name', NEW.name,
               'experiment', (SELECT e.name FROM athanor.experiment e
                               WHERE e.experiment_id = NEW.experiment_id),
               'kind', NEW.kind, 'account', NEW.account, 'state', NEW.state, 'cause', NEW.cause,
               'detail', NEW.detail, 'attempts', NEW.attempt_count, 'submitted_at', NEW.submitted_at,
               'started_at', NEW.started_at, 'ended_at', NEW.ended_at)
      FROM (VALUES ('webhook', NEW.spec -> 'notify' ->> 'webhook'),
                   ('mail', NEW.spec -> 'notify' ->> 'mail')) AS t (kind, target)
     WHERE t.target <> '';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION athanor.notification_add IS 'Fills the outbox when a job has ended.';
CREATE TRIGGER notification_of_end AFTER UPDATE OF state ON athanor.job FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND NEW.spec ? 'notify')
    EXECUTE FUNCTION athanor.notification_add();
CREATE TRIGGER notification_of_reuse AFTER INSERT ON athanor.job FOR EACH ROW
    WHEN (NEW.ended_at IS NOT NULL AND NEW.spec ? 'notify')
    EXECUTE FUNCTION athanor.notification_add();

-- What is due, taken for a minute: whoever takes it and dies leaves it to be taken again.
CREATE FUNCTION athanor.notification_claim(most integer)
RETURNS SETOF athanor.notification LANGUAGE sql AS $$
    UPDATE athanor.notification n
       SET tries = n.tries + 1, next_at = now() + interval '1 minute'
     WHERE n.notification_id IN (SELECT d.notification_id FROM athanor.notification d
                                  WHERE d.next_at <= now()
                                  ORDER BY d.next_at LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING n.*
$$;
COMMENT ON FUNCTION athanor.notification_claim IS 'Takes what is due, for a minute.';

-- Waits double from 2 s to half an hour; after a day nothing more is tried.
CREATE FUNCTION athanor.notification_settle(id bigint, trouble text)
RETURNS void LANGUAGE sql AS $$
    UPDATE athanor.notification n
       SET sent_at = CASE WHEN trouble IS NULL THEN now() END, error = trouble,
           next_at = CASE WHEN trouble IS NULL OR n.created_at < now() - interval '1 day' THEN NULL
                     ELSE now() + least(interval '2 s' * 2 ^ least(n.tries - 1, 20),
                                        interval '30 min') END
     WHERE n.notification_id = id AND n.sent_at IS NULL
$$;
COMMENT ON FUNCTION athanor.notification_settle IS
    'It was sent (trouble NULL), or is to be tried again, or has become too old for that.';

CREATE VIEW athanor.notifications AS
SELECT n.notification_id, n.job_id, n.kind,
       substring(n.target FROM '^(?:https?://[^/?#]+|[^/]+$)') AS target,
       n.payload ->> 'event' AS event, n.created_at, n.tries, n.sent_at, n.next_at, n.error,
       CASE WHEN n.sent_at IS NOT NULL THEN 'sent' WHEN n.next_at IS NULL THEN 'given up'
            ELSE 'waiting' END AS state
  FROM athanor.notification n;
COMMENT ON VIEW athanor.notifications IS 'Who was told, or is still to be told, of ends of jobs.';
COMMENT ON COLUMN athanor.notifications.notification_id IS 'in the header Idempotency-Key';
COMMENT ON COLUMN athanor.notifications.job_id IS 'the job';
COMMENT ON COLUMN athanor.notifications.kind IS 'webhook or mail';
COMMENT ON COLUMN athanor.notifications.target IS 'host of the webhook, or the address';
COMMENT ON COLUMN athanor.notifications.event IS 'done, failed or cancelled';
COMMENT ON COLUMN athanor.notifications.created_at IS 'when the job ended';
COMMENT ON COLUMN athanor.notifications.tries IS 'how often it was tried';
COMMENT ON COLUMN athanor.notifications.sent_at IS 'when the other side said that it has it';
COMMENT ON COLUMN athanor.notifications.next_at IS 'when it is tried next';
COMMENT ON COLUMN athanor.notifications.error IS 'why the newest try failed';
COMMENT ON COLUMN athanor.notifications.state IS 'waiting, sent or given up';

REVOKE EXECUTE ON FUNCTION athanor.notification_add(), athanor.notification_claim(integer),
    athanor.notification_settle(bigint, text) FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
