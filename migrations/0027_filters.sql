-- What filters made of the documents of a dataset, as its card tells (recipes data/dolma, data/yi).
-- programs from 0026
--
-- Cards are told by jobs and may have any shape: what is not of the expected one gives no row, or
-- NULL, and never an error.

CREATE VIEW athanor.dataset_filters AS
SELECT d.name AS dataset, d.artifact_id, d.job_id, f ->> 'name' AS filter,
       CASE jsonb_typeof(f -> 'documents') WHEN 'number' THEN (f ->> 'documents')::numeric END AS documents,
       CASE jsonb_typeof(f -> 'bytes') WHEN 'number' THEN (f ->> 'bytes')::numeric END AS bytes,
       f ->> 'rule' AS rule
  FROM athanor.datasets d, LATERAL jsonb_path_query(d.meta, 'lax $.web.filters[*]') AS f;
COMMENT ON VIEW athanor.dataset_filters IS
    'Documents that each filter dropped on the way to a dataset, and those it kept.';
COMMENT ON COLUMN athanor.dataset_filters.dataset IS 'name of the dataset';
COMMENT ON COLUMN athanor.dataset_filters.artifact_id IS 'number of the artifact';
COMMENT ON COLUMN athanor.dataset_filters.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.dataset_filters.filter IS 'filter that decided; kept: none dropped them';
COMMENT ON COLUMN athanor.dataset_filters.documents IS 'number of documents';
COMMENT ON COLUMN athanor.dataset_filters.bytes IS 'bytes of their texts as they were read';
COMMENT ON COLUMN athanor.dataset_filters.rule IS 'what the filter asks, in a sentence';

CREATE VIEW athanor.dataset_drops AS
SELECT d.name AS dataset, d.artifact_id, d.job_id, s ->> 'filter' AS filter, s ->> 'id' AS document,
       s ->> 'where' AS place,
       CASE jsonb_typeof(s -> 'value') WHEN 'number' THEN (s ->> 'value')::numeric END AS value,
       s ->> 'text' AS text
  FROM athanor.datasets d, LATERAL jsonb_path_query(d.meta, 'lax $.web.samples[*]') AS s;
COMMENT ON VIEW athanor.dataset_drops IS 'A few of the documents that each filter dropped, drawn at random.';
COMMENT ON COLUMN athanor.dataset_drops.dataset IS 'name of the dataset';
COMMENT ON COLUMN athanor.dataset_drops.artifact_id IS 'number of the artifact';
COMMENT ON COLUMN athanor.dataset_drops.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.dataset_drops.filter IS 'filter that dropped it';
COMMENT ON COLUMN athanor.dataset_drops.document IS 'its id';
COMMENT ON COLUMN athanor.dataset_drops.place IS 'file and line it was read from';
COMMENT ON COLUMN athanor.dataset_drops.value IS 'what the filter measured; NULL where it only says yes or no';
COMMENT ON COLUMN athanor.dataset_drops.text IS 'the beginning of its text';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
