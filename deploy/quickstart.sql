-- The tables at the end of deploy/quickstart.sh, from the users' views alone. Needs -v ids=1,2,3
-- (the jobs of jobspecs/pipelines/wordnet-birds.yaml and jobspecs/distillation/impossible-quick.yaml).
\set QUIET on
\pset footer off
\pset null '-'
\pset border 1

-- The jobs of this run, and the newest value of each of their metrics. Texts, not views: the
-- session may only read.
\set run '(SELECT * FROM athanor.jobs WHERE job_id IN (:ids))'
\set newest '(SELECT DISTINCT ON (job_id, name) job_id, name AS metric, round(value::numeric, 3) AS value FROM athanor.series WHERE job_id IN (:ids) ORDER BY job_id, name, step DESC)'

\echo
\echo 'Jobs'
SELECT job_id AS job, name, kind, state, ranks, attempt_count AS attempts,
       to_char(ended_at - started_at, 'MI:SS') AS "time"
  FROM :run r ORDER BY job_id;

\echo 'Pretraining: validation loss in nats per token, against counts over the same tokens'
SELECT r.name AS model, l.value AS "loss", u.value AS unigram, b.value AS bigram
  FROM :run r
  JOIN :newest l ON l.job_id = r.job_id AND l.metric = 'val_loss'
  JOIN :newest u ON u.job_id = r.job_id AND u.metric = 'unigram_loss'
  JOIN :newest b ON b.job_id = r.job_id AND b.metric = 'bigram_loss'
 WHERE r.kind = 'pretraining' ORDER BY r.job_id;

\echo 'Distillation: distance to the teacher on held-out text, forward KL in nats per token'
SELECT r.name AS student, k.value AS "KL to teacher", l.value AS "validation loss"
  FROM :run r
  JOIN :newest k ON k.job_id = r.job_id AND k.metric = 'kl_to_teacher'
  JOIN :newest l ON l.job_id = r.job_id AND l.metric = 'val_loss'
 WHERE r.kind = 'distillation' ORDER BY r.job_id;

\echo 'Birds and the rest: loss in nats per token; the reference never saw a bird'
SELECT replace(r.name, 'eval-', '') AS model,
       max(n.value) FILTER (WHERE n.metric = 'forget_loss') AS birds,
       max(n.value) FILTER (WHERE n.metric = 'holdout_loss') AS "unseen birds",
       max(n.value) FILTER (WHERE n.metric = 'retain_loss') AS "the rest",
       max(n.value) FILTER (WHERE n.metric = 'forget_exact_memorisation') AS "birds memorised",
       max(n.value) FILTER (WHERE n.metric = 'mia_auc') AS "membership AUC",
       max(n.value) FILTER (WHERE n.metric = 'reference_mia_auc') AS "AUC of reference"
  FROM :run r JOIN :newest n USING (job_id)
 WHERE r.kind = 'eval'
 GROUP BY r.job_id, r.name ORDER BY r.job_id;

\echo 'Impossible Distillation: sentences about unseen facts, said again by a model. Of these rewrites,'
\echo 'shares that are true and complete (same meaning), that are not said in the same words (other words:'
\echo '1 - ROUGE-L), and that are both (success, with 95 % of bootstrap samples between low and high)'
SELECT CASE stage WHEN 'eval-teacher' THEN 'teacher, which was never shown a rewrite'
                  WHEN 'eval-student' THEN 'student of its filtered samples'
                  ELSE 'the same after a round on its own' END AS model,
       max(value) FILTER (WHERE metric = 'entails') AS "complete",
       max(value) FILTER (WHERE metric = 'entailed') AS "true",
       1 - max(value) FILTER (WHERE metric = 'rouge_l') AS "other words",
       max(value) FILTER (WHERE metric = 'success') AS success,
       max(value) FILTER (WHERE metric = 'success_low') AS low,
       max(value) FILTER (WHERE metric = 'success_high') AS high
  FROM (SELECT split_part(n.metric, '/', 1) AS stage, split_part(n.metric, '/', 2) AS metric,
               n.value
          FROM :run r JOIN :newest n USING (job_id)
         WHERE r.recipe = 'impossible' AND n.metric LIKE 'eval-%/%') AS metrics
 GROUP BY stage
 ORDER BY array_position(ARRAY['eval-teacher', 'eval-student', 'eval-1'], stage);
