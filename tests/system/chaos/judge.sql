-- judge.sql - what must hold when all is over, from the database and from what clients and programs
-- wrote down (tables made by judge.bash). Each statement adds what breaks its promise to `broken`.

-- ---- every job ends as specified, exactly once ----

INSERT INTO broken SELECT 'each expected job is there once', e.name || ': ' || count(j.job_id)
  FROM expects e LEFT JOIN athanor.jobs j USING (name) GROUP BY e.name HAVING count(j.job_id) <> 1;
INSERT INTO broken SELECT 'no job is there that nobody submitted', j.name
  FROM athanor.jobs j LEFT JOIN expects e USING (name) WHERE e.name IS NULL;
INSERT INTO broken SELECT 'a job that a client was told of is there', a.job_id::text
  FROM accepted a LEFT JOIN athanor.jobs j USING (job_id) WHERE j.job_id IS NULL;
INSERT INTO broken SELECT 'a job that is there was confirmed to its client once', j.name || ': ' || count(a.job_id)
  FROM athanor.jobs j LEFT JOIN accepted a USING (job_id) GROUP BY j.name HAVING count(a.job_id) <> 1;
INSERT INTO broken SELECT 'every accepted job has ended', name || ' is ' || state
  FROM athanor.jobs WHERE ended_at IS NULL OR state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED');
INSERT INTO broken SELECT 'a job ends as its kind says', format('%s (%s): %s, %s', j.name, e.kind, j.state, j.cause)
  FROM expects e JOIN athanor.jobs j USING (name)
 WHERE CASE e.kind WHEN 'fails' THEN (j.state, j.cause) <> ('FAILED', 'exit')
                   WHEN 'cancelled' THEN (j.state, j.cause) <> ('CANCELLED', 'cancelled')
                   WHEN 'asha' THEN (j.state, j.cause) NOT IN (('SUCCEEDED', 'success'), ('CANCELLED', 'pruned'))
                   ELSE (j.state, j.cause) <> ('SUCCEEDED', 'success') END;
INSERT INTO broken SELECT 'the program of a job that succeeded ran to success once, in its last attempt', format('%s: %s', j.name, x.found)
  FROM athanor.jobs j, LATERAL (
       SELECT string_agg(a.cause || coalesce(' ' || (SELECT count(*) FROM ran r WHERE r.name = j.name AND r.attempt_id = a.attempt_id), ''),
                         ', ' ORDER BY a.number) AS found FROM athanor.runs a WHERE a.job_id = j.job_id) x
 WHERE j.state = 'SUCCEEDED' AND j.kind = 'command'
   AND (x.found IS NULL OR x.found !~ '^((exit 0|(shepherd_lost|worker_lost|preempted|peer_failed) [01]), )*success 1$');
INSERT INTO broken SELECT 'who did not succeed did not run to success, but where nobody could hear it', format('%s %s: %s', r.name, r.attempt_id, a.cause)
  FROM ran r LEFT JOIN athanor.runs a USING (attempt_id)
 WHERE a.name IS DISTINCT FROM r.name
    OR a.cause NOT IN ('success', 'shepherd_lost', 'worker_lost', 'preempted', 'pruned');
INSERT INTO broken SELECT 'attempts end for the reasons there were', format('%s (%s): %s', j.name, e.kind, x.causes)
  FROM expects e JOIN athanor.jobs j USING (name), LATERAL (
       SELECT coalesce(string_agg(CASE WHEN a.cause IN ('shepherd_lost', 'worker_lost') THEN 'lost' ELSE a.cause END, ' ' ORDER BY a.number), '') AS causes
         FROM athanor.runs a WHERE a.job_id = j.job_id) x
 WHERE x.causes !~ CASE e.kind
       WHEN 'fails' THEN '^(lost )*exit$'
       WHEN 'again' THEN '^(lost )*(exit (lost )*success|(lost )+success)$'
       WHEN 'cancelled' THEN '^((lost|launch_failed) ?)*(cancelled)?$'
       WHEN 'asha' THEN '^(lost )*(success|pruned|lost)?$'
       WHEN 'first' THEN '^((lost|preempted) )*success$'
       WHEN 'saver' THEN '^((lost|preempted) )*success$'
       WHEN 'train' THEN '^((lost|preempted|stale_checkpoint) )*success$'
       ELSE '^(lost )*success$' END;
