-- What a pair was sampled after, and which filters judged it, beside what made it.
-- programs from 0029
--
-- Of a dataset's contexts SQL has the texts of those whose pairs its card shows: 10 kept pairs and 3
-- of each of 10 reasons to drop one. The others, 50 MB of 170,000 contexts, are in the blocks.

CREATE OR REPLACE VIEW athanor.dropped_pairs AS
SELECT d.artifact_id, d.name, d.newest, concat_ws('.', e.item ->> 'context', e.item ->> 'x_sample',
       e.item ->> 'y_sample') AS pair, e.item ->> 'x' AS x, e.item ->> 'y' AS y,
       e.item ->> 'dropped' AS verdict,
       (SELECT k ->> 'text' FROM jsonb_array_elements(athanor.card_list(d.card, 'critics')) AS k
         WHERE k ->> 'verdict' = e.item ->> 'dropped' LIMIT 1) AS why,
       d.card #>> ARRAY['texts', e.item ->> 'context'] AS context_text
  FROM athanor.dataset_cards d
 CROSS JOIN LATERAL jsonb_array_elements(athanor.card_list(d.card, 'dropped')) AS e(item);
COMMENT ON VIEW athanor.dropped_pairs IS
    'Examples of pairs that were dropped, and why: at most 3 of each of 10 reasons, so 30 rows a '
    'dataset, whose pool may be 1.7 thousand million pairs; athanor dataset NAME --pair tells it of '
    'any pair, from the dataset''s blocks.';
COMMENT ON COLUMN athanor.dropped_pairs.context_text IS
    'text that both were sampled after; NULL where the card had no room for it';

-- The examples of a card, as pair_lineage looks them up.
CREATE FUNCTION athanor.card_pair(card jsonb, pair text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT e.item || jsonb_build_object('verdict', coalesce(e.item ->> 'dropped', 'kept'))
      FROM (SELECT jsonb_array_elements(athanor.card_list(card, 'kept')) AS item
            UNION ALL SELECT jsonb_array_elements(athanor.card_list(card, 'dropped'))) AS e
     WHERE pair = coalesce(e.item ->> 'id', concat_ws('.', e.item ->> 'context',
                                                      e.item ->> 'x_sample', e.item ->> 'y_sample'))
     LIMIT 1
$$;
COMMENT ON FUNCTION athanor.card_pair IS
    'What the card of a dataset says of a pair CONTEXT.X.Y; NULL where it is none of its examples.';

DROP FUNCTION athanor.pair_lineage(text, text);
CREATE FUNCTION athanor.pair_lineage(dataset text, pair text)
RETURNS TABLE (artifact_id bigint, context bigint, x_sample bigint, y_sample bigint, context_source text,
               teacher text, teacher_hash text, teacher_checkpoint_id bigint, student text,
               student_hash text, seed bigint, temperature double precision, top_p double precision,
               block text, line bigint, context_text text, x text, y text, verdict text, why text,
               critic text, filters jsonb)
LANGUAGE sql STABLE STRICT AS $$
    SELECT d.artifact_id, p.context, p.x, p.y, d.context_source, d.teacher, d.teacher_hash,
           d.teacher_checkpoint_id, d.student, d.student_hash, d.seed, d.temperature, d.top_p,
           format('%s/block-%s.jsonl', d.blocks,
                  lpad(((p.context - d.first_context) / d.block_contexts)::text, 6, '0')),
           (p.context - d.first_context) % d.block_contexts + 2,
           d.card #>> ARRAY['texts', p.context::text], e.item ->> 'x', e.item ->> 'y',
           e.item ->> 'verdict',
           (SELECT k ->> 'text' FROM jsonb_array_elements(athanor.card_list(d.card, 'critics')) AS k
             WHERE k ->> 'verdict' = e.item ->> 'verdict' LIMIT 1),
           d.critic, d.card -> 'filters'
      FROM athanor.dataset_cards d
     CROSS JOIN (SELECT m[1]::bigint AS context, m[2]::bigint AS x, m[3]::bigint AS y
                   FROM regexp_matches(pair, '^(\d{1,15})\.(\d{1,6})\.(\d{1,6})$') AS m) AS p
     CROSS JOIN LATERAL (SELECT athanor.card_pair(d.card, concat_ws('.', p.context, p.x, p.y)) AS item) AS e
     WHERE d.name = dataset AND d.newest AND d.block_contexts > 0 AND p.context >= d.first_context
$$;
COMMENT ON FUNCTION athanor.pair_lineage IS
    'What made a pair CONTEXT.X.Y of the newest dataset of a name: the numbers of its context and '
    'samples, which with the seed give its draws, the models, the critic and the filters with their '
    'thresholds, and the file and line where its texts and its verdict are written. context_text, x, '
    'y, verdict and why are NULL but for the card''s examples (10 kept pairs, 3 of each reason).';

REVOKE EXECUTE ON FUNCTION athanor.card_pair(jsonb, text), athanor.pair_lineage(text, text) FROM PUBLIC;
-- Views and functions call functions with the rights of who reads.
CREATE OR REPLACE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text),
        athanor.sweep_find(text), athanor.params_text(jsonb), athanor.card_number(jsonb, text),
        athanor.card_list(jsonb, text), athanor.pair_lineage(text, text), athanor.order_read(text),
        athanor.mix64(bigint), athanor.order_item(numeric, bigint, bigint),
        athanor.step_items(bigint, bigint), athanor.block_read(text),
        athanor.card_pair(jsonb, text) TO athanor_reader;
    FOR view IN SELECT relname FROM pg_class
                 WHERE relnamespace = 'athanor'::regnamespace AND relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON athanor.%I TO athanor_reader', view);
    END LOOP;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'athanor_reader') THEN
        PERFORM athanor.reader_grant();
    END IF;
END $$;
