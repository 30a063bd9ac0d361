-- 0004_needs.sql - a job may wait for an artifact of another.

ALTER TABLE athanor.job_dependency DROP CONSTRAINT job_dependency_condition_check;
ALTER TABLE athanor.job_dependency ADD CONSTRAINT job_dependency_condition_check
    CHECK (condition IN ('success', 'failure', 'any') OR condition LIKE 'artifact:_%');
COMMENT ON COLUMN athanor.dependencies.condition IS
    'how the parent must end: success, failure, any; or artifact:NAME, which it must make';