INSERT INTO broken SELECT 'attempts are lost only where hosts lost power', 'attempt ' || a.attempt_id || ' of ' || a.name
  FROM athanor.runs a, facts f WHERE a.cause IN ('shepherd_lost', 'worker_lost') AND f.power = 0;
INSERT INTO broken SELECT 'failing jobs say how', a.name || ': ' || coalesce(a.code, -1)
  FROM athanor.runs a JOIN expects e USING (name) WHERE e.kind = 'fails' AND a.cause = 'exit' AND a.code IS DISTINCT FROM 3;

-- ---- SQL agrees with what clients saw and with itself ----

INSERT INTO broken SELECT 'waiting told clients what is in SQL', format('%s: %s, job %s %s', s.kind, s.status, j.job_id, j.state)
  FROM saw s JOIN athanor.jobs j USING (job_id)
 WHERE (s.kind, s.status) NOT IN (('good', 0), ('bad', 1)) OR (s.kind = 'good') <> (j.state = 'SUCCEEDED');
INSERT INTO broken SELECT 'attempts are numbered without a gap', format('%s: %s of %s', j.name, count(a.attempt_id), j.attempt_count)
  FROM athanor.jobs j LEFT JOIN athanor.runs a USING (job_id) GROUP BY j.job_id, j.name, j.attempt_count
HAVING count(a.attempt_id) <> j.attempt_count OR coalesce(max(a.number), 0) <> j.attempt_count;
INSERT INTO broken SELECT 'an attempt ends after it begins, with a cause', a.attempt_id::text
  FROM athanor.runs a WHERE a.ended_at IS NULL OR a.cause IS NULL OR a.state <> 'ENDED' OR a.ended_at < a.placed_at OR a.started_at < a.placed_at;
INSERT INTO broken SELECT 'the nodes of an attempt end with it', n.attempt_id || ' node ' || n.node
  FROM athanor.attempt_node n JOIN athanor.attempt a USING (attempt_id) WHERE n.ended_at IS NULL OR n.ended_at > a.ended_at;
INSERT INTO broken SELECT 'output is stored once and whole', format('%s: %s', j.name, x.text)
  FROM expects e JOIN athanor.jobs j USING (name), LATERAL (
       SELECT string_agg(l.text, '' ORDER BY l.seq) AS text FROM athanor.logs l JOIN athanor.runs a USING (attempt_id)
        WHERE l.job_id = j.job_id AND a.cause = 'success') x
 WHERE e.kind IN ('plain', 'twice') AND x.text IS DISTINCT FROM 'said ' || j.name || E'\n';
INSERT INTO broken SELECT 'reported points are stored once and all of them', format('%s: %s of %s', a.name, count(m.step), count(DISTINCT m.step))
  FROM athanor.runs a JOIN expects e USING (name) LEFT JOIN athanor.metrics m ON m.attempt_id = a.attempt_id AND m.name = 'loss'
 WHERE e.kind = 'reports' AND a.cause = 'success' GROUP BY a.attempt_id, a.name HAVING count(m.step) <> 10 OR count(DISTINCT m.step) <> 10;
INSERT INTO broken SELECT 'a point or a line is stored once', format('attempt %s node %s sequence %s', attempt_id, node, seq)
  FROM (SELECT attempt_id, node, seq, name, rank FROM athanor.metrics GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1) x;

-- ---- placement ----

INSERT INTO broken SELECT 'no job has two live attempts', format('job %s: %s and %s', a.job_id, a.attempt_id, b.attempt_id)
  FROM athanor.attempt a JOIN athanor.attempt b ON b.job_id = a.job_id AND b.number > a.number AND b.placed_at < a.ended_at;
INSERT INTO broken SELECT 'no node is overbooked at any moment', format('worker %s at %s: %s cores, %s bytes', h.worker_id, h.from_at, sum(o.cores), sum(o.memory_bytes))
  FROM held h JOIN held o ON o.worker_id = h.worker_id AND o.from_at <= h.from_at AND o.until_at > h.from_at
  JOIN athanor.worker w ON w.worker_id = h.worker_id
 GROUP BY h.worker_id, h.attempt_id, h.from_at, w.cores, w.memory_bytes
