-- Of which attempt a line of output is, and whether a later attempt has taken its place.
-- programs from 0014

CREATE OR REPLACE VIEW athanor.logs AS
SELECT c.job_id, c.attempt_id, c.rank, c.stream, c.at, athanor.bytes_text(c.bytes) AS text, c.node,
       c.seq, a.number AS attempt,
       EXISTS (SELECT FROM athanor.attempt b
                WHERE b.job_id = a.job_id AND b.number > a.number) AS superseded
  FROM athanor.log_chunk c JOIN athanor.attempt a USING (attempt_id);
COMMENT ON COLUMN athanor.logs.attempt IS 'number of the attempt within its job, from 1';
COMMENT ON COLUMN athanor.logs.superseded IS
    'whether a later attempt of the job has taken the place of the one that printed this';
