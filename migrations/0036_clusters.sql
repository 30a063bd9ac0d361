-- 0036_clusters.sql - groups of alike documents of a dataset, as its card tells (stage cluster of the
-- recipes data/dolma and data/yi).
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

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
