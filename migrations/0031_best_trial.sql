-- 0031_best_trial.sql - a job may read from the best trial of a sweep.
--
-- A program that does not know of it would take such an input for one of the first trial: none may
-- lead, so this waits until nobody does.

ALTER TABLE athanor.job_dependency ADD COLUMN chosen boolean NOT NULL DEFAULT false;
ALTER TABLE athanor.job_dependency ADD CONSTRAINT job_dependency_chosen
    CHECK (NOT chosen OR state <> 'broken');
COMMENT ON CONSTRAINT job_dependency_chosen ON athanor.job_dependency IS
    'A child reads from the trial that was chosen for it.';

CREATE OR REPLACE VIEW athanor.dependencies AS
SELECT d.job_id, j.name, d.parent_id, p.name AS parent, d.condition, d.state, d.chosen
  FROM athanor.job_dependency d
  JOIN athanor.job j ON j.job_id = d.job_id
  JOIN athanor.job p ON p.job_id = d.parent_id;
COMMENT ON COLUMN athanor.dependencies.chosen IS
    'true: the parent is the best trial of a sweep, which an input of the job means';

CREATE FUNCTION athanor.trial_best(of_sweep bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT t.job_id FROM athanor.trials t WHERE t.sweep_id = of_sweep AND t.place = 1
$$;
COMMENT ON FUNCTION athanor.trial_best IS
    'The job of the first trial of a sweep by its metric, also when none has a value yet.';
REVOKE EXECUTE ON FUNCTION athanor.trial_best(bigint) FROM PUBLIC;