HAVING sum(o.cores) > w.cores OR sum(o.memory_bytes) > w.memory_bytes;
INSERT INTO broken SELECT 'no more of an array or sweep run than it allows', format('job %s at %s: %s', h.job_id, h.from_at, count(*))
  FROM held h JOIN grouped g ON g.job_id = h.job_id
  JOIN grouped f ON f.group_name = g.group_name JOIN held o ON o.job_id = f.job_id AND o.from_at <= h.from_at AND o.until_at > h.from_at
 GROUP BY h.job_id, h.from_at, g.at_once HAVING count(*) > g.at_once;
INSERT INTO broken SELECT 'a gang is placed whole, on different workers', format('%s: %s ranks on %s', j.name, sum(n.ranks), count(DISTINCT n.worker_id))
  FROM athanor.attempt a JOIN athanor.job j USING (job_id) JOIN athanor.attempt_node n USING (attempt_id)
 GROUP BY a.attempt_id, j.name, j.ranks HAVING sum(n.ranks) <> j.ranks OR count(DISTINCT n.worker_id) <> count(*);
INSERT INTO broken SELECT 'who needs another starts after it has succeeded', format('%s after %s', c.name, p.name)
  FROM athanor.job_dependency d JOIN athanor.jobs p ON p.job_id = d.parent_id JOIN athanor.jobs c ON c.job_id = d.job_id
  JOIN athanor.runs a ON a.job_id = c.job_id WHERE a.placed_at < p.ended_at OR p.state <> 'SUCCEEDED';
INSERT INTO broken SELECT 'epochs of attempts grow with them', a.attempt_id::text
  FROM (SELECT attempt_id, epoch, max(epoch) OVER (ORDER BY attempt_id) AS newest FROM athanor.attempt) a WHERE a.epoch < a.newest;

-- ---- making room, checkpoints ----

INSERT INTO broken SELECT 'somebody had to make room', format('%s times, expected %s', count(*), max(f.preempted))
  FROM facts f LEFT JOIN athanor.runs a ON a.cause = 'preempted' GROUP BY f.preempted HAVING count(a.attempt_id) < f.preempted;
INSERT INTO broken SELECT 'only jobs of evictable queues make room', a.name
  FROM athanor.runs a JOIN athanor.jobs j USING (job_id) WHERE a.cause = 'preempted' AND j.queue <> 'low';
INSERT INTO broken SELECT 'an attempt resumes from its job''s checkpoint that was there', a.attempt_id::text
  FROM athanor.attempt a LEFT JOIN athanor.checkpoint c ON c.checkpoint_id = a.resume_checkpoint_id
 WHERE a.resume_checkpoint_id <> 0 AND (c.job_id IS DISTINCT FROM a.job_id OR c.saved_at > a.placed_at OR c.removed_at < a.placed_at);
INSERT INTO broken SELECT 'programs find the checkpoint that SQL names', format('%s attempt %s: %s, in SQL %s', r.name, r.attempt_id, r.step, a.resume_step)
  FROM resumed r LEFT JOIN athanor.runs a USING (attempt_id) WHERE a.attempt_id IS NULL OR coalesce(a.resume_step, 0) <> r.step;
INSERT INTO broken SELECT 'an attempt begins once', r.attempt_id::text FROM resumed r GROUP BY r.attempt_id HAVING count(*) > 1;
INSERT INTO broken SELECT 'who made room goes on from a checkpoint', format('%s attempt %s', b.name, b.attempt_id)
  FROM athanor.runs a JOIN athanor.runs b ON b.job_id = a.job_id AND b.number > a.number
 WHERE b.resume_step IS NULL AND EXISTS (SELECT 1 FROM athanor.checkpoints c WHERE c.attempt_id = a.attempt_id AND c.saved_at < b.placed_at);
INSERT INTO broken SELECT 'a series has every step', format('%s: %s of %s', j.name, count(DISTINCT s.step), max(s.step))
  FROM athanor.jobs j JOIN expects e USING (name) LEFT JOIN athanor.series s ON s.job_id = j.job_id AND s.name = CASE e.kind WHEN 'train' THEN 'loss' ELSE 'done' END AND s.rank = 0
 WHERE e.kind IN ('first', 'saver') OR j.name IN ('train-one', 'train-two')
 GROUP BY j.job_id, j.name HAVING count(s.step) = 0 OR count(DISTINCT s.step) <> max(s.step);
