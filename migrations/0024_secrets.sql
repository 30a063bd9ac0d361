-- 0024_secrets.sql - secrets of accounts, which jobs read from a descriptor.
--
-- A value is stored encrypted (XChaCha20-Poly1305, bound to account and name) under a key that is
-- derived from a file of the coordinators and is not in the database: neither a dump nor whoever
-- owns the database can read one, nor pass one account's off as another's.
-- programs from 0023

CREATE TABLE athanor.secret (
    account    text        NOT NULL CHECK (account <> ''),
    name       text        NOT NULL CHECK (name <> ''),
    sealed     bytea       NOT NULL,
    key_id     text        NOT NULL,
    set_at     timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (account, name),
    -- Invariant: what was removed is gone; 24 bytes of nonce and 16 of tag are the least otherwise.
    CONSTRAINT secret_removed CHECK ((removed_at IS NOT NULL) = (length(sealed) < 40))
);
COMMENT ON CONSTRAINT secret_removed ON athanor.secret IS
    'Invariant: of a removed secret nothing is kept.';

CREATE VIEW athanor.secrets AS
    SELECT account, name, set_at, key_id FROM athanor.secret WHERE removed_at IS NULL;
COMMENT ON VIEW athanor.secrets IS 'Secrets that jobs can name: whose they are, never their values.';
COMMENT ON COLUMN athanor.secrets.account IS 'Whose jobs may name it.';
COMMENT ON COLUMN athanor.secrets.name IS 'Its name in `secrets:` of a spec.';
COMMENT ON COLUMN athanor.secrets.set_at IS 'When its present value was set.';
COMMENT ON COLUMN athanor.secrets.key_id IS 'Which key of the coordinators it is encrypted with.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
