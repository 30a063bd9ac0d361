-- 0035_order.sql - in which order a training saw its data: from (seed, step) to documents, in SQL.
--
-- Trainings tell it at their start (worker/recipes/order.h) as an event. Jobs of any kind may send
-- events of any text: what is not of the expected shape gives no row, and never an error. What the
-- input itself was is in athanor.lineages, by its hash.
-- programs from 0029

CREATE FUNCTION athanor.order_read(detail text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    o jsonb;
BEGIN
    BEGIN
        o := detail::jsonb;
    EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
    END;
    IF coalesce(o ->> 'unit', '') IN ('windows', 'documents') AND
       coalesce(o ->> 'seed', '') ~ '^\d{1,20}$' AND coalesce(o ->> 'batch', '') ~ '^[1-9]\d{0,6}$' AND
       coalesce(o ->> 'items', '') ~ '^[1-9]\d{0,17}$' AND coalesce(o ->> 'context', '') ~ '^\d{1,12}$' AND
       coalesce(o ->> 'skip', '') ~ '^\d{1,11}$' AND (o ->> 'seed')::numeric < 18446744073709551616 THEN
        RETURN o;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION athanor.order_read IS
    'The detail of an event data_order; NULL where it is none.';

CREATE VIEW athanor.data_orders AS
SELECT v.attempt_id, v.job_id, j.name AS job, o ->> 'input' AS input, o ->> 'part' AS part,
       o ->> 'unit' AS unit, (o ->> 'seed')::numeric AS seed, (o ->> 'batch')::bigint AS batch,
       (o ->> 'items')::bigint AS items, (o ->> 'context')::bigint AS context,
       (o ->> 'skip')::bigint AS skip, v.at AS told_at, v.detail AS told
  FROM athanor.job_event v
  JOIN athanor.job j USING (job_id)
 CROSS JOIN LATERAL (SELECT athanor.order_read(v.detail) AS o OFFSET 0) r
 WHERE v.name = 'data_order' AND v.attempt_id IS NOT NULL AND o IS NOT NULL;
COMMENT ON VIEW athanor.data_orders IS
    'In which order each run went through its data: step_items() tells what a step saw, and '
    'athanor-engine documents --order of `told`, where the dataset is, which documents these are.';
COMMENT ON COLUMN athanor.data_orders.attempt_id IS 'number of the run';
COMMENT ON COLUMN athanor.data_orders.job_id IS 'number of the job';
COMMENT ON COLUMN athanor.data_orders.job IS 'name of the job';
COMMENT ON COLUMN athanor.data_orders.input IS 'input of the job, as in athanor.lineages';
COMMENT ON COLUMN athanor.data_orders.part IS 'part of the dataset';
COMMENT ON COLUMN athanor.data_orders.unit IS 'what an item is: a document, or a window of tokens';
COMMENT ON COLUMN athanor.data_orders.seed IS 'of the order';
COMMENT ON COLUMN athanor.data_orders.batch IS 'items of a step, over all ranks';
COMMENT ON COLUMN athanor.data_orders.items IS 'items of an epoch';
COMMENT ON COLUMN athanor.data_orders.context IS 'tokens of a window; 0: documents';
COMMENT ON COLUMN athanor.data_orders.skip IS 'batches left out after divergence, before this run';
COMMENT ON COLUMN athanor.data_orders.told_at IS 'when the run began to train';
COMMENT ON COLUMN athanor.data_orders.told IS 'all of it, as athanor-engine documents takes it';

-- splitmix64 (Steele et al. 2014) and the six rounds of Feistel of worker/engine/data/sampler.c, on
-- 64-bit numbers without overflow: bits in bigint, products in numeric.
CREATE FUNCTION athanor.mix64(x bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    modulus CONSTANT numeric := 18446744073709551616;
    n numeric := mod(x::numeric + 11400714819323198485 + modulus, modulus);
    z bigint := CASE WHEN n >= modulus / 2 THEN n - modulus ELSE n END;
    shift int;
BEGIN
    FOREACH shift IN ARRAY ARRAY[30, 27, 31] LOOP
        z := z # ((z >> shift) & ((1::bigint << (64 - shift)) - 1));
        EXIT WHEN shift = 31;
        n := mod(mod(z::numeric * CASE shift WHEN 30 THEN 13787848793156543929
                                             ELSE 10723151780598845931 END, modulus) + modulus, modulus);
        z := CASE WHEN n >= modulus / 2 THEN n - modulus ELSE n END;
    END LOOP;
    RETURN z;
END $$;
COMMENT ON FUNCTION athanor.mix64 IS 'The finaliser of splitmix64.';

CREATE FUNCTION athanor.order_item(seed numeric, items bigint, pos bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    key bigint := CASE WHEN seed >= 9223372036854775808 THEN seed - 18446744073709551616 ELSE seed END;
    half int := 1;
    mask bigint;
    i bigint := pos % items;
    l bigint;
    r bigint;
    t bigint;
BEGIN
    key := athanor.mix64(key # athanor.mix64(pos / items));
    WHILE (1::bigint << (2 * half)) < items LOOP
        half := half + 1;
    END LOOP;
    mask := (1::bigint << half) - 1;
    LOOP
        l := i >> half;
        r := i & mask;
        FOR round IN 0 .. 5 LOOP
            t := l # (athanor.mix64(key # athanor.mix64((round::bigint << 56) # r)) & mask);
            l := r;
            r := t;
        END LOOP;
        i := (l << half) | r;
        EXIT WHEN i < items;
    END LOOP;
    RETURN i;
END $$;
COMMENT ON FUNCTION athanor.order_item IS 'The item at a position of the endless shuffled stream.';

CREATE FUNCTION athanor.step_items(attempt bigint, step bigint)
RETURNS TABLE (input text, part text, unit text, batch_row bigint, item bigint)
LANGUAGE sql STABLE STRICT AS $$
    SELECT d.input, d.part, d.unit, b,
           athanor.order_item(d.seed, d.items, (step - 1 + d.skip) * d.batch + b)
      FROM athanor.data_orders d, generate_series(0, d.batch - 1) AS b
     WHERE d.attempt_id = attempt AND step BETWEEN 1 AND 100000000000
     ORDER BY d.input, d.part, b
$$;
COMMENT ON FUNCTION athanor.step_items IS
    'What a step of a run saw: row by row of its batch the number of the document, or of the window, '
    'in a part of an input. Steps are counted from 1, as in metrics, also over resumed runs.';

REVOKE EXECUTE ON FUNCTION athanor.order_read(text), athanor.mix64(bigint),
    athanor.order_item(numeric, bigint, bigint), athanor.step_items(bigint, bigint) FROM PUBLIC;
-- Views call functions with the rights of who reads.
CREATE OR REPLACE FUNCTION athanor.reader_grant() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    view name;
BEGIN
    GRANT USAGE ON SCHEMA athanor TO athanor_reader;
    GRANT EXECUTE ON FUNCTION athanor.bytes_text(bytea), athanor.job_find(text),
        athanor.sweep_find(text), athanor.params_text(jsonb), athanor.card_number(jsonb, text),
        athanor.card_list(jsonb, text), athanor.pair_lineage(text, text), athanor.order_read(text),
        athanor.mix64(bigint), athanor.order_item(numeric, bigint, bigint),
        athanor.step_items(bigint, bigint) TO athanor_reader;
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
