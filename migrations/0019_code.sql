-- 0019_code.sql - folders of code as they were when jobs were submitted.
-- programs from 0018

CREATE TABLE athanor.snapshot (
    snapshot_id   bigint PRIMARY KEY,
    content_hash  bytea NOT NULL CHECK (length(content_hash) = 32),
    size_bytes    bigint NOT NULL CHECK (size_bytes > 0),
    chunk_hashes  bytea NOT NULL CHECK (length(chunk_hashes) % 32 = 0),
    account       text NOT NULL,
    created_at    timestamptz NOT NULL,
    chunks_stored bigint NOT NULL,
    used_at       timestamptz,
    removed_at    timestamptz,
    CONSTRAINT snapshot_chunks CHECK (chunks_stored BETWEEN 0 AND length(chunk_hashes) / 32)
);
COMMENT ON TABLE athanor.snapshot IS 'a folder of code as an archive, known by its hash';
COMMENT ON CONSTRAINT snapshot_chunks ON athanor.snapshot IS
    'Chunks come in order: as many as are stored, from the first on.';
CREATE UNIQUE INDEX snapshot_content ON athanor.snapshot (content_hash) WHERE removed_at IS NULL;
COMMENT ON INDEX athanor.snapshot_content IS
    'An archive is stored once. Reader: whoever fetches it by its hash.';

-- Chunks are compressed by PostgreSQL (TOAST), which is why archives are not.
CREATE TABLE athanor.snapshot_chunk (
    snapshot_id bigint NOT NULL REFERENCES athanor.snapshot,
    chunk       bigint NOT NULL CHECK (chunk >= 0),
    bytes       bytea NOT NULL,
    PRIMARY KEY (snapshot_id, chunk)
);
COMMENT ON TABLE athanor.snapshot_chunk IS 'pieces of archives, 256 KiB each but for the last';

CREATE INDEX job_code ON athanor.job ((spec -> 'code' ->> 'hash'))
    WHERE spec -> 'code' ->> 'hash' IS NOT NULL;
COMMENT ON INDEX athanor.job_code IS 'Reader: view snapshots, which jobs ran an archive.';

-- Chunks of archives that retention has chosen. What is removed stays removed, so it does not
-- matter who calls this, and when.
CREATE FUNCTION athanor.snapshot_sweep() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog AS $$
    WITH gone AS (
        DELETE FROM athanor.snapshot_chunk c USING athanor.snapshot s
         WHERE s.snapshot_id = c.snapshot_id AND s.removed_at IS NOT NULL RETURNING 1)
    SELECT count(*) FROM gone
$$;
REVOKE EXECUTE ON FUNCTION athanor.snapshot_sweep() FROM PUBLIC;
COMMENT ON FUNCTION athanor.snapshot_sweep() IS 'deletes the chunks of removed archives; how many';

CREATE VIEW athanor.snapshots AS
SELECT s.snapshot_id, encode(s.content_hash, 'hex') AS hash, s.size_bytes, s.account,
       s.chunks_stored * 32 = length(s.chunk_hashes) AS complete, s.created_at, s.used_at,
       s.removed_at,
       (SELECT count(*) FROM athanor.job j
         WHERE j.spec -> 'code' ->> 'hash' = encode(s.content_hash, 'hex')) AS jobs,
       (SELECT count(*) FROM athanor.job j
         WHERE j.spec -> 'code' ->> 'hash' = encode(s.content_hash, 'hex')
           AND j.ended_at IS NULL) AS live_jobs
  FROM athanor.snapshot s;
COMMENT ON VIEW athanor.snapshots IS 'Folders of code that jobs run, as archives.';
COMMENT ON COLUMN athanor.snapshots.snapshot_id IS 'number of the archive';
COMMENT ON COLUMN athanor.snapshots.hash IS 'hash of the archive, in hexadecimal';
COMMENT ON COLUMN athanor.snapshots.size_bytes IS 'size of the archive, not compressed';
COMMENT ON COLUMN athanor.snapshots.account IS 'who sent it first';
COMMENT ON COLUMN athanor.snapshots.complete IS 'whether all of it has arrived';
COMMENT ON COLUMN athanor.snapshots.created_at IS 'when it was first offered';
COMMENT ON COLUMN athanor.snapshots.used_at IS 'newest submit with it, or end of a job that ran it';
COMMENT ON COLUMN athanor.snapshots.removed_at IS 'when retention removed it; NULL while it is there';
COMMENT ON COLUMN athanor.snapshots.jobs IS 'jobs that were submitted with it';
COMMENT ON COLUMN athanor.snapshots.live_jobs IS 'jobs that need it: they wait or run';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
