-- A run on several workers has started when its first one has, while others still fetch: what is
-- told until its end counts. Nothing else can be fetched meanwhile, for a copy in use stays.
-- programs from 0031

CREATE OR REPLACE VIEW athanor.reads AS
SELECT r.attempt_id, t.job_id, j.name, r.input, r.ref, encode(r.content_hash, 'hex') AS content_hash,
       r.size_bytes, w.name AS worker, m.name AS made_on, c.source AS fetched_from,
       c.size_bytes AS fetched_bytes, c.fetched_at,
       ARRAY(SELECT h.name FROM athanor.copy k JOIN athanor.worker h USING (worker_id)
              WHERE k.content_hash = r.content_hash AND k.removed_at IS NULL
              ORDER BY h.name) AS copies_on
  FROM (SELECT a.attempt_id, 'resume' AS input, 'step ' || k.step AS ref, k.content_hash,
               k.size_bytes, k.worker_id AS made_id
          FROM athanor.attempt a JOIN athanor.checkpoint k ON k.checkpoint_id = a.resume_checkpoint_id
        UNION ALL
        SELECT l.attempt_id, l.input, l.ref, l.content_hash, coalesce(k.size_bytes, f.size_bytes),
               coalesce(k.worker_id, f.worker_id)
          FROM athanor.lineage l
          LEFT JOIN athanor.checkpoint k ON k.checkpoint_id = l.checkpoint_id
          LEFT JOIN athanor.artifact f ON f.artifact_id = l.artifact_id
         WHERE l.content_hash IS NOT NULL) r
  JOIN athanor.attempt t USING (attempt_id)
  JOIN athanor.job j USING (job_id)
  JOIN LATERAL (SELECT t.worker_id UNION
                SELECT n.worker_id FROM athanor.attempt_node n
                 WHERE n.attempt_id = t.attempt_id) p ON true
  JOIN athanor.worker w ON w.worker_id = p.worker_id
  LEFT JOIN athanor.worker m ON m.worker_id = r.made_id
  LEFT JOIN LATERAL (
        SELECT k.source, k.size_bytes, k.fetched_at FROM athanor.copy k
         WHERE k.worker_id = p.worker_id AND k.content_hash = r.content_hash
           AND k.told_at >= t.placed_at AND k.told_at <= coalesce(t.ended_at, now())
         ORDER BY k.told_at DESC LIMIT 1) c ON true;
