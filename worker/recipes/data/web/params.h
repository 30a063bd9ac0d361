/* params.h - the rows that recipes data/dolma and data/yi share; they differ in their defaults. */
#ifndef ATHANOR_WEB_PARAMS_H
#define ATHANOR_WEB_PARAMS_H

#include "worker/recipes/data/prepare.h"

/* clang-format off */
#define WEB_PARAMS(STAGES, NORMALISE, SCORERS, TOPICS) \
    {"documents", PARAM_LIST, "", 0, 0, NULL, \
     "shell patterns of JSON lines with id, text and maybe source and url, or of web archives " \
     "(WARC, WET); plain or gzip"}, \
    {"html_skip", PARAM_LIST, "nav;footer;aside;form;menu;dialog", 0, 0, NULL, \
     "elements of the pages of archives that are left out with all within them"}, \
    {"stages", PARAM_LIST, STAGES, 0, 0, NULL, \
     "what documents pass, in this order; a stage whose input is not given is left out"}, \
    {"malformed", PARAM_CHOICE, "skip", 0, 0, "skip|fail", \
     "a line that is no document: counted and named, or the end of the job"}, \
    {"language", PARAM_STRING, "en", 0, 0, NULL, "label of the classifier langid to keep"}, \
    {"language_min", PARAM_FLOAT, "0.5", 0, 1, NULL, "least p(language)"}, \
    {"block_lists", PARAM_LIST, "", 0, 0, NULL, \
     "files of hosts and addresses, one a line, whose documents are dropped"}, \
    {"garbled_max", PARAM_FLOAT, "0.01", 0, 1, NULL, \
     "most share of characters that are no text"}, \
    {"gopher_variant", PARAM_CHOICE, "dolma", 0, 0, "dolma|datatrove", \
     "whose definitions and limits the Gopher rules have"}, \
    {"limits", PARAM_LIST, "", 0, 0, NULL, \
     "other limits of the Gopher rules, each MEASURE=LOW:HIGH, as words=20:, or of a language " \
     "that langid tells, as en/words=20:"}, \
    {"rules_mode", PARAM_CHOICE, "fixed", 0, 0, "fixed|quantile", \
     "the published limits of the Gopher rules, or quantiles of a sample of each language in " \
     "their place"}, \
    {"rules_q_low", PARAM_FLOAT, "0.1", 0, 0.5, NULL, \
     "share of the sample below a low limit; 0: no low limits"}, \
    {"rules_q_high", PARAM_FLOAT, "0.9", 0.5, 1, NULL, \
     "share of the sample not above a high limit; 1: no high limits"}, \
    {"rules_sample", PARAM_FLOAT, "0.01", 1e-6, 1, NULL, \
     "share of the documents that limits are drawn from, by the hash of their ids"}, \
    {"rules_sample_min", PARAM_INT, "100", 1, 1e9, NULL, \
     "a language with fewer documents in the sample keeps the published limits"}, \
    {"source_limits", PARAM_LIST, "", 0, 0, NULL, \
     "other limits of the stages code, social and wiki, each MEASURE=LOW:HIGH, as code_stars=2:"}, \
    {"code_formats", PARAM_LIST, \
     "json;jsonl;ndjson;geojson;topojson;csv;tsv;svg;asm;s;nasm;assembly", 0, 0, NULL, \
     "endings and languages of files that are data and no code, which the stage code drops"}, \
    {"forum_lists", PARAM_LIST, "", 0, 0, NULL, \
     "files of subreddits, one a line, whose documents the stage social drops"}, \
    {"c4_rules", PARAM_LIST, "nopunc", 0, 0, NULL, \
     "of nopunc, minwords (cut lines), naughty, js, lorem, brace, minsents (drop documents)"}, \
    {"naughty_words", PARAM_STRING, "", 0, 0, NULL, "file of words and phrases, one a line"}, \
    {"toxicity_label", PARAM_STRING, "toxic", 0, 0, NULL, "label of the classifier toxicity"}, \
    {"toxicity_max", PARAM_FLOAT, "0.4", 0, 1, NULL, "most p(toxic) of a sentence"}, \
    {"pii_action", PARAM_CHOICE, "mask", 0, 0, "mask|drop|off", \
     "mask up to pii_max_mask addresses and numbers, drop documents with more; drop all; none"}, \
    {"pii_max_mask", PARAM_INT, "5", 0, 1000, NULL, "most that are masked in a document"}, \
    {"repetition_max", PARAM_INT, "100", 2, 1e9, NULL, \
     "a token sequence that often in a row drops a document"}, \
    {"dedup", PARAM_CHOICE, "exact", 0, 0, "exact|bloom", \
     "sets of all keys (24 to 48 bytes each), or Bloom filters of a given size"}, \
    {"bloom_n", PARAM_INT, "0", 0, 9e15, NULL, "units that a Bloom filter is made for"}, \
    {"bloom_p", PARAM_FLOAT, "1e-6", 1e-18, 0.1, NULL, "its false positive rate"}, \
    {"bloom_k_max", PARAM_INT, "32", 1, 64, NULL, "its most hashes"}, \
    {"dedup_ngram", PARAM_INT, "0", 0, 64, NULL, \
     "the stage paragraph looks for n-grams of this many words instead of whole paragraphs; " \
     "0: off"}, \
    {"dedup_stride", PARAM_INT, "1", 1, 1e6, NULL, \
     "words from one of its n-grams to the next"}, \
    {"dedup_overlap", PARAM_FLOAT, "1.0", 0, 1, NULL, \
     "share of a paragraph's n-grams that must have been seen for it to be cut; 0: one is " \
     "enough"}, \
    {"normalise", PARAM_CHOICE, NORMALISE, 0, 0, "exact|words", \
     "what two equal paragraphs or documents share: their bytes, or their words in lower case"}, \
    {"decontaminate", PARAM_LIST, "", 0, 0, NULL, \
     "shell patterns of eval sets (.jsonl .json .csv or text): no document may hold their " \
     "paragraphs"}, \
    {"decon_min_words", PARAM_INT, "13", 1, 1e6, NULL, "shorter paragraphs are not looked for"}, \
    {"decon_ngram", PARAM_INT, "0", 0, 64, NULL, \
     "compare n-grams of words instead of whole paragraphs; 0: off"}, \
    {"decon_overlap", PARAM_FLOAT, "1.0", 0, 1, NULL, \
     "share of a paragraph's n-grams that makes it a hit"}, \
    {"decon_max_removal", PARAM_FLOAT, "0.001", 0, 1, NULL, \
     "a larger share of documents dropped as contaminated ends the job: the set is too common"}, \
    {"reference", PARAM_LIST, "", 0, 0, NULL, \
     "shell patterns of good texts for the stages perplexity and coherence, none of them " \
     "filtered here"}, \
    {"coherence_drop_pct", PARAM_FLOAT, "5", 0, 50, NULL, \
     "a text less coherent than all but this percent of the reference's is split, and parts of " \
     "fewer than 50 words dropped"}, \
    {"perplexity_sigma", PARAM_FLOAT, "2.0", 0.5, 6, NULL, \
     "standard deviations below the reference's mean log-probability that drop a document"}, \
    {"quality_label", PARAM_STRING, "good", 0, 0, NULL, "label of the classifier quality"}, \
    {"scorers", PARAM_LIST, SCORERS, 0, 0, NULL, \
     "classifiers with limits, each 'NAME=INPUT/LABEL min=P max=P unit=document|paragraph|" \
     "sentence action=drop|cut|tag'; auto as P is the classifier's own threshold"}, \
    {"topic_keep", PARAM_LIST, TOPICS, 0, 0, NULL, \
     "share to keep of the documents whose likeliest label of the classifier topic is LABEL, " \
     "each LABEL=RATE; the others stay"}, \
    {"minhash_bands", PARAM_INT, "14", 1, 16384, NULL, "bands of the MinHash signature"}, \
    {"minhash_rows", PARAM_INT, "8", 1, 16384, NULL, "minima of each band"}, \
    {"minhash_ngram", PARAM_INT, "5", 1, 16, NULL, "words of a shingle"}, \
    {"minhash_jaccard", PARAM_FLOAT, "0.8", 0, 1, NULL, \
     "candidates are near duplicates above this share of common shingles; 0: all are"}, \
    {"minhash_min_words", PARAM_INT, "14", 1, 1e6, NULL, \
     "paragraphs of fewer words are left alone by the stage minhash_paragraph"}, \
    {"exact_min_words", PARAM_INT, "50", 8, 1e6, NULL, \
     "passages of at least this many words that occur twice are cut"}, \
    {"exact_keep", PARAM_CHOICE, "first", 0, 0, "first|none", \
     "whether the first copy of a passage stays"}, \
    {"cluster_k", PARAM_INT, "0", 0, 100000, NULL, \
     "clusters of the stage cluster; 0: the root of half the documents, at most 10,000"}, \
    {"cluster_rounds", PARAM_INT, "20", 1, 1000, NULL, "most rounds of moving their centres"}, \
    {"cluster_drop_pct", PARAM_FLOAT, "0", 0, 50, NULL, \
     "percent of clusters to drop, those of the least mean quality; look at them before"}, \
    {"cluster_keep", PARAM_LIST, "", 0, 0, NULL, \
     "share to keep of clusters by their numbers, each CLUSTER=RATE; before cluster_drop_pct"}, \
    {"mix", PARAM_LIST, "", 0, 0, NULL, \
     "documents of a source to take, each SOURCE=RATE: 0.5 is every other one, 2 each twice"}, \
    {"mix_include", PARAM_LIST, "", 0, 0, NULL, \
     "conditions such as 'words >= 80 and (language > 0.7 or source = books)': only documents " \
     "that meet one of them are taken; measures, scorers, topic, source, id, bytes, edits"}, \
    {"mix_exclude", PARAM_LIST, "", 0, 0, NULL, \
     "conditions of the same form: documents that meet one of them are left out"}, \
    {"card_samples", PARAM_INT, "5", 0, 20, NULL, \
     "dropped documents of each filter shown in the dataset's card"}, \
    {"block_bytes", PARAM_INT, "8388608", 4096, 1e12, NULL, \
     "bytes of a block of documents: what a rank does at once, and what a killed run repeats"}, \
    PREPARE_PARAMS
/* clang-format on */

#define WEB_INPUTS \
    {"data", INPUT_DATASET, false, "a dataset's part (all, unless named) as documents"}, \
    {"langid", INPUT_CHECKPOINT, false, "classifier of languages (recipe data/classifier)"}, \
    {"toxicity", INPUT_CHECKPOINT, false, "classifier of toxic sentences"}, \
    {"quality", INPUT_CHECKPOINT, false, "classifier of good documents, with its threshold"}, \
    {"hate", INPUT_CHECKPOINT, false, "classifier of hateful sentences, for scorers"}, \
    {"nsfw", INPUT_CHECKPOINT, false, "classifier of obscene sentences, for scorers"}, \
    {"safety", INPUT_CHECKPOINT, false, "classifier of unsafe documents, for scorers"}, \
    {"topic", INPUT_CHECKPOINT, false, "classifier of topics, for topic_keep and scorers"}, \
    {"scorer_1", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_2", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_3", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_4", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_5", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_6", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_7", INPUT_CHECKPOINT, false, "any classifier, for scorers"}, \
    {"scorer_8", INPUT_CHECKPOINT, false, "any classifier, for scorers"}

#endif
