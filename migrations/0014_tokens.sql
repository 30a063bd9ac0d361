-- 0014_tokens.sql - one-time tokens that enrol a key, and the role pilot.
--
-- A token is the secret half of a CURVE key pair, so its row is a principal whose role lets it do
-- one thing. What is stored is the public half: from it the secret cannot be computed, no more than
-- from a hash, and guessing one means guessing 256 bits at an address that does not answer.

ALTER TABLE athanor.principal
    DROP CONSTRAINT principal_role_check,
    ADD CONSTRAINT principal_role
        CHECK (role IN ('user', 'operator', 'worker', 'admin', 'pilot', 'token')),
    ADD COLUMN grants text NOT NULL DEFAULT ''
        CHECK (grants IN ('', 'user', 'operator', 'worker', 'admin', 'pilot')),
    ADD COLUMN grants_name text NOT NULL DEFAULT '',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN used_at timestamptz,
    ADD COLUMN used_by text NOT NULL DEFAULT '',
    ADD CONSTRAINT principal_token
        CHECK ((role = 'token') = (grants <> '') AND (role = 'token') = (expires_at IS NOT NULL)),
    ADD CONSTRAINT principal_used CHECK ((used_at IS NULL) = (used_by = ''));
COMMENT ON CONSTRAINT principal_role ON athanor.principal IS 'Invariant: roles of the programs.';
COMMENT ON CONSTRAINT principal_token ON athanor.principal IS
    'Invariant: tokens, and they alone, grant a role and expire.';
COMMENT ON CONSTRAINT principal_used ON athanor.principal IS
    'Invariant: a token is used by a key, once.';
