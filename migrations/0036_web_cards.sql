-- 0036_web_cards.sql - groups of alike documents of a dataset, and the limits that were drawn from its
-- documents, as its card tells (recipes data/dolma and data/yi).
-- programs from 0029
--
-- Cards are told by jobs and may have any shape: what is not of the expected one gives no row, or
-- NULL, and never an error. A card has as many clusters as fit into 16 KiB, the worst first; all are
-- in web/clusters.jsonl of the job.

CREATE VIEW athanor.dataset_clusters AS
SELECT d.name AS dataset, d.artifact_id, d.job_id, athanor.card_number(c, 'cluster') AS cluster,
       athanor.card_number(c, 'documents') AS documents, athanor.card_number(c, 'words') AS words,
       athanor.card_number(c, 'label') AS quality, athanor.card_number(c, 'rate') AS kept,
       (SELECT string_agg(s ->> 'text', E'\n' ORDER BY place)
          FROM jsonb_array_elements(athanor.card_list(c, 'samples')) WITH ORDINALITY AS e(s, place))
           AS samples
  FROM athanor.datasets d, LATERAL jsonb_path_query(d.meta, 'lax $.web.clusters[*]') AS c
 WHERE athanor.card_number(c, 'cluster') BETWEEN 0 AND 1e9
   AND coalesce(athanor.card_number(c, 'documents'), 0) BETWEEN 0 AND 1e18
   AND coalesce(athanor.card_number(c, 'words'), 0) BETWEEN 0 AND 1e18;
COMMENT ON VIEW athanor.dataset_clusters IS
    'Groups of alike documents of a dataset: how many, how good, and what share of each was kept.';
COMMENT ON COLUMN athanor.dataset_clusters.dataset IS 'name of the dataset';
COMMENT ON COLUMN athanor.dataset_clusters.artifact_id IS 'number of the artifact';
COMMENT ON COLUMN athanor.dataset_clusters.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.dataset_clusters.cluster IS
    'number of the cluster, by size from 0: what cluster_keep names';
COMMENT ON COLUMN athanor.dataset_clusters.documents IS 'documents in it, before any of them was left out';
COMMENT ON COLUMN athanor.dataset_clusters.words IS 'words of these documents';
COMMENT ON COLUMN athanor.dataset_clusters.quality IS
    'mean p of the classifier quality over its documents; NULL where the job had none';
COMMENT ON COLUMN athanor.dataset_clusters.kept IS
    'share of its documents that the job kept: 0 none, 1 all';
COMMENT ON COLUMN athanor.dataset_clusters.samples IS 'the beginnings of a few of its documents, a line each';

CREATE VIEW athanor.dataset_limits AS
SELECT d.name AS dataset, d.artifact_id, d.job_id, l ->> 'language' AS language, m.key AS measure,
       CASE jsonb_typeof(m.value -> 0) WHEN 'number' THEN (m.value ->> 0)::numeric END AS low,
       CASE jsonb_typeof(m.value -> 1) WHEN 'number' THEN (m.value ->> 1)::numeric END AS high,
       athanor.card_number(l, 'documents') AS documents, l -> 'drawn' = 'true' AS drawn
  FROM athanor.datasets d
 CROSS JOIN LATERAL jsonb_path_query(d.meta, 'lax $.web.limits.languages[*]') AS l
 CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(l -> 'measures') WHEN 'object' THEN l -> 'measures'
                                                                  ELSE '{}' END) AS m
 WHERE jsonb_typeof(m.value) = 'array';
COMMENT ON VIEW athanor.dataset_limits IS
    'Limits of the rules that were drawn from a sample of the documents (rules_mode: quantile), to be '
    'looked at and pinned.';
COMMENT ON COLUMN athanor.dataset_limits.dataset IS 'name of the dataset';
COMMENT ON COLUMN athanor.dataset_limits.artifact_id IS 'number of the artifact';
COMMENT ON COLUMN athanor.dataset_limits.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.dataset_limits.language IS
    'label of the classifier langid; empty where the job had none';
COMMENT ON COLUMN athanor.dataset_limits.measure IS 'measure of the Gopher rules';
COMMENT ON COLUMN athanor.dataset_limits.low IS 'documents below were dropped; NULL: no limit';
COMMENT ON COLUMN athanor.dataset_limits.high IS 'documents above were dropped; NULL: no limit';
COMMENT ON COLUMN athanor.dataset_limits.documents IS 'documents of the language in the sample';
COMMENT ON COLUMN athanor.dataset_limits.drawn IS
    'true: from the sample; false: as published, because these were too few';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
