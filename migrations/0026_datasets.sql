-- Datasets of pairs (data/pairs, distillation/impossible): their cards as views.
-- programs from 0025
--
-- What is in SQL and what is in files. A dataset of 400,000 pairs may come from 170,000 contexts of
-- 100 samples, so from 1.7 thousand million judged pairs: rows of even 40 bytes would be 68 GB. SQL
-- has the card (at most 64 KiB: counts by reason and length of context, examples of each reason,
-- lineage); every pair's own verdict is a letter in a block file. A pair's name, CONTEXT.X.Y,
-- is its lineage: numbers of its context and of its two samples, from which the seed makes it again.

CREATE FUNCTION athanor.card_number(card jsonb, key text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(card -> key) = 'number' THEN (card ->> key)::numeric END
$$;
COMMENT ON FUNCTION athanor.card_number IS 'A number of a JSON object; NULL where it has none.';
CREATE FUNCTION athanor.card_list(card jsonb, key text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(card -> key) = 'array' THEN card -> key ELSE '[]' END
$$;
COMMENT ON FUNCTION athanor.card_list IS 'A list of a JSON object; an empty one where it has none.';

CREATE VIEW athanor.dataset_cards AS
SELECT a.artifact_id, a.name, a.newest, a.job_id, j.name AS job, d.card ->> 'task' AS task,
       d.card ->> 'critic' AS critic, athanor.card_number(d.card, 'pairs')::bigint AS pairs,
       athanor.card_number(d.card, 'held_out')::bigint AS held_out,
       athanor.card_number(d.card, 'duplicates')::bigint AS duplicates,
       athanor.card_number(d.card, 'contexts')::bigint AS contexts,
       athanor.card_number(d.card, 'temperature')::double precision AS temperature,
       athanor.card_number(d.card, 'top_p')::double precision AS top_p,
       athanor.card_number(d.card, 'tau')::double precision AS tau,
       d.card -> 'diversity' AS diversity,
       d.card #>> '{lineage,teacher,ref}' AS teacher, d.card #>> '{lineage,teacher,hash}' AS teacher_hash,
       (SELECT max(c.checkpoint_id) FROM athanor.checkpoint c
         WHERE encode(c.content_hash, 'hex') = d.card #>> '{lineage,teacher,hash}') AS teacher_checkpoint_id,
       d.card #>> '{lineage,student,ref}' AS student, d.card #>> '{lineage,student,hash}' AS student_hash,
       coalesce(d.card #>> '{lineage,contexts,ref}', d.card #>> '{lineage,prefixes,ref}', 'teacher')
           AS context_source,
       athanor.card_number(d.card -> 'lineage', 'seed')::bigint AS seed,
       d.card #>> '{blocks,folder}' AS blocks,
       athanor.card_number(d.card -> 'blocks', 'contexts')::bigint AS block_contexts,
       athanor.card_number(d.card -> 'blocks', 'first')::bigint AS first_context,
       a.content_hash, a.size_bytes, a.path, a.worker, a.created_at, a.removed_at, d.card
  FROM athanor.artifacts a
  JOIN athanor.job j ON j.job_id = a.job_id
 CROSS JOIN LATERAL (SELECT a.meta -> 'pairs' AS card) AS d
 WHERE a.kind = 'dataset' AND jsonb_typeof(d.card) = 'object';
COMMENT ON VIEW athanor.dataset_cards IS 'Datasets of sentence pairs: what they hold and what made them.';

CREATE VIEW athanor.dataset_yields AS
SELECT y.artifact_id, y.name, y.newest, y.critic, y.temperature, y.context_sentences, y.contexts, y.place,
       y.verdict, y.pairs, (sum(y.pairs) OVER w)::bigint AS asked,
       y.pairs::double precision / nullif(sum(y.pairs) OVER w, 0) AS share, y.why
  FROM (SELECT d.artifact_id, d.name, d.newest, d.critic, d.temperature,
               athanor.card_number(l.item, 'sentences')::integer AS context_sentences,
               athanor.card_number(l.item, 'contexts')::bigint AS contexts, k.place::integer AS place,
               k.item ->> 'verdict' AS verdict, k.item ->> 'text' AS why,
               coalesce(athanor.card_number(l.item -> 'verdicts', k.item ->> 'verdict'), 0)::bigint AS pairs
          FROM athanor.dataset_cards d
         CROSS JOIN LATERAL jsonb_array_elements(athanor.card_list(d.card, 'by_context_length')) AS l(item)
         CROSS JOIN LATERAL jsonb_array_elements(athanor.card_list(d.card, 'critics'))
                    WITH ORDINALITY AS k(item, place)) AS y
WINDOW w AS (PARTITION BY y.artifact_id, y.context_sentences ORDER BY y.place DESC);
COMMENT ON VIEW athanor.dataset_yields IS
    'What became of the pairs of a dataset''s pool, by sentences of their context and by reason, in the '
    'order in which reasons are asked; add pairs and asked over lengths for the yield of a critic.';

CREATE VIEW athanor.dropped_pairs AS
SELECT d.artifact_id, d.name, d.newest, concat_ws('.', e.item ->> 'context', e.item ->> 'x_sample',
       e.item ->> 'y_sample') AS pair, e.item ->> 'x' AS x, e.item ->> 'y' AS y,
       e.item ->> 'dropped' AS verdict,
       (SELECT k ->> 'text' FROM jsonb_array_elements(athanor.card_list(d.card, 'critics')) AS k
         WHERE k ->> 'verdict' = e.item ->> 'dropped' LIMIT 1) AS why
  FROM athanor.dataset_cards d
 CROSS JOIN LATERAL jsonb_array_elements(athanor.card_list(d.card, 'dropped')) AS e(item);
COMMENT ON VIEW athanor.dropped_pairs IS
    'Examples of pairs that were dropped, and why; athanor dataset NAME --pair tells it of any pair.';

CREATE FUNCTION athanor.pair_lineage(dataset text, pair text)
RETURNS TABLE (artifact_id bigint, context bigint, x_sample bigint, y_sample bigint, context_source text,
               teacher text, teacher_hash text, teacher_checkpoint_id bigint, student text,
               student_hash text, seed bigint, temperature double precision, top_p double precision,
               block text, line bigint)
LANGUAGE sql STABLE STRICT AS $$
    SELECT d.artifact_id, p.context, p.x, p.y, d.context_source, d.teacher, d.teacher_hash,
           d.teacher_checkpoint_id, d.student, d.student_hash, d.seed, d.temperature, d.top_p,
           format('%s/block-%s.jsonl', d.blocks,
                  lpad(((p.context - d.first_context) / d.block_contexts)::text, 6, '0')),
           (p.context - d.first_context) % d.block_contexts + 2
      FROM athanor.dataset_cards d
     CROSS JOIN (SELECT m[1]::bigint AS context, m[2]::bigint AS x, m[3]::bigint AS y
                   FROM regexp_matches(pair, '^(\d{1,15})\.(\d{1,6})\.(\d{1,6})$') AS m) AS p
     WHERE d.name = dataset AND d.newest AND d.block_contexts > 0 AND p.context >= d.first_context
$$;
COMMENT ON FUNCTION athanor.pair_lineage IS
    'What made a pair CONTEXT.X.Y of the newest dataset of a name: the numbers of its context and '
    'samples, which with the seed give its draws, the models, and where its verdict is written.';

DO $$
DECLARE
    help jsonb := '{
        "artifact_id": "number of the artifact", "name": "name of the dataset",
        "newest": "whether it is what dataset:NAME stands for", "job_id": "number of the job that made it",
        "job": "name of that job", "task": "paraphrase or summarize",
        "critic": "who judged entailment",
        "pairs": "pairs in the dataset; in yields: pairs of the pool that this became of",
        "held_out": "those in the part valid", "duplicates": "accepted pairs that an earlier one equals",
        "contexts": "contexts that were sampled after",
        "temperature": "of the samples", "top_p": "mass of the tokens they were drawn from",
        "tau": "least score of an entailment", "diversity": "distinct n-grams and self-BLEU of the targets",
        "teacher": "model that wrote contexts and samples, as in the spec",
        "teacher_hash": "hash of its checkpoint",
        "teacher_checkpoint_id": "number of that checkpoint; NULL when it is none of ours",
        "student": "model that rewrote; NULL in the first round", "student_hash": "hash of its checkpoint",
        "context_source": "dataset or file of the contexts; teacher: it wrote them",
        "seed": "of every draw", "blocks": "folder of the files with every sample and verdict",
        "block_contexts": "contexts of such a file", "first_context": "number of the first context",
        "content_hash": "BLAKE2b-256 of its dataset.json, in hex", "size_bytes": "size of all files",
        "path": "where it lies", "worker": "worker whose disk it was made on", "created_at": "when",
        "removed_at": "when retention removed the files", "card": "all that the job told about it",
        "context_sentences": "sentences of the contexts", "place": "which reason is asked first",
        "verdict": "what became of a pair", "asked": "pairs that no earlier reason had dropped",
        "share": "pairs for one that was asked", "why": "the verdict in a sentence",
        "pair": "CONTEXT.X.Y: numbers of its context and samples", "x": "source", "y": "target"}';
    col record;
BEGIN
    FOR col IN SELECT c.relname AS view, a.attname AS name
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relnamespace = 'athanor'::regnamespace AND a.attnum > 0
                  AND c.relname IN ('dataset_cards', 'dataset_yields', 'dropped_pairs')
    LOOP
        IF help ->> col.name IS NULL THEN
            RAISE EXCEPTION 'column %.% has no explanation', col.view, col.name;
        END IF;
        EXECUTE format('COMMENT ON COLUMN athanor.%I.%I IS %L', col.view, col.name, help ->> col.name);
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION athanor.card_number(jsonb, text), athanor.card_list(jsonb, text),
    athanor.pair_lineage(text, text) FROM PUBLIC;
-- Views call functions with the rights of who reads.
CREATE OR REPLACE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text),
        athanor.sweep_find(text), athanor.params_text(jsonb), athanor.card_number(jsonb, text),
        athanor.card_list(jsonb, text), athanor.pair_lineage(text, text) TO athanor_reader;
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
