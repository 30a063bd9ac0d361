-- The worker where a job's last attempt failed, which its next one avoids (retry.elsewhere).
-- programs from 0021

ALTER TABLE athanor.job ADD COLUMN avoid_worker_id bigint; -- NULL: none
