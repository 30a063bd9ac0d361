-- 0029_project_secrets.sql - secrets of projects, which the jobs of all who may submit there read.
--
-- They are stored as those of accounts are (0024), in a table of their own: programs that do not
-- know it go on with what they know.
-- programs from 0028

CREATE TABLE athanor.project_secret (
    project    text        NOT NULL CHECK (project <> ''),
    name       text        NOT NULL CHECK (name <> ''),
    sealed     bytea       NOT NULL,
    key_id     text        NOT NULL,
    set_by     text        NOT NULL,
    set_at     timestamptz NOT NULL,
    removed_at timestamptz,
    PRIMARY KEY (project, name),
    CONSTRAINT project_secret_removed CHECK ((removed_at IS NOT NULL) = (length(sealed) < 40))
);
COMMENT ON CONSTRAINT project_secret_removed ON athanor.project_secret IS
    'Invariant: of a removed secret nothing is kept; 24 bytes of nonce and 16 of tag are the least otherwise.';

CREATE OR REPLACE VIEW athanor.secrets AS
    SELECT account, name, set_at, key_id, NULL::text AS project, account AS set_by
      FROM athanor.secret WHERE removed_at IS NULL
    UNION ALL
    SELECT NULL, name, set_at, key_id, project, set_by
      FROM athanor.project_secret WHERE removed_at IS NULL;
COMMENT ON VIEW athanor.secrets IS
    'Secrets that jobs can name: whose they are, never their values. Of two with the same name a '
    'job reads that of its account, not that of its project.';
COMMENT ON COLUMN athanor.secrets.account IS 'Whose jobs may name it; NULL: it is of a project.';
COMMENT ON COLUMN athanor.secrets.project IS
    'Jobs of this project may name it; NULL: it is of an account.';
COMMENT ON COLUMN athanor.secrets.set_by IS 'Who set its present value.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