INSERT INTO broken SELECT 'a training gives the same numbers, whatever happened to it', 'step ' || a.step
  FROM athanor.series a JOIN athanor.jobs j ON j.job_id = a.job_id AND j.name = 'train-one'
  JOIN athanor.jobs k ON k.name = 'train-two' LEFT JOIN athanor.series b ON b.job_id = k.job_id AND b.name = a.name AND b.rank = a.rank AND b.step = a.step
 WHERE a.name = 'loss' AND a.rank = 0 AND b.value IS DISTINCT FROM a.value;

-- ---- sweeps ----

INSERT INTO broken SELECT 'a sweep accounts for all its trials', format('%s: %s trials, %s succeeded, %s pruned', name, trials, succeeded, pruned)
  FROM athanor.sweeps WHERE live + failed + cancelled > 0 OR succeeded + pruned <> trials OR ended_at IS NULL OR (method = 'grid' AND pruned > 0);
INSERT INTO broken SELECT 'a sweep finds its best', format('%s: %s', name, best_setting)
  FROM athanor.sweeps WHERE name LIKE 'sweep-%' AND (best_setting IS DISTINCT FROM 'env.LOSS=1' OR best_value IS DISTINCT FROM 1);
INSERT INTO broken SELECT 'a trial that was stopped fell behind, one that went on did not', format('%s trial %s rung %s', r.sweep, r.trial, r.rung)
  FROM athanor.rungs r JOIN athanor.sweeps s USING (sweep_id), LATERAL (
       SELECT count(*) AS seen, count(*) FILTER (WHERE (o.value, o.trial) < (r.value, r.trial)) AS ahead,
              count(*) FILTER (WHERE o.at = r.at AND o.trial <> r.trial) AS unclear
         FROM athanor.rungs o WHERE o.sweep_id = r.sweep_id AND o.rung = r.rung AND o.at <= r.at) x
 WHERE x.unclear = 0 AND r.kept <> (x.ahead < greatest(x.seen / s.reduction, 1));
INSERT INTO broken SELECT 'a trial is judged at the rungs that it reached', format('%s trial %s', t.sweep, t.trial)
  FROM athanor.trials t JOIN athanor.sweeps s USING (sweep_id) LEFT JOIN athanor.rungs r ON r.sweep_id = t.sweep_id AND r.trial = t.trial
 WHERE s.method = 'asha' GROUP BY t.sweep, t.trial, t.rung, t.state, t.cause
HAVING count(r.rung) <> t.rung OR count(*) FILTER (WHERE NOT r.kept) > 1 OR (t.cause = 'pruned' AND bool_and(r.kept))
    OR (t.cause = 'success' AND count(r.rung) < 3 AND bool_and(r.kept)); -- it may end before the stop reaches it
INSERT INTO broken SELECT 'who was stopped at a rung is judged at no other', format('%s trial %s rung %s', r.sweep, r.trial, b.rung)
  FROM athanor.rungs r JOIN athanor.rungs b ON b.sweep_id = r.sweep_id AND b.trial = r.trial AND b.rung > r.rung WHERE NOT r.kept;

-- ---- the ledger, history ----

INSERT INTO broken SELECT 'the classes of the ledger add up to the time held', attempt_id::text FROM ledger
 WHERE held_s <> launching_s + useful_s + checkpointing_s + recomputed_s + abandoned_s + idle_s
    OR least(queued_s, launching_s, useful_s, checkpointing_s, recomputed_s, abandoned_s, idle_s) < 0;
INSERT INTO broken SELECT 'the ledger holds what attempts held', coalesce(l.attempt_id, h.attempt_id)::text
  FROM ledger l FULL JOIN held h ON h.attempt_id = l.attempt_id AND h.node = l.node
 WHERE l.attempt_id IS NULL OR h.attempt_id IS NULL OR l.cores <> h.cores OR l.held_s <> extract(epoch FROM h.until_at - h.from_at);
INSERT INTO broken SELECT 'the sums are those of the ledger', x.what || ': ' || x.hours
  FROM (SELECT 'jobs' AS what, sum(core_hours) AS hours FROM athanor.usage_of_jobs
        UNION ALL SELECT 'workers', sum(core_hours) FROM athanor.usage_of_workers) x
 WHERE round(x.hours, 12) IS DISTINCT FROM (SELECT round(sum(held_s * cores) / 3600, 12) FROM ledger);
INSERT INTO broken SELECT 'one leads and two stand by', string_agg(state, ' ' ORDER BY state)
  FROM athanor.coordinators WHERE state <> 'silent' HAVING string_agg(state, ' ' ORDER BY state) IS DISTINCT FROM 'leader standby standby';
