-- 0010_trials.sql - trials that took the results of another job show what that one reported.

CREATE OR REPLACE VIEW athanor.trials AS
SELECT t.sweep_id, s.name AS sweep, e.name AS experiment, t.trial, t.job_id, j.name, j.state,
       j.cause, j.detail, t.params, athanor.params_text(t.params) AS setting, t.rung,
       greatest(t.resource, coalesce(j.progress_step, 0)) AS resource, s.metric,
       b.value AS best_value, b.step AS best_step,
       row_number() OVER (PARTITION BY t.sweep_id ORDER BY
           CASE s.mode WHEN 'max' THEN -b.value ELSE b.value END NULLS LAST, t.trial) AS place,
       j.started_at, j.ended_at,
       (extract(epoch FROM coalesce(j.ended_at, now()) - j.started_at) * 1000)::bigint AS run_ms
  FROM athanor.trial t
  JOIN athanor.sweep s USING (sweep_id)
  JOIN athanor.experiment e USING (experiment_id)
  JOIN athanor.job j ON j.job_id = t.job_id
  LEFT JOIN LATERAL (
      SELECT t.best_value AS value, t.best_step AS step WHERE t.reports > 0 AND t.best_value <> 'NaN'
      UNION ALL
      (SELECT m.value, m.step FROM athanor.metric m
        WHERE m.job_id = j.reused_job_id AND m.name = s.metric AND m.value <> 'NaN'
        ORDER BY CASE s.mode WHEN 'max' THEN -m.value ELSE m.value END, m.step LIMIT 1)
      LIMIT 1) AS b ON true;
