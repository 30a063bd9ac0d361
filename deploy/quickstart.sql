-- The table at the end of deploy/quickstart.sh. Needs -v ids=1,2,3.
\set QUIET on
\pset footer off
\pset null '-'
\pset border 1
\pset numericlocale off
\echo
\echo 'Jobs'
SELECT j.name, j.kind, j.state, j.ranks, j.attempt_count AS attempts,
       to_char(j.ended_at - j.started_at, 'MI:SS') AS "time"
FROM athanor.jobs j
WHERE j.job_id = ANY (string_to_array(:'ids', ',')::bigint[])
ORDER BY j.job_id;
